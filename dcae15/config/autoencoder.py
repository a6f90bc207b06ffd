"""The schema of training: channel prefixes, losses, phases, and the autoencoder that they make.

Images are counted, not steps: every length of training, warm-up or interval is a number of images seen by all workers together.
"""

from __future__ import annotations

from dataclasses import dataclass

from dcae15.config.fields import option, section, sections


@dataclass
class PrefixConfig:
    """The channel prefix: how many front channels are kept in a training step."""

    kind: str = option(
        "prefix",
        "'prefix': the first c channels (the method); 'random': c channels anywhere (a control); 'weighted', for diffusion only: "
        "all channels, the loss weighted towards the front as the prefixes would do it (a control); 'none': all channels (the "
        "baseline)",
        choices=("prefix", "random", "weighted", "none"),
    )
    first: int = option(4, "smallest prefix", unit="channels", least=1)
    step: int = option(
        4,
        "distance between prefixes; the choices are first, first + step, ... and always all channels",
        unit="channels",
        least=1,
    )
    choices: list[int] = option(
        [],
        "explicit list of prefixes, ascending, ending with all channels; replaces first and step",
        unit="channels",
        least=1,
    )
    per: str = option(
        "sample", "draw one prefix per 'step' (as the official code) or per 'sample'", choices=("step", "sample")
    )
    draws: int = option(1, "prefixes drawn per step: one encoding, several decodings; the losses are averaged", least=1)
    always_full: bool = option(False, "all channels are always among the draws")
    always_min_max: bool = option(False, "the smallest prefix and all channels are always among the draws")
    choice_weights: list[float] = option(
        [],
        "relative frequency of each prefix among the random draws, in the order of the choices; empty means equal",
        least=0,
    )
    draw_weights: list[float] = option(
        [], "weight of each draw's loss in the average of a step, one for each of draws; empty means equal", least=0
    )


@dataclass
class TrainingConfig:
    """One training run."""

    images: int = option(64_000, "length of training", unit="images", least=1)
    batch_size: int = option(64, "images per optimizer step, over all workers together", unit="images", least=1)
    learning_rate: float = option(1e-3, "peak learning rate of AdamW", above=0)
    beta1: float = option(0.9, "AdamW's first moment decay", least=0, below=1)
    beta2: float = option(0.999, "AdamW's second moment decay", least=0, below=1)
    weight_decay: float = option(0.0, "AdamW's weight decay; biases and normalisation weights are exempt", least=0)
    warmup_images: int = option(3_200, "linear warm-up of the learning rate", unit="images", least=0)
    schedule: str = option(
        "cosine", "after warm-up: 'constant', or 'cosine' down to zero at the end", choices=("constant", "cosine")
    )
    clip_norm: float = option(1.0, "gradients are scaled down to this norm; 0 means never", least=0)
    ema_decay: float = option(
        0.999,
        "decay of the weights' exponential moving average per optimizer step; ramps up at the start; 0 means none",
        least=0,
        below=1,
    )
    accumulation: int = option(
        1,
        "parts that a worker computes its share of a batch in, one after the other: less memory, the same step "
        "(an adaptive adversarial weight and batch statistics are of each part)",
        least=1,
        affects_result=False,
    )
    bf16: bool = option(False, "compute in bfloat16 under autocast; weights and optimizer stay float32")
    channels_last: bool = option(
        False, "memory format of convolutions; same numbers, faster on GPUs", affects_result=False
    )
    compile: bool = option(
        False, "compile the model; same numbers within tolerance, slow first step", affects_result=False
    )
    activation_checkpointing: bool = option(
        False,
        "compute activations again for the backward pass instead of keeping them: less memory, the same numbers",
        affects_result=False,
    )
    parallel: str = option(
        "ddp",
        "several workers: 'ddp' keeps the network and its optimizer whole on each, 'fsdp' shards them over all (FSDP2)",
        choices=("ddp", "fsdp"),
        affects_result=False,
    )
    log_images: int = option(
        3_200,
        "interval of progress lines and tracked metrics; also how often a worker asks whether its node is about to go",
        unit="images",
        affects_result=False,
        least=1,
    )
    checkpoint_images: int = option(16_000, "interval of checkpoints", unit="images", affects_result=False, least=1)
    keep_checkpoints: int = option(2, "checkpoints kept; older ones are deleted", affects_result=False, least=1)


@dataclass
class PerceptualConfig:
    """LPIPS over VGG-16; its weights are not ours to ship."""

    weight: float = option(0.0, "weight of LPIPS in the loss; 0 means none", least=0)
    vgg: str = option("", "path or URI of VGG-16's weights in torchvision's layout (vgg16-397923af.pth)")
    vgg_sha256: str = option(
        "", "SHA-256 of that file; given, it is checked, and the file may move without a new training"
    )
    heads: str = option("", "path or URI of LPIPS' linear heads for VGG (lpips/weights/v0.1/vgg.pth of its repository)")
    heads_sha256: str = option("", "SHA-256 of that file")


