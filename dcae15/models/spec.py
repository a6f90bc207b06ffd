"""Graphs as data, without torch: of a DC-AE autoencoder (every published family and everything between) and of a denoiser."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from typing import Any

from dcae15.errors import ConfigError

HEAD_CHANNELS = 32
"""Channels of an attention head."""

BLOCKS = ("ResBlock", "EViTGLU", "EViTS5GLU")
NORMS = ("rms_norm", "batch_norm")
ACTS = ("silu", "relu")
DOWNSAMPLES = ("pixel_unshuffle", "conv")
UPSAMPLES = ("pixel_shuffle", "interpolate")

_NUMBERS = ("encoder_widths", "encoder_depths", "decoder_widths", "decoder_depths")
_PER_STAGE = {"encoder_blocks": BLOCKS, "decoder_blocks": BLOCKS, "decoder_norms": NORMS, "decoder_acts": ACTS}
_SINGLE = {"out_act": ACTS, "downsample": DOWNSAMPLES, "upsample": UPSAMPLES}


@dataclass(frozen=True)
class AutoencoderSpec:
    """The graph of an autoencoder; the defaults are those of DC-AE 1.1 and 1.5.

    All lists are ordered from image to latent; lists and tuples are accepted. Of the lists of names, a single name counts
    for every stage.

    Raises:
        ConfigError: A field is out of range or contradicts another; the message names it.
    """

    latent_channels: int  # C, channels of the latent
    encoder_widths: tuple[int, ...]  # Channels of each encoder stage; n stages compress by 2**(n-1)
    # Blocks of each encoder stage. Where the first is 0 its width is not used (the published configurations have it):
    # the first layer halves the image. Otherwise the first layer is a plain convolution
    encoder_depths: tuple[int, ...]
    decoder_widths: tuple[int, ...]  # As encoder_widths
    decoder_depths: tuple[int, ...]  # As encoder_depths
    # Block of each encoder stage: ``ResBlock``; ``EViTGLU``, linear attention (arXiv 2205.14756); or ``EViTS5GLU``, the
    # same at a second scale of 5x5 pixels
    encoder_blocks: tuple[str, ...] = ("ResBlock",)
    decoder_blocks: tuple[str, ...] = ("ResBlock",)  # As encoder_blocks
    # Norm in the ResBlocks of each decoder stage: ``rms_norm``, or ``batch_norm`` as in 1.0. The encoder has
    # ``rms_norm``, and so has attention
    decoder_norms: tuple[str, ...] = ("rms_norm",)
    # Activation in the ResBlocks of each decoder stage: ``silu``, or ``relu`` as in 1.0. The encoder has ``silu``, and
    # so has attention
    decoder_acts: tuple[str, ...] = ("silu",)
    # Add the mean over channel groups to the encoder's last convolution, and each latent channel repeated to the
    # decoder's first: in 1.0 and Sana, not in 1.1 and 1.5
    latent_shortcuts: bool = False
    out_act: str = "silu"  # Activation before the decoder's last layer
    downsample: str = "pixel_unshuffle"  # ``pixel_unshuffle``, or ``conv``, a strided convolution (Sana)
    # ``pixel_shuffle``, or ``interpolate``, nearest neighbours and a convolution (Sana)
    upsample: str = "pixel_shuffle"

    def __post_init__(self) -> None:
        for name in _NUMBERS:
            value = getattr(self, name)
            if not isinstance(value, (list, tuple)) or not all(type(item) is int for item in value):
                raise ConfigError(f"{name} = {value!r} is not a list of whole numbers")
            object.__setattr__(self, name, tuple(value))
        if type(self.latent_channels) is not int or self.latent_channels < 1:
            raise ConfigError(f"latent_channels = {self.latent_channels!r} must be a whole number of at least 1")
        if len(self.encoder_widths) < 2:
            raise ConfigError(f"encoder_widths = {list(self.encoder_widths)} needs at least 2 stages")
        counts = {name: len(getattr(self, name)) for name in _NUMBERS}
        if len(set(counts.values())) > 1:
            found = ", ".join(f"{name} has {count}" for name, count in counts.items())
            raise ConfigError(f"{found}; all four lists need one number for each stage")
        for name, names in _PER_STAGE.items():
            self._spread(name, names)
        for name, names in _SINGLE.items():
            _check_name(name, getattr(self, name), names)
        if type(self.latent_shortcuts) is not bool:
            raise ConfigError(f"latent_shortcuts = {self.latent_shortcuts!r} must be true or false")
        for side in ("encoder", "decoder"):
            self._check_side(side)
        self._check_attention()

    def _spread(self, name: str, names: tuple[str, ...]) -> None:
        """Give every stage its entry."""
        value, stages = getattr(self, name), len(self.encoder_widths)
        items = (value,) if isinstance(value, str) else value
        if not isinstance(items, (list, tuple)) or not items:
            raise ConfigError(f"{name} = {value!r} is not a list of names; give one for each stage, or one for all")
        items = tuple(items) * stages if len(items) == 1 else tuple(items)
        if len(items) != stages:
            raise ConfigError(
                f"{name} = {list(items)} has {len(items)} stages but encoder_widths has {stages}; give one entry for each stage, "
                "or one for all"
            )
        for stage, item in enumerate(items):
            _check_name(f"{name}[{stage}]", item, names)
        object.__setattr__(self, name, items)

    def _check_side(self, side: str) -> None:
        widths, depths = getattr(self, f"{side}_widths"), getattr(self, f"{side}_depths")
        first = 0 if depths[0] else 1
        unshuffles = side == "encoder" and self.downsample == "pixel_unshuffle"
        _check_depths(f"{side}_depths", depths)
        _check_widths(f"{side}_widths", widths, first, unshuffles)
        if self.latent_shortcuts and widths[-1] % self.latent_channels:
            raise ConfigError(
                f"{side}_widths[{len(widths) - 1}] = {widths[-1]} must be a multiple of latent_channels = "
                f"{self.latent_channels}, because latent_shortcuts average or repeat whole groups of channels; change one of "
                "them or set latent_shortcuts to false"
            )

    def _check_attention(self) -> None:
        for side in ("encoder", "decoder"):
            blocks, widths, depths = (getattr(self, f"{side}_{what}") for what in ("blocks", "widths", "depths"))
            for stage in (i for i, block in enumerate(blocks) if block != "ResBlock" and depths[i]):
                if widths[stage] < HEAD_CHANNELS:
                    raise ConfigError(
                        f"{side}_widths[{stage}] = {widths[stage]} is too narrow for {side}_blocks[{stage}] = {blocks[stage]}: "
                        f"a head of attention has {HEAD_CHANNELS} channels; widen it or use ResBlock"
                    )
                for name, needed in (("norms", "rms_norm"), ("acts", "silu")):
                    if side == "decoder" and (found := getattr(self, f"decoder_{name}")[stage]) != needed:
                        raise ConfigError(
                            f"decoder_{name}[{stage}] = {found} does not go with decoder_blocks[{stage}] = {blocks[stage]}, "
                            f"which has {needed}; use {needed} there or ResBlock"
                        )

    @property
    def spatial_compression(self) -> int:
        """f: one latent pixel stands for f x f image pixels."""
        return 2 ** (len(self.encoder_widths) - 1)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, without the fields that are as in 1.5."""
        values = {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(self).items()}
        for f in dataclasses.fields(self):
            if f.default is not dataclasses.MISSING:
                usual = list(f.default) * len(self.encoder_widths) if isinstance(f.default, tuple) else f.default
                if values[f.name] == usual:
                    del values[f.name]
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> AutoencoderSpec:
        """Undo ``to_dict``; raises ConfigError on missing or unknown fields."""
        return cls(**_known_fields(cls, values))


