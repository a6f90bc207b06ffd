"""The training loop and what it needs; knows nothing of Ray."""
