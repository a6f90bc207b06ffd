"""The DC-AE autoencoders: pixels to latents and back, for any prefix of the latent channels."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dcae15.errors import ConfigError
from dcae15.models.attention import EViTBlock
from dcae15.models.blocks import ChannelRMSNorm, Downsample, PrefixInConv, PrefixOutConv, ResBlock, Upsample, activation
from dcae15.models.spec import AutoencoderSpec

PIXEL_CHANNELS = 3


def _block(kind: str, width: int, norm: str = "rms_norm", act: str = "silu") -> nn.Module:
    if kind == "ResBlock":
        return ResBlock(width, norm, act)
    return EViTBlock(width, scales=(5,) if kind == "EViTS5GLU" else ())


class Encoder(nn.Module):
    """Pixels (B, 3, H, W) to the first channels of the latent (B, prefix, H/f, W/f)."""

    def __init__(self, spec: AutoencoderSpec):
        super().__init__()
        widths, depths = spec.encoder_widths, spec.encoder_depths
        strided = spec.downsample == "conv"
        if depths[0]:
            self.conv_in = nn.Conv2d(PIXEL_CHANNELS, widths[0], 3, padding=1)
        else:
            self.conv_in = Downsample(PIXEL_CHANNELS, widths[1], shortcut=False, strided=strided)
        stages = []
        for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            layers = [_block(spec.encoder_blocks[i], width) for _ in range(depth)]
            if depth and i < len(widths) - 1:
                layers.append(Downsample(width, widths[i + 1], strided=strided))
            stages.append(nn.Sequential(*layers))
        self.down_blocks = nn.ModuleList(stages)
        self.conv_out = PrefixOutConv(widths[-1], spec.latent_channels, spec.latent_shortcuts)

    def forward(self, pixels_BCHW: Tensor, prefix: int) -> Tensor:
        """Encode to ``prefix`` channels."""
        x = self.conv_in(pixels_BCHW)
        for stage in self.down_blocks:
            x = stage(x)
        return self.conv_out(x, prefix)


class Decoder(nn.Module):
    """Any front channels of the latent (B, c, h, w) to pixels (B, 3, f*h, f*w)."""

    def __init__(self, spec: AutoencoderSpec):
        super().__init__()
        widths, depths = spec.decoder_widths, spec.decoder_depths
        interpolate = spec.upsample == "interpolate"
        self.conv_in = PrefixInConv(spec.latent_channels, widths[-1], spec.latent_shortcuts)
        stages = []
        for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            kind, norm, act = spec.decoder_blocks[i], spec.decoder_norms[i], spec.decoder_acts[i]
            layers = [_block(kind, width, norm, act) for _ in range(depth)]
            if depth and i < len(widths) - 1:
                layers.insert(0, Upsample(widths[i + 1], width, interpolate=interpolate))
            stages.append(nn.Sequential(*layers))
        self.up_blocks = nn.ModuleList(stages)
        last = widths[0] if depths[0] else widths[1]
        self.norm_out = ChannelRMSNorm(last)
        self.act_out = activation(spec.out_act)
        if depths[0]:
            self.conv_out = nn.Conv2d(last, PIXEL_CHANNELS, 3, padding=1)
        else:
            self.conv_out = Upsample(last, PIXEL_CHANNELS, shortcut=False, interpolate=interpolate)

    def forward(self, latents_Bchw: Tensor) -> Tensor:
        """Decode c channels."""
        x = self.conv_in(latents_Bchw)
        for stage in reversed(self.up_blocks):  # stages are numbered from image to latent
            x = stage(x)
        return self.conv_out(self.act_out(self.norm_out(x)))


def init_weights(module: nn.Module, generator: torch.Generator | None) -> None:
    """Draw the initial weights of everything below ``module`` from a private generator.

    Convolutions and linear layers get torch's default distribution: uniform within 1 / sqrt(fan in). Every block starts as
    identity, because a norm ends each of its residuals: with the usual gain of 1 each would add a full-size random vector to
    the signal of the shortcuts, whatever its convolutions do. With a gain of 0 training begins with the shortcuts alone, and
    is faster.
    """
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            bound = 1 / math.sqrt(layer.weight[0].numel())
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            if layer.bias is not None:
                nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
        elif isinstance(layer, ResBlock):
            nn.init.zeros_(layer.norm.weight)
        elif isinstance(layer, EViTBlock):
            nn.init.zeros_(layer.attn.norm_out.weight)
            nn.init.zeros_(layer.conv_out.norm.weight)


class Autoencoder(nn.Module):
    """The deterministic autoencoder of DC-AE 1.0, 1.1, 1.5 and Sana, whose latent can be cut after any channel.

    Pixels are RGB in [-1, 1]; the decoder's output is not clamped. Latents are raw: no scale, no shift. Keeping the
    first c channels and filling the others with zeros are the same function for every graph (arXiv 2508.00413, equation 1).
    1.1 and 1.5 have the same weights and differ in training only. Parameters are named as in diffusers' ``AutoencoderDC``.
    """

    # Prefix lengths that the weights were trained with; empty when that is not known
    prefix_choices: tuple[int, ...] = ()
    fingerprint: str = ""  # What names the weights; empty for new ones

    def __init__(self, spec: AutoencoderSpec, generator: torch.Generator | None = None):
        super().__init__()
        self.spec = spec
        self.encoder = Encoder(spec)
        self.decoder = Decoder(spec)
        init_weights(self, generator)

    def encode(self, pixels_BCHW: Tensor, prefix: int | None = None) -> Tensor:
        """Return the first ``prefix`` latent channels, (B, prefix, H/f, W/f); None means all C.

        Raises:
            ConfigError: The image is not RGB, a side is not divisible by f, or the prefix is not in 1..C.
        """
        f, channels = self.spec.spatial_compression, self.spec.latent_channels
        shape = tuple(pixels_BCHW.shape)
        if len(shape) != 4 or shape[1] != PIXEL_CHANNELS:
            raise ConfigError(
                f"cannot encode pixels of shape {shape}; expected (batch, {PIXEL_CHANNELS}, height, width)"
            )
        if shape[2] % f or shape[3] % f:
            raise ConfigError(
                f"cannot encode images of {shape[2]}x{shape[3]} pixels: both sides must be divisible by the "
                f"autoencoder's spatial compression {f}"
            )
        prefix = channels if prefix is None else prefix
        if not 1 <= prefix <= channels:
            raise ConfigError(f"prefix = {prefix} is not between 1 and the autoencoder's {channels} latent channels")
        return self.encoder(pixels_BCHW, prefix)

    def decode(self, latents_Bchw: Tensor) -> Tensor:
        """Return pixels (B, 3, f*h, f*w) from any 1 <= c <= C front channels (B, c, h, w).

        Raises:
            ConfigError: The latents do not have four dimensions or have more than C channels.
        """
        shape = tuple(latents_Bchw.shape)
        if len(shape) != 4 or not 1 <= shape[1] <= self.spec.latent_channels:
            raise ConfigError(
                f"cannot decode latents of shape {shape}; expected (batch, 1 to {self.spec.latent_channels} channels, "
                "height, width)"
            )
        return self.decoder(latents_Bchw)

    def forward(self, pixels_BCHW: Tensor, prefix: int | None = None) -> Tensor:
        """Reconstruct pixels from the first ``prefix`` latent channels."""
        return self.decode(self.encode(pixels_BCHW, prefix))
