"""Paths from noise to data, and what a denoiser is asked for on them."""
