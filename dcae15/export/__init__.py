"""Weights and configurations of others: read and written in the official and the diffusers layout, imported, exported."""
