"""A small autoencoder and a small denoiser to train in tests, and what they train on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from dcae15 import artifacts
from dcae15.config import Config, PhaseConfig
from dcae15.data import shards
from dcae15.runtime import LocalRuntime
from dcae15.tracking import Tracker
from dcae15.training.autoencoder import train_autoencoder
from dcae15.training.diffusion import train_diffusion

VGG_WIDTHS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512)  # 0 halves the image
VGG_TAPS = (64, 128, 256, 512, 512)


def small_config(**training) -> Config:
    config = Config(storage="unused")
    config.data.resolution = 16
    autoencoder = config.autoencoder
    autoencoder.latent_channels = 8
    autoencoder.encoder_widths = autoencoder.decoder_widths = [8, 8, 16]
    autoencoder.encoder_depths = autoencoder.decoder_depths = [0, 1, 1]
    config.diffusion.denoiser.depth, config.diffusion.denoiser.width, config.diffusion.denoiser.heads = 2, 32, 2
    settings = {
        "images": 160,
        "batch_size": 16,
        "warmup_images": 32,
        "log_images": 32,
        "checkpoint_images": 48,
        **training,
    }
    autoencoder.training = autoencoder.training.changed(**settings)
    config.diffusion.training = config.diffusion.training.changed(**settings)
    return config


def three_phases(lpips: tuple[str, str] | None = None, **training) -> Config:
    """The recipe of DC-AE at toy size, for images of 32 pixels: everything; the middle; the head with a discriminator.

    The last phase has LPIPS too where its files are given; it has no state, and takes longer than everything else.
    Rows of the history after 16, 32 | 48 | 64 and 80 images.
    """
    config = small_config()
    config.data.resolution = 32

    def phase(name: str, resolution: int, parts: list[str], **settings: Any) -> PhaseConfig:
        base = config.autoencoder.training.changed(images=32, batch_size=8, learning_rate=1e-3)
        base = base.changed(warmup_images=8, log_images=16, checkpoint_images=24)
        phase = PhaseConfig(
            name=name, resolution=resolution, parts=parts, training=base.changed(**{**settings, **training})
        )
        phase.prefix.first, phase.prefix.step = 2, 2
        phase.prefix.draws, phase.prefix.always_min_max = 2, True
        return phase

    phases = [
        phase("low resolution", 16, ["all"]),
        phase("high resolution", 32, ["encoder_head", "decoder_input"], images=16, batch_size=4, weight_decay=1e-3),
        phase("refinement", 16, ["decoder_head"], beta1=0.5, beta2=0.9),
    ]
    perceptual, adversarial = phases[2].losses.perceptual, phases[2].losses.adversarial
    if lpips:
        perceptual.weight, (perceptual.vgg, perceptual.heads) = 0.5, lpips
    adversarial.weight, adversarial.width, adversarial.layers, adversarial.start_images = 0.5, 8, 1, 16
    config.autoencoder.phases = phases
    return config


def write_images(root: str, side: int) -> str:
    generator = np.random.default_rng(0)
    records = []
    for shard in range(3):
        tiles = [generator.integers(0, 255, (side // 8, side // 8, 3), np.uint8) for _ in range(20)]
        images = [np.kron(tile, np.ones((8, 8, 1), np.uint8)).tobytes() for tile in tiles]
        table = shards.image_table([f"{shard}/{i}" for i in range(20)], [i % 4 for i in range(20)], images, {})
        records.append(shards.write_shard(root, f"train/{shard}.parquet", table))
    splits = {"train": artifacts.Split(tuple(r.shard for r in records)), "val": artifacts.Split(())}
    names = ("a", "b", "c", "d")
    artifacts.ImageSet(root, "images", names, side, "raw", "center", splits, {}, "test").commit()
    return root


def write_latents(root: str) -> str:
    values = torch.randn(60, 8, 4, 4, generator=torch.Generator().manual_seed(1))
    digests = [bytes(16)] * 60
    table = shards.latent_table(
        [str(i) for i in range(60)], [i % 4 for i in range(60)], values, [False] * 60, digests, "float32", {}
    )
    record = shards.write_shard(root, "train/0.parquet", table)
    artifacts.LatentSet(
        root,
        "latents",
        spec=artifacts.LatentSpec(8, 4, 4, 4, (4, 8), "ae"),
        dtype="float32",
        statistics=artifacts.Statistics(960, (0.0,) * 8, (1.0,) * 8),
        splits={"train": artifacts.Split((record.shard,)), "val": artifacts.Split(())},
        class_names=("a", "b", "c", "d"),
        mirror=False,
        images="images",
        autoencoder_uri="nowhere",
    ).commit()
    return root


def write_lpips(folder: Path) -> tuple[str, str]:
    """Random weights in the layouts of torchvision's VGG-16 and of LPIPS' heads; return their paths."""
    generator = torch.Generator().manual_seed(2)
    features, layer, channels = {}, 0, 3
    for width in VGG_WIDTHS:
        if width:
            scale = (2 / (9 * channels)) ** 0.5
            features[f"features.{layer}.weight"] = scale * torch.randn(width, channels, 3, 3, generator=generator)
            features[f"features.{layer}.bias"] = 0.01 * torch.randn(width, generator=generator)
            channels = width
        layer += 2 if width else 1  # a convolution and its ReLU, or a pooling
    heads = {f"lin{i}.model.1.weight": torch.rand(1, n, 1, 1, generator=generator) for i, n in enumerate(VGG_TAPS)}
    paths = folder / "vgg.safetensors", folder / "heads.safetensors"
    safetensors.torch.save_file(features, paths[0])
    safetensors.torch.save_file(heads, paths[1])
    return str(paths[0]), str(paths[1])


class StopError(Exception):
    """Stands for a kill."""


class StoppingTracker(Tracker):
    """Stops the run at its n-th row of metrics."""

    def __init__(self, after: int) -> None:
        self.left = after

    def metrics(self, values, step):
        self.left -= 1
        if self.left == 0:
            raise StopError


def train(stage: str, config: Config, source: str, out: str | Path, **extra: Any) -> None:
    """Train one of the stages in this process, from the images or latents at ``source``."""
    arguments = {
        "uri": str(out),
        "fingerprint": "x",
        "runtime": LocalRuntime(device=torch.device("cpu")),
        "tracker": Tracker(),
        **extra,
    }
    if stage == "autoencoder":
        train_autoencoder(config, images=source, **arguments)
    else:
        train_diffusion(config, latents=source, **arguments)


def weights(out: str | Path) -> bytes:
    return b"".join(Path(out, name).read_bytes() for name in ("weights.safetensors", "weights_raw.safetensors"))


def run(stage: str, config: Config, source: str, out: str | Path, tracker: Any = None, **extra: Any) -> bytes:
    """Train to the end; return the bytes of the averaged and the last weights."""
    train(stage, config, source, out, tracker=tracker or Tracker(), **extra)
    return weights(out)