@dataclass(frozen=True)
class DiTSpec:
    """The shape of a DiT.

    Raises:
        ConfigError: A field is out of range or contradicts another; the message names it.
    """

    latent_channels: int  # C, channels of the latents
    latent_size: int  # Side of the square latents, in latent pixels
    num_classes: int  # Classes; label ``num_classes`` is the null class of classifier-free guidance
    depth: int  # Transformer blocks
    width: int  # Channels of a token; divisible by 4 and by ``heads``
    heads: int  # Attention heads
    patch_size: int = 1  # Side of a patch, in latent pixels; DC-AE latents are meant for 1
    mlp_ratio: float = 4.0  # Width of the MLP over ``width``

    def __post_init__(self) -> None:
        for name in ("latent_channels", "latent_size", "num_classes", "depth", "width", "heads", "patch_size"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ConfigError(f"{name} = {value!r} must be a whole number of at least 1")
        if self.width % 4:
            raise ConfigError(
                f"width = {self.width} must be divisible by 4, for sine and cosine of two coordinates; use "
                f"{self.width // 4 * 4 or 4} or {self.width // 4 * 4 + 4}"
            )
        if self.width % self.heads:
            raise ConfigError(
                f"width = {self.width} must be divisible by heads = {self.heads}: each has the same share of the channels; "
                "change one of them"
            )
        if self.latent_size % self.patch_size:
            raise ConfigError(f"latent_size = {self.latent_size} must be divisible by patch_size = {self.patch_size}")
        if not self.mlp_ratio > 0 or int(self.width * self.mlp_ratio) < 1:
            raise ConfigError(f"mlp_ratio = {self.mlp_ratio!r} must be positive")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DiTSpec:
        """Undo ``to_dict``; raises ConfigError on missing or unknown fields."""
        return cls(**_known_fields(cls, values))


def _known_fields(cls: type, values: dict[str, Any]) -> dict[str, Any]:
    """Return ``values`` when they are fields of the dataclass ``cls`` and none without default is missing.

    Raises:
        ConfigError: A field is missing or unknown; the message names it.
    """
    fields = dataclasses.fields(cls)
    names = {f.name for f in fields}
    if missing := sorted({f.name for f in fields if f.default is dataclasses.MISSING} - set(values)):
        raise ConfigError(f"{cls.__name__} misses {', '.join(missing)}")
    if unknown := sorted(set(values) - names):
        raise ConfigError(
            f"{cls.__name__} has no field {', '.join(unknown)}; its fields are {', '.join(sorted(names))}"
        )
    return values


def _check_name(field: str, value: Any, names: tuple[str, ...]) -> None:
    if value not in names:
        raise ConfigError(f"{field} = {value!r} must be {' or '.join(names)}")


def _check_depths(name: str, depths: tuple[int, ...]) -> None:
    if depths[0] < 0:
        raise ConfigError(f"{name}[0] = {depths[0]} must be 0 (the first layer halves the image) or more")
    if min(depths[1:]) < 1:
        raise ConfigError(f"{name} = {list(depths)} needs at least 1 block in every stage after the first")


def _check_widths(name: str, widths: tuple[int, ...], first: int, unshuffles: bool) -> None:
    """Check the widths that are used: those from stage ``first`` on."""
    if min(widths) < 1:
        raise ConfigError(f"{name} = {list(widths)} must hold positive numbers")
    for stage, width in enumerate(widths[1:], start=1):
        if unshuffles and width % 4:
            raise ConfigError(
                f"{name}[{stage}] = {width} must be divisible by 4, because the layer before it makes 1 pixel of 2x2"
            )
    for stage, (width, deeper) in enumerate(itertools.pairwise(widths[first:]), start=first):
        if (4 * width) % deeper:
            raise ConfigError(
                f"{name}[{stage + 1}] = {deeper} must divide 4 * {name}[{stage}] = {4 * width}, because the shortcut "
                "between the stages averages or repeats whole groups of channels"
            )
