"""The diffusion and autoencoder networks: plain torch, no I/O, no configuration files, no distribution."""
