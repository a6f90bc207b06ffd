"""Measurements: reconstruction, Fréchet distance, structure of the latent space."""
