"""Open training system for DC-AE 1.5: structured latent space and augmented diffusion training.

As a library: `load_autoencoder`, `load_denoiser`, `open_latents`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dcae15.library import load_autoencoder, load_denoiser, open_latents

__all__ = ["load_autoencoder", "load_denoiser", "open_latents"]


def __getattr__(name: str) -> Any:
    """Import torch only when something is loaded, so that ``--help`` is quick."""
    if name in __all__:
        from dcae15 import library

        return getattr(library, name)
    raise AttributeError(f"module 'dcae15' has no attribute {name!r}")
