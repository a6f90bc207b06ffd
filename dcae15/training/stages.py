"""The two training stages from artifact to artifact, on whatever runtime: data, network, loop, result."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from safetensors.torch import save as to_safetensors

from dcae15 import artifacts, storage
from dcae15.channels import PrefixChoices
from dcae15.config import Config, PrefixConfig, TrainingConfig, prefix_choices
from dcae15.data.loader import image_batches, latent_batches
from dcae15.data.statistics import normalisation
from dcae15.errors import ConfigError
from dcae15.models.autoencoder import Autoencoder
from dcae15.models.dit import DiT, DiTSpec
from dcae15.models.presets import autoencoder_spec
from dcae15.runtime import Runtime
from dcae15.tracking import Tracker
from dcae15.training.checkpoint import Checkpoints
from dcae15.training.loop import Row, Trained, TrainState, train
from dcae15.training.objectives import AutoencoderObjective, DiffusionObjective
from dcae15.training.randomness import generator

CHECKPOINTS = "checkpoints"


def choices_of(prefix: PrefixConfig, channels: int) -> PrefixChoices:
    """Return the prefix choices that a configuration asks for."""
    return PrefixChoices(
        tuple(prefix_choices(prefix, channels)),
        kind=prefix.kind,
        per=prefix.per,
        draws=prefix.draws,
        always_full=prefix.always_full,
        always_min_max=prefix.always_min_max,
        choice_weights=tuple(prefix.choice_weights),
        draw_weights=tuple(prefix.draw_weights),
    )


def train_autoencoder(
    config: Config, *, images: str, uri: str, fingerprint: str, runtime: Runtime, tracker: Tracker, masked: bool = True
) -> None:
    """Train the autoencoder on the image set at ``images`` and write the artifact to ``uri``.

    With ``masked=False`` it is the baseline: the same graph, data and length without masks.
    """
    image_set = artifacts.ImageSet.open(images)
    settings = config.autoencoder
    spec = autoencoder_spec(settings)
    if image_set.resolution % spec.spatial_compression:
        raise ConfigError(
            f"images of {image_set.resolution} pixels do not fit an autoencoder that compresses {spec.spatial_compression}-fold; "
            "change data.resolution to a multiple, or the number of stages in autoencoder.encoder_widths"
        )
    choices = choices_of(settings.prefix, spec.latent_channels)
    if not masked:
        choices = PrefixChoices(choices.choices, kind="none")
    with torch.random.fork_rng(devices=[]):  # torch's layers draw weights of their own first
        network = Autoencoder(spec, generator(config.seed, "initial weights of the autoencoder", 0))

    def batches(start: int) -> Any:
        stream = image_batches(
            image_set,
            seed=config.seed,
            batch_size=settings.training.batch_size,
            start=start,
            rank=runtime.rank,
            world=runtime.world,
            min_area=config.data.random_crop_min_area,
            flip=settings.flip,
        )
        return iter(stream)

    trained = _run(AutoencoderObjective(network, choices), batches, config, settings.training, uri, runtime, tracker)
    _finish(
        artifacts.Autoencoder(
            uri,
            fingerprint,
            spec=spec.to_dict(),
            resolution=image_set.resolution,
            prefix_choices=choices.trained,
            mask_kind=choices.kind,
            images_seen=trained.state.images_seen,
            images=image_set.fingerprint,
        ),
        trained,
        runtime,
    )


def train_diffusion(
    config: Config, *, latents: str, uri: str, fingerprint: str, runtime: Runtime, tracker: Tracker
) -> None:
    """Train the denoiser on the latent set at ``latents`` and write the artifact to ``uri``."""
    latent_set = artifacts.LatentSet.open(latents)
    settings, latent = config.diffusion, latent_set.spec
    choices = choices_of(settings.prefix, latent.channels)
    unseen = sorted(set(choices.trained) - set(latent.prefix_choices))
    if unseen and len(latent.prefix_choices) > 1:
        raise ConfigError(
            f"diffusion.prefix asks for prefixes of {unseen} channels that the autoencoder never saw; it was trained with "
            f"{list(latent.prefix_choices)}: choose diffusion.prefix.choices among these"
        )
    if latent.height != latent.width:
        raise ConfigError(f"latents of {latent.height} x {latent.width} are not square; the denoiser needs square ones")
    spec = DiTSpec(
        latent_channels=latent.channels,
        latent_size=latent.height,
        num_classes=len(latent_set.class_names),
        depth=settings.denoiser.depth,
        width=settings.denoiser.width,
        heads=settings.denoiser.heads,
        patch_size=settings.denoiser.patch_size,
        mlp_ratio=settings.denoiser.mlp_ratio,
    )
    shift, scale = normalisation(latent_set.statistics, settings.scaling, settings.shift)
    with torch.random.fork_rng(devices=[]):
        network = DiT(spec, generator(config.seed, "initial weights of the denoiser", 0), settings.denoiser.label_std)

    def batches(start: int) -> Any:
        stream = latent_batches(
            latent_set,
            seed=config.seed,
            batch_size=settings.training.batch_size,
            start=start,
            rank=runtime.rank,
            world=runtime.world,
        )
        return iter(stream)

    objective = DiffusionObjective(network, choices, settings, shift, scale, null_label=spec.num_classes)
    trained = _run(objective, batches, config, settings.training, uri, runtime, tracker)
    _finish(
        artifacts.Denoiser(
            uri,
            fingerprint,
            spec=spec.to_dict(),
            latents=latent,
            shift=shift,
            scale=scale,
            prefix_choices=choices.trained,
            class_names=latent_set.class_names,
            images_seen=trained.state.images_seen,
            latent_set=latent_set.fingerprint,
            autoencoder_uri=latent_set.autoencoder_uri,
        ),
        trained,
        runtime,
    )


def _run(
    objective: torch.nn.Module,
    batches: Callable[[int], Iterator[Any]],
    config: Config,
    training: TrainingConfig,
    uri: str,
    runtime: Runtime,
    tracker: Tracker,
) -> Trained:
    if training.batch_size % runtime.world:
        raise ConfigError(
            f"batch_size {training.batch_size} cannot be shared evenly by {runtime.world} workers; "
            "change training.batch_size or scaling.num_workers"
        )
    progress = _Progress(uri.rstrip("/").rsplit("/", 2)[-2], training, tracker, runtime.say)
    checkpoints = Checkpoints(storage.join(uri, CHECKPOINTS), training.keep_checkpoints)
    return train(
        objective, batches, training, seed=config.seed, runtime=runtime, checkpoints=checkpoints, on_log=progress
    )


def _finish(artifact: artifacts.Autoencoder | artifacts.Denoiser, trained: Trained, runtime: Runtime) -> None:
    """Write weights, history and, last, the manifest; then the checkpoints are not needed any more."""
    if runtime.rank == 0:
        storage.write_bytes(storage.join(artifact.uri, "weights.safetensors"), to_safetensors(trained.average))
        storage.write_bytes(storage.join(artifact.uri, "weights_raw.safetensors"), to_safetensors(trained.weights))
        history = "".join(json.dumps(row) + "\n" for row in trained.state.history)
        storage.write_bytes(storage.join(artifact.uri, "history.jsonl"), history.encode())
        parameters = sum(value.numel() for value in trained.weights.values())
        artifact.commit(workers=runtime.world, parameters=parameters)
        Checkpoints(storage.join(artifact.uri, CHECKPOINTS)).clear()
    runtime.barrier()


def read_history(uri: str) -> list[Row]:
    """Return the history rows of a trained artifact."""
    text = storage.read_bytes(storage.join(uri, "history.jsonl")).decode()
    return [json.loads(line) for line in text.splitlines()]


class _Progress:
    """Shows a line and tracks metrics at every row of the history."""

    def __init__(self, stage: str, training: TrainingConfig, tracker: Tracker, say: Callable[[str], None]) -> None:
        self.stage, self.training, self.tracker, self.say = stage, training, tracker, say
        self.began = time.perf_counter()
        self.shown = False

    def __call__(self, row: Row, state: TrainState) -> None:
        if state.resumed_from and not self.shown:
            self.say(f"{self.stage}: continues at {state.resumed_from:,} images")
        self.shown = True
        done = row["images"] - state.resumed_from
        left = max(0.0, self.training.images - row["images"])
        eta = (time.perf_counter() - self.began) / done * left
        self.say(
            f"{self.stage}: {row['images']:,.0f}/{self.training.images:,} images  loss {row['loss']:.4f}  "
            f"{row['images_per_second']:,.0f} images/s  data wait {row['data_wait']:.1%}  ETA {int(eta) // 60}:{int(eta) % 60:02d}",
        )
        self.tracker.metrics({name: value for name, value in row.items() if name != "images"}, step=int(row["images"]))
