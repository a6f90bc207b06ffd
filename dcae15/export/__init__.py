"""Official and diffusers layouts of weights."""