@dataclass
class AdversarialConfig:
    """A PatchGAN discriminator with hinge loss, which begins anew in every phase."""

    weight: float = option(
        0.0, "weight of the discriminator's judgement in the loss; 0 means no discriminator", least=0
    )
    adaptive: bool = option(
        True,
        "multiply the weight with the ratio of both losses' gradients at the decoder's last layer (VQGAN, arXiv 2012.09841)",
    )
    start_images: int = option(
        0,
        "the autoencoder sees the judgement after so many images of the phase; the discriminator learns from its start",
        unit="images",
        least=0,
    )
    width: int = option(64, "channels of the discriminator's first layer", unit="channels", least=1)
    layers: int = option(3, "its layers that halve the image; 3 judge patches of 70 pixels", least=1)
    norm: str = option(
        "group",
        "its normalisation: 'group' (the same for any number of workers), 'batch' (as PatchGAN, statistics per worker) or 'none'",
        choices=("group", "batch", "none"),
    )
    learning_rate: float = option(0.0, "its peak learning rate; 0 means the phase's", least=0)
    beta1: float = option(0.5, "its first moment decay", least=0, below=1)
    beta2: float = option(0.9, "its second moment decay", least=0, below=1)


@dataclass
class LossesConfig:
    """What the autoencoder minimises: a weighted sum."""

    l1: float = option(1.0, "weight of the mean absolute error of pixels in [-1, 1]", least=0)
    perceptual: PerceptualConfig = section(PerceptualConfig, "LPIPS")
    adversarial: AdversarialConfig = section(AdversarialConfig, "PatchGAN")


@dataclass
class PhaseConfig:
    """A phase of the autoencoder's training. It begins with the averaged weights of the phase before and a new optimizer."""

    name: str = option("training", "name in progress lines and reports", affects_result=False)
    resolution: int = option(0, "side of the training images; 0 means data.resolution", unit="pixels", least=0)
    parts: list[str] = option(
        ["all"],
        "what trains, the rest is frozen: all, encoder, decoder, encoder_head (its last layer), decoder_input (its first), "
        "decoder_head (its last norm and layer), decoder_last_stage, or beginnings of parameter names (decoder.up_blocks.1)",
    )
    losses: LossesConfig = section(LossesConfig, "what it minimises")
    prefix: PrefixConfig = section(PrefixConfig, "structured latent space")
    training: TrainingConfig = section(TrainingConfig, "length, optimizer, switches")


@dataclass
class AutoencoderConfig:
    """The autoencoder: graph, structured latent space, training."""

    preset: str = option(
        "custom",
        "name of a published model (dc-ae-f32c128-1.5, dc-ae-f64c128-1.5, dc-ae-f32c32-in-1.0, ...), or 'custom' for the "
        "fields below, which default to the graph of 1.5, small",
    )
    latent_channels: int = option(32, "C, channels of the latent", unit="channels", least=1)
    encoder_widths: list[int] = option(
        [16, 16, 32, 64], "channels of each encoder stage; n stages compress by 2**(n-1)", least=1
    )
    encoder_depths: list[int] = option(
        [0, 1, 1, 2],
        "blocks of each encoder stage; 0 first: the first layer halves the image (all published models but Sana's)",
        least=0,
    )
    decoder_widths: list[int] = option(
        [16, 16, 32, 64], "channels of each decoder stage, from image to latent", least=1
    )
    decoder_depths: list[int] = option([0, 1, 1, 2], "blocks of each decoder stage, from image to latent", least=0)
    encoder_blocks: list[str] = option(
        ["ResBlock"],
        "block of each encoder stage, or one for all: ResBlock (1.1, 1.5), EViTGLU (linear attention; the deep stages of 1.0), "
        "EViTS5GLU (at two scales; Sana)",
    )
    decoder_blocks: list[str] = option(["ResBlock"], "the same for the decoder, from image to latent")
    decoder_norms: list[str] = option(
        ["rms_norm"],
        "norm in the ResBlocks of each decoder stage, or one for all: rms_norm, batch_norm (1.0; statistics per worker)",
    )
    decoder_acts: list[str] = option(
        ["silu"], "activation in the ResBlocks of each decoder stage, or one for all: silu, relu (1.0)"
    )
    latent_shortcuts: bool = option(
        False, "shortcuts around the encoder's last and the decoder's first layer (1.0, Sana)"
    )
    out_act: str = option("silu", "activation before the decoder's last layer; 1.0 has relu", choices=("silu", "relu"))
    downsample: str = option(
        "pixel_unshuffle",
        "how the encoder halves: 'pixel_unshuffle', or 'conv' (strided; Sana)",
        choices=("pixel_unshuffle", "conv"),
    )
    upsample: str = option(
        "pixel_shuffle",
        "how the decoder doubles: 'pixel_shuffle', or 'interpolate' (nearest neighbours; Sana)",
        choices=("pixel_shuffle", "interpolate"),
    )
    flip: bool = option(True, "mirror half of the training images")
    initial: str = option(
        "",
        "autoencoder whose weights the training begins with: URI of an artifact of ours, of a diffusers or official folder, or of "
        "a weights file; it must have the same graph. Empty means new weights",
    )
    prefix: PrefixConfig = section(PrefixConfig, "structured latent space", always_min_max=True)
    losses: LossesConfig = section(LossesConfig, "what it minimises")
    training: TrainingConfig = section(TrainingConfig, "training of the autoencoder", learning_rate=3e-3)
    phases: list[PhaseConfig] = sections(
        "phases of the training, one after the other; each takes over losses, prefix and training from above and changes what it "
        "says (in YAML, or as autoencoder.phases[0].training.images=1000); empty means a single phase as above"
    )
