"""The schema of training: optimizer, losses, phases, and the autoencoder that they make.

Images are counted, not steps: every length of training, warm-up or interval is a number of images seen by all workers together.
"""

from __future__ import annotations

import functools
import math
from typing import Any, Literal

from dcae15.channels import Prefix
from dcae15.fields import Count, Index, Section, neutral, option, section, when
from dcae15.models.spec import ACTS, BLOCKS, NORMS

PARTS = ("all", "encoder", "decoder", "encoder_head", "decoder_input", "decoder_head", "decoder_last_stage")


class TrainingConfig(Section):
    """One training run."""

    images: int = option(64_000, "length of training", unit="images", ge=1)
    batch_size: int = option(64, "images per optimizer step, over all workers together", unit="images", ge=1)
    learning_rate: float = option(1e-3, "peak learning rate of AdamW", gt=0)
    beta1: float = option(0.9, "AdamW's first moment decay", ge=0, lt=1)
    beta2: float = option(0.999, "AdamW's second moment decay", ge=0, lt=1)
    weight_decay: float = option(0.0, "AdamW's weight decay; biases and normalisation weights are exempt", ge=0)
    warmup_images: int = option(3_200, "linear warm-up of the learning rate", unit="images", ge=0)
    schedule: Literal["constant", "cosine"] = option(
        "cosine", "after warm-up: 'constant', or 'cosine' down to zero at the end"
    )
    clip_norm: float = option(1.0, "gradients are scaled down to this norm; 0 means never", ge=0)
    ema_decay: float = option(
        0.999,
        "decay of the weights' exponential moving average per optimizer step; ramps up at the start; 0 means none",
        ge=0,
        lt=1,
    )
    accumulation: int = neutral(
        1,
        "parts that a worker computes its share of a batch in, one after the other: less memory, the same step "
        "(an adaptive adversarial weight and batch statistics are of each part)",
        ge=1,
    )
    bf16: bool = option(False, "compute in bfloat16 under autocast; weights and optimizer stay float32")
    channels_last: bool = neutral(False, "memory format of convolutions; same numbers, faster on GPUs")
    compile: bool = neutral(False, "compile the model; same numbers within tolerance, slow first step")
    activation_checkpointing: bool = neutral(
        False, "compute activations again for the backward pass instead of keeping them: less memory, the same numbers"
    )
    parallel: Literal["ddp", "fsdp"] = neutral(
        "ddp",
        "several workers: 'ddp' keeps the network and its optimizer whole on each, 'fsdp' shards them over all (FSDP2)",
    )
    log_images: int = neutral(
        3_200,
        "interval of progress lines and tracked metrics; also how often a worker asks whether its node is about to go",
        unit="images",
        ge=1,
    )
    checkpoint_images: int = neutral(16_000, "interval of checkpoints", unit="images", ge=1)
    keep_checkpoints: int = neutral(2, "checkpoints kept; older ones are deleted", ge=1)

    @property
    def whole_batches(self) -> int:
        """The images that a training sees: its length, rounded up to whole batches."""
        return math.ceil(self.images / self.batch_size) * self.batch_size


def _lpips(own: Any, root: Any, path: str) -> str:
    """The files of LPIPS count where it has a weight; the shared ones also where both are given, because evaluate uses them."""
    if own.weight or (path == "autoencoder.losses.perceptual" and own.vgg and own.heads):
        return ""
    return f"{path}.weight is 0"


class PerceptualConfig(Section):
    """LPIPS over VGG-16; its weights are not ours to ship."""

    weight: float = option(0.0, "weight of LPIPS in the loss; 0 means none", ge=0)
    vgg: str = option(
        "",
        "path or URI of VGG-16's weights in torchvision's layout (vgg16-397923af.pth)",
        active_if=_lpips,
        affects_result=lambda own: not own.vgg_sha256,
    )
    vgg_sha256: str = option(
        "", "SHA-256 of that file; given, it is checked, and the file may move without a new training", active_if=_lpips
    )
    heads: str = option(
        "",
        "path or URI of LPIPS' linear heads for VGG (lpips/weights/v0.1/vgg.pth of its repository)",
        active_if=_lpips,
        affects_result=lambda own: not own.heads_sha256,
    )
    heads_sha256: str = option("", "SHA-256 of that file", active_if=_lpips)


_judge = functools.partial(option, active_if=when("weight", is_not=0))


class AdversarialConfig(Section):
    """A PatchGAN discriminator with hinge loss, which begins anew in every phase."""

    weight: float = option(0.0, "weight of the discriminator's judgement in the loss; 0 means no discriminator", ge=0)
    adaptive: bool = _judge(
        True,
        "multiply the weight with the ratio of both losses' gradients at the decoder's last layer (VQGAN, arXiv 2012.09841)",
    )
    start_images: int = _judge(
        0,
        "the autoencoder sees the judgement after so many images of the phase; the discriminator learns from its start",
        unit="images",
        ge=0,
    )
    width: int = _judge(64, "channels of the discriminator's first layer", unit="channels", ge=1)
    layers: int = _judge(3, "its layers that halve the image; 3 judge patches of 70 pixels", ge=1)
    norm: Literal["group", "batch", "none"] = _judge(
        "group",
        "its normalisation: 'group' (the same for any number of workers), 'batch' (as PatchGAN, statistics per worker) or 'none'",
    )
    learning_rate: float = _judge(0.0, "its peak learning rate; 0 means the phase's", ge=0)
    beta1: float = _judge(0.5, "its first moment decay", ge=0, lt=1)
    beta2: float = _judge(0.9, "its second moment decay", ge=0, lt=1)


