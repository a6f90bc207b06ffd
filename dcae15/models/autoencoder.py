"""The DC-AE 1.1 / 1.5 autoencoder: pixels to latents and back, for any prefix of the latent channels."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dcae15.errors import ConfigError
from dcae15.models.blocks import (
    ChannelRMSNorm,
    Downsample,
    PrefixInConv,
    PrefixOutConv,
    ResBlock,
    Upsample,
    init_weights,
)

PIXEL_CHANNELS = 3


@dataclass(frozen=True)
class AutoencoderSpec:
    """The graph of an autoencoder. All lists are ordered from image to latent; lists and tuples are accepted.

    Attributes:
        latent_channels: C, channels of the latent.
        encoder_widths: Channels of each encoder stage. n stages compress by 2**(n-1). The first stage is empty, so its
            width is not used; it is kept because the published configurations have it.
        encoder_depths: ResBlocks of each encoder stage; the first is 0.
        decoder_widths: As encoder_widths.
        decoder_depths: As encoder_depths.

    Raises:
        ConfigError: A field is out of range or contradicts another; the message names it.
    """

    latent_channels: int
    encoder_widths: tuple[int, ...]
    encoder_depths: tuple[int, ...]
    decoder_widths: tuple[int, ...]
    decoder_depths: tuple[int, ...]

    def __post_init__(self) -> None:
        for name in ("encoder_widths", "encoder_depths", "decoder_widths", "decoder_depths"):
            value = getattr(self, name)
            if not isinstance(value, (list, tuple)) or not all(type(item) is int for item in value):
                raise ConfigError(f"{name} = {value!r} is not a list of whole numbers")
            object.__setattr__(self, name, tuple(value))
        if type(self.latent_channels) is not int or self.latent_channels < 1:
            raise ConfigError(f"latent_channels = {self.latent_channels!r} must be a whole number of at least 1")
        if len(self.encoder_widths) < 2:
            raise ConfigError(f"encoder_widths = {list(self.encoder_widths)} needs at least 2 stages")
        for name in ("encoder_depths", "decoder_widths", "decoder_depths"):
            if len(getattr(self, name)) != len(self.encoder_widths):
                raise ConfigError(
                    f"{name} = {list(getattr(self, name))} has {len(getattr(self, name))} stages but encoder_widths "
                    f"has {len(self.encoder_widths)}; give every list one entry per stage"
                )
        for side in ("encoder", "decoder"):
            _check_widths(f"{side}_widths", getattr(self, f"{side}_widths"))
            _check_depths(f"{side}_depths", getattr(self, f"{side}_depths"))

    @property
    def spatial_compression(self) -> int:
        """f: one latent pixel stands for f x f image pixels."""
        return 2 ** (len(self.encoder_widths) - 1)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> AutoencoderSpec:
        """Undo ``to_dict``; raises ConfigError on missing or unknown fields."""
        return cls(**check_fields(cls, values))


def check_fields(cls: type, values: dict[str, Any]) -> dict[str, Any]:
    """Return ``values`` when it has exactly the fields of the dataclass ``cls``; else raise ConfigError."""
    names = {f.name for f in dataclasses.fields(cls)}
    if missing := sorted(names - set(values)):
        raise ConfigError(f"{cls.__name__} misses {', '.join(missing)}")
    if unknown := sorted(set(values) - names):
        raise ConfigError(
            f"{cls.__name__} has no field {', '.join(unknown)}; its fields are {', '.join(sorted(names))}"
        )
    return values


def _check_widths(name: str, widths: tuple[int, ...]) -> None:
    if min(widths) < 1:
        raise ConfigError(f"{name} = {list(widths)} must hold positive numbers")
    for stage, width in enumerate(widths[1:], start=1):
        if width % 4:
            raise ConfigError(
                f"{name}[{stage}] = {width} must be divisible by 4, because the layer before it makes 1 pixel of 2x2"
            )
    for stage, (width, deeper) in enumerate(itertools.pairwise(widths[1:]), start=1):
        if (4 * width) % deeper:
            raise ConfigError(
                f"{name}[{stage + 1}] = {deeper} must divide 4 * {name}[{stage}] = {4 * width}, because the shortcut "
                "between the stages averages or repeats whole groups of channels"
            )


def _check_depths(name: str, depths: tuple[int, ...]) -> None:
    if depths[0] != 0:
        raise ConfigError(f"{name}[0] = {depths[0]} must be 0: the first stage of DC-AE 1.1 and 1.5 is empty")
    if min(depths[1:]) < 1:
        raise ConfigError(f"{name} = {list(depths)} needs at least 1 block in every stage after the first")


class Encoder(nn.Module):
    """Pixels (B, 3, H, W) to the first channels of the latent (B, prefix, H/f, W/f)."""

    def __init__(self, spec: AutoencoderSpec):
        super().__init__()
        widths, depths = spec.encoder_widths, spec.encoder_depths
        self.conv_in = Downsample(PIXEL_CHANNELS, widths[1], shortcut=False)
        stages = []
        for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            layers: list[nn.Module] = [ResBlock(width) for _ in range(depth)]
            if 0 < i < len(widths) - 1:
                layers.append(Downsample(width, widths[i + 1]))
            stages.append(nn.Sequential(*layers))
        self.down_blocks = nn.ModuleList(stages)
        self.conv_out = PrefixOutConv(widths[-1], spec.latent_channels, 3, padding=1)

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
        self.conv_in = PrefixInConv(spec.latent_channels, widths[-1], 3, padding=1)
        stages = []
        for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            layers: list[nn.Module] = [ResBlock(width) for _ in range(depth)]
            if 0 < i < len(widths) - 1:
                layers.insert(0, Upsample(widths[i + 1], width))
            stages.append(nn.Sequential(*layers))
        self.up_blocks = nn.ModuleList(stages)
        self.norm_out = ChannelRMSNorm(widths[1])
        self.conv_out = Upsample(widths[1], PIXEL_CHANNELS, shortcut=False)

    def forward(self, latents_Bchw: Tensor) -> Tensor:
        """Decode c channels."""
        x = self.conv_in(latents_Bchw)
        for stage in reversed(self.up_blocks):  # stages are numbered from image to latent
            x = stage(x)
        return self.conv_out(nn.functional.silu(self.norm_out(x)))


class Autoencoder(nn.Module):
    """The deterministic autoencoder of DC-AE 1.1 and 1.5, whose latent can be cut after any channel.

    Pixels are RGB in [-1, 1]; the decoder's output is not clamped. Latents are raw: no scale, no shift. Keeping the
    first c channels and filling the others with zeros are the same function (arXiv 2508.00413, equation 1). 1.1 and 1.5
    have the same weights and differ in training only. Parameters are named as in diffusers' ``AutoencoderDC``.

    Args:
        spec: The graph.
        generator: Source of the initial weights; None draws them from torch's global generator.

    Attributes:
        prefix_choices: Prefix lengths that the weights were trained with; empty when that is not known.
        fingerprint: What names the weights; empty for new ones.
    """

    prefix_choices: tuple[int, ...] = ()
    fingerprint: str = ""

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
