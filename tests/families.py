"""One tiny graph of every published family, and weights in which every tensor matters."""

from __future__ import annotations

import torch

from dcae15.models.autoencoder import Autoencoder
from dcae15.models.spec import AutoencoderSpec

FAMILIES = {
    "1.5": AutoencoderSpec(8, (8, 16, 32, 32), (0, 2, 1, 1), (8, 16, 32, 32), (0, 1, 1, 2)),
    "1.5-f16": AutoencoderSpec(6, (4, 8, 16, 32, 64), (0, 1, 1, 2, 1), (20, 24, 48, 16, 64), (0, 1, 2, 1, 1)),
    "1.0": AutoencoderSpec(
        8,
        (4, 8, 32, 64),
        (0, 1, 1, 2),
        (4, 16, 32, 64),
        (0, 2, 1, 1),
        encoder_blocks=("ResBlock", "ResBlock", "EViTGLU", "EViTGLU"),
        decoder_blocks=("ResBlock", "ResBlock", "EViTGLU", "EViTGLU"),
        decoder_norms=("batch_norm", "batch_norm", "rms_norm", "rms_norm"),
        decoder_acts=("relu", "relu", "silu", "silu"),
        latent_shortcuts=True,
        out_act="relu",
    ),
    "sana": AutoencoderSpec(
        4,
        (6, 12, 48),
        (1, 1, 2),
        (8, 16, 32),
        (2, 1, 1),
        encoder_blocks=("ResBlock", "ResBlock", "EViTS5GLU"),
        decoder_blocks=("ResBlock", "ResBlock", "EViTS5GLU"),
        latent_shortcuts=True,
        out_act="relu",
        downsample="conv",
        upsample="interpolate",
    ),
    "lite": AutoencoderSpec(
        4,
        (8, 16, 32),
        (1, 1, 2),
        (8, 16, 32),
        (0, 1, 2),
        encoder_blocks=("ResBlock", "ResBlock", "EViTS5GLU"),
        latent_shortcuts=True,
        downsample="conv",
    ),
    "strided-1.1": AutoencoderSpec(
        5, (8, 16, 32), (0, 1, 1), (8, 16, 32), (0, 1, 1), downsample="conv", upsample="interpolate"
    ),
}


def randomised(spec: AutoencoderSpec, seed: int = 0) -> Autoencoder:
    """An autoencoder in evaluation mode whose norms and running statistics are random too: swapped tensors would show."""
    generator = torch.Generator().manual_seed(seed)
    model = Autoencoder(spec, generator).eval()
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2, generator=generator)
            elif value.is_floating_point():
                value.add_(0.1 * torch.randn(value.shape, generator=generator))
            else:
                value.fill_(7)
    return model


def pixels(spec: AutoencoderSpec, batch: int = 2, rows: int = 2, columns: int = 3, seed: int = 2) -> torch.Tensor:
    """Images of so many latent pixels."""
    f = spec.spatial_compression
    return torch.rand(batch, 3, rows * f, columns * f, generator=torch.Generator().manual_seed(seed)) * 2 - 1
