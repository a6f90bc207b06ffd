"""Reconstruction losses of the autoencoder."""

from __future__ import annotations

from torch import Tensor


def l1(reconstruction_BCHW: Tensor, target_BCHW: Tensor) -> Tensor:
    """Mean absolute error in pixels of [-1, 1], computed in float32."""
    return (reconstruction_BCHW.float() - target_BCHW.float()).abs().mean()