class LossesConfig(Section):
    """What the autoencoder minimises: a weighted sum."""

    l1: float = option(1.0, "weight of the mean absolute error of pixels in [-1, 1]", ge=0)
    perceptual: PerceptualConfig = section(PerceptualConfig, "LPIPS")
    adversarial: AdversarialConfig = section(AdversarialConfig, "PatchGAN")


class PhaseConfig(Section):
    """A phase of the autoencoder's training. It begins with the averaged weights of the phase before and a new optimizer."""

    name: str = neutral("training", "name in progress lines and reports")
    resolution: int = option(0, "side of the training images; 0 means data.resolution", unit="pixels", ge=0)
    parts: list[str] = option(
        ["all"],
        "what trains, the rest is frozen: all, encoder, decoder, encoder_head (its last layer), decoder_input (its first), "
        "decoder_head (its last norm and layer), decoder_last_stage, or beginnings of parameter names (decoder.up_blocks.1)",
    )
    losses: LossesConfig = section(LossesConfig, "what it minimises")
    prefix: Prefix = section(Prefix, "structured latent space")
    training: TrainingConfig = section(TrainingConfig, "length, optimizer, switches")


SHARED = ("losses", "prefix", "training")
"""Sections that the phases of the autoencoder take over from it, and change."""
_graph = functools.partial(option, active_if=when("preset", "custom"))


class AutoencoderConfig(Section):
    """The autoencoder: graph, structured latent space, training."""

    preset: str = option(
        "custom",
        "name of a published model (dc-ae-f32c128-1.5, dc-ae-f64c128-1.5, dc-ae-f32c32-in-1.0, ...), or 'custom' for the "
        "fields below, which default to the graph of 1.5, small",
    )
    latent_channels: int = _graph(32, "C, channels of the latent", unit="channels", ge=1)
    encoder_widths: list[Count] = _graph(
        [16, 16, 32, 64], "channels of each encoder stage; n stages compress by 2**(n-1)"
    )
    encoder_depths: list[Index] = _graph(
        [0, 1, 1, 2],
        "blocks of each encoder stage; 0 first: the first layer halves the image (all published models but Sana's)",
    )
    decoder_widths: list[Count] = _graph([16, 16, 32, 64], "channels of each decoder stage, from image to latent")
    decoder_depths: list[Index] = _graph([0, 1, 1, 2], "blocks of each decoder stage, from image to latent")
    encoder_blocks: list[Literal[BLOCKS]] = _graph(  # pyright: ignore[reportInvalidTypeForm]
        ["ResBlock"],
        "block of each encoder stage, or one for all: ResBlock (1.1, 1.5), EViTGLU (linear attention; the deep stages of 1.0), "
        "EViTS5GLU (at two scales; Sana)",
    )
    decoder_blocks: list[Literal[BLOCKS]] = _graph(  # pyright: ignore[reportInvalidTypeForm]
        ["ResBlock"], "the same for the decoder, from image to latent"
    )
    decoder_norms: list[Literal[NORMS]] = _graph(  # pyright: ignore[reportInvalidTypeForm]
        ["rms_norm"],
        "norm in the ResBlocks of each decoder stage, or one for all: rms_norm, batch_norm (1.0; statistics per worker)",
    )
    decoder_acts: list[Literal[ACTS]] = _graph(  # pyright: ignore[reportInvalidTypeForm]
        ["silu"], "activation in the ResBlocks of each decoder stage, or one for all: silu, relu (1.0)"
    )
    latent_shortcuts: bool = _graph(
        False, "shortcuts around the encoder's last and the decoder's first layer (1.0, Sana)"
    )
    out_act: Literal["silu", "relu"] = _graph("silu", "activation before the decoder's last layer; 1.0 has relu")
    downsample: Literal["pixel_unshuffle", "conv"] = _graph(
        "pixel_unshuffle", "how the encoder halves: 'pixel_unshuffle', or 'conv' (strided; Sana)"
    )
    upsample: Literal["pixel_shuffle", "interpolate"] = _graph(
        "pixel_shuffle", "how the decoder doubles: 'pixel_shuffle', or 'interpolate' (nearest neighbours; Sana)"
    )
    flip: bool = option(True, "mirror half of the training images")
    initial: str = option(
        "",
        "autoencoder whose weights the training begins with: URI of an artifact of ours, of a diffusers or official folder, or of "
        "a weights file; it must have the same graph. Empty means new weights",
    )
    prefix: Prefix = section(Prefix, "structured latent space", always_min_max=True)
    losses: LossesConfig = section(LossesConfig, "what it minimises")
    training: TrainingConfig = section(TrainingConfig, "training of the autoencoder", learning_rate=3e-3)
    phases: list[PhaseConfig] = option(
        [],
        "phases of the training, one after the other; each takes over losses, prefix and training from above and changes what it "
        "says (in YAML, or as autoencoder.phases[0].training.images=1000); empty means a single phase as above",
    )

    @property
    def all_phases(self) -> list[PhaseConfig]:
        """The phases of the training: those that are given, else the only one."""
        return self.phases or [PhaseConfig(**{name: getattr(self, name) for name in SHARED})]

    def phase_path(self, index: int) -> str:
        """Return the path of a phase's fields, as a user gives them."""
        return f"autoencoder.phases[{index}]" if self.phases else "autoencoder"

    @property
    def mask_kind(self) -> str:
        """``prefix``, ``random`` or ``none``: the first kind of mask that a phase trains with, if any does."""
        return next((phase.prefix.kind for phase in self.all_phases if phase.prefix.masks), "none")

    def trained_prefixes(self, channels: int) -> list[int]:
        """Return the prefixes that any phase asks to decode, of a latent of so many channels: ascending, ending with all."""
        seen = (phase.prefix.prefixes(channels) for phase in self.all_phases if phase.prefix.kind == "prefix")
        return sorted({channels}.union(*seen))
