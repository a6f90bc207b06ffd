"""The two training stages from artifact to artifact, on whatever runtime: data, network, loop, result."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Generator

import torch
from safetensors.torch import save as to_safetensors

from dcae15 import artifacts, storage
from dcae15.channels import PrefixChoices
from dcae15.config import (
    AutoencoderConfig,
    Config,
    DiffusionConfig,
    PhaseConfig,
    PrefixConfig,
    fingerprint,
    images_of,
    mask_kind,
    phase_size_problems,
    phases_of,
    prefix_choices,
    trained_prefixes,
    whole_batches,
    without_masks,
)
from dcae15.data.disk_cache import disk_cache
from dcae15.data.loader import Batch, image_batches, latent_batches
from dcae15.data.statistics import normalisation
from dcae15.errors import ConfigError
from dcae15.loading import load_autoencoder
from dcae15.losses.perceptual import LPIPS, load_lpips
from dcae15.models.autoencoder import Autoencoder, AutoencoderSpec
from dcae15.models.discriminator import PatchDiscriminator
from dcae15.models.dit import DiT, DiTSpec
from dcae15.models.presets import autoencoder_spec
from dcae15.runtime import Runtime
from dcae15.tracking import Tracker
from dcae15.training import parts
from dcae15.training.checkpoint import Checkpoints
from dcae15.training.loop import Phase, Trained, TrainState, Weights, train
from dcae15.training.meter import Row
from dcae15.training.objectives import AutoencoderObjective, CriticObjective, DiffusionObjective, Objective
from dcae15.training.progress import Progress
from dcae15.training.randomness import generator

CHECKPOINTS, WEIGHTS = "checkpoints", "weights.safetensors"


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
    config: Config,
    *,
    images: str,
    uri: str,
    fingerprint: str,
    runtime: Runtime,
    tracker: Tracker,
    masks: str = "",
    initial: str = "",
) -> None:
    """Train the autoencoder on the image set at ``images`` and write the artifact to ``uri``.

    It begins with the weights of the artifact at ``initial``, where one is given.
    ``masks`` trains a control: the same graph, data, phases and length with another kind of mask, ``none`` (the baseline) or
    ``random``; empty means as configured.
    """
    image_set = artifacts.ImageSet.open(images)
    settings = without_masks(config.autoencoder, masks) if masks else config.autoencoder
    spec = autoencoder_spec(settings)
    if image_set.resolution % spec.spatial_compression:
        raise ConfigError(
            f"images of {image_set.resolution} pixels do not fit an autoencoder that compresses {spec.spatial_compression}-fold; "
            "change data.resolution to a multiple, or the number of stages in autoencoder.encoder_widths"
        )

    def make_network() -> Autoencoder:
        with torch.random.fork_rng(devices=[]):  # torch's layers draw weights of their own first
            network = Autoencoder(spec, generator(config.seed, "initial weights of the autoencoder", 0))
        if initial:
            given = load_autoencoder(initial)
            if given.spec != spec:
                raise ConfigError(
                    f"autoencoder.initial is {config.autoencoder.initial or initial}, whose graph {given.spec.to_dict()} is not "
                    f"the configured one {spec.to_dict()}; give autoencoder.preset or its other fields the graph of the weights"
                )
            network.load_state_dict(given.state_dict())
        return network

    lpips = _ready(settings, spec, image_set.resolution)
    phases, first = [], 0
    for i, phase in enumerate(phases_of(settings)):
        last = first + images_of(phase)

        def objective(network: Autoencoder, i: int = i, phase: PhaseConfig = phase, first: int = first) -> Objective:
            parts.freeze(network, phase.parts)
            return _autoencoder_objective(network, phase, lpips[i], config.seed, i, first, runtime)

        def batches(start: int, phase: PhaseConfig = phase) -> Generator[Batch, None, None]:
            return iter(
                image_batches(
                    image_set,
                    seed=config.seed,
                    batch_size=phase.training.batch_size,
                    start=start,
                    rank=runtime.rank,
                    world=runtime.world,
                    min_area=config.data.random_crop_min_area,
                    flip=settings.flip,
                    resolution=phase.resolution,
                    pin=runtime.device.type == "cuda",
                    disk=disk_cache(config.scaling, image_set.uri),
                )
            )

        phases.append(Phase(phase.name, phase.training, first, last, objective, batches))
        first = last
    done = _run(make_network, phases, config.seed, uri, runtime, tracker)
    assert done is not None
    trained, warnings = done
    _finish(
        artifacts.Autoencoder(
            uri,
            fingerprint,
            spec=spec.to_dict(),
            resolution=image_set.resolution,
            prefix_choices=tuple(trained_prefixes(settings, spec.latent_channels)),
            mask_kind=mask_kind(settings),
            images_seen=trained.state.images_seen,
            images=image_set.fingerprint,
            warnings=warnings,
        ),
        trained,
        runtime,
    )


def _ready(settings: AutoencoderConfig, spec: AutoencoderSpec, resolution: int) -> list[LPIPS | None]:
    """Return LPIPS for each phase that has it, read once; and find now what would stop a later phase.

    Raises:
        ConfigError: a phase names parts that are not there, or its images are too small for its losses.
        WeightsError: the weights of LPIPS are missing, damaged or of another digest.
    """
    if problems := list(phase_size_problems(settings, resolution)):
        raise ConfigError("\n".join(problems))
    with torch.device("meta"):
        network = Autoencoder(spec)
    read: dict[str, LPIPS] = {}
    found: list[LPIPS | None] = []
    for i, phase in enumerate(phases_of(settings)):
        parts.freeze(network, phase.parts, f"autoencoder.phases[{i}].parts" if settings.phases else "parts")
        perceptual = phase.losses.perceptual
        key = str(dataclasses.replace(perceptual, weight=1.0))
        if perceptual.weight and key not in read:
            path = f"autoencoder.phases[{i}]" if settings.phases else "autoencoder"
            read[key] = load_lpips(perceptual, f"{path}.losses.perceptual")
        found.append(read[key] if perceptual.weight else None)
    return found


def _autoencoder_objective(
    network: Autoencoder, phase: PhaseConfig, lpips: LPIPS | None, seed: int, index: int, first: int, runtime: Runtime
) -> AutoencoderObjective:
    losses, adversarial = phase.losses, phase.losses.adversarial
    critic = None
    if adversarial.weight:
        with torch.random.fork_rng(devices=[]):
            judge = PatchDiscriminator(
                adversarial.width,
                adversarial.layers,
                adversarial.norm,
                generator(seed, f"initial weights of the discriminator of phase {index}", 0),
            )
        critic = CriticObjective(judge, adversarial)
    return AutoencoderObjective(
        network,
        choices_of(phase.prefix, network.spec.latent_channels),
        losses,
        lpips,
        critic,
        heard_from=first + adversarial.start_images,
        average=lambda value: runtime.sum(value) / runtime.world,
        fixed_shapes=phase.training.compile,
    )


def milestones_of(settings: DiffusionConfig) -> list[int]:
    """Return the images seen at which milestones really are: whole batches."""
    batch = settings.training.batch_size
    return sorted({math.ceil(images / batch) * batch for images in settings.milestones})


def snapshot_uri(denoiser: str, images: int) -> str:
    """Return where the denoiser as it was at a milestone is, itself a denoiser artifact: below the finished one's."""
    return storage.join(denoiser, "milestones", f"{images:012d}")


def snapshot_fingerprint(denoiser: str, images: int) -> str:
    """Return what names the denoiser as it was at a milestone: another one than the finished one, which generates other images."""
    return fingerprint("denoiser", {"finished": denoiser, "images_seen": images})


def train_diffusion(
    config: Config, *, latents: str, uri: str, fingerprint: str, runtime: Runtime, tracker: Tracker, until: int = 0
) -> None:
    """Train the denoiser on the latent set at ``latents`` and write the artifact to ``uri``.

    At each of ``diffusion.milestones`` the averaged weights are written as an artifact of their own, see `snapshot_uri`.

    Args:
        config: what to train.
        latents: URI of the latent set.
        uri: where to write.
        fingerprint: what names the result.
        runtime: this process among its peers.
        tracker: where metrics go.
        until: stop at the first milestone of at least so many images, if it is before the end; a later call goes on from there.
    """
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

    def make_network() -> DiT:
        with torch.random.fork_rng(devices=[]):
            return DiT(spec, generator(config.seed, "initial weights of the denoiser", 0), settings.denoiser.label_std)

    def objective(network: DiT) -> Objective:
        return DiffusionObjective(network, choices, settings, shift, scale, null_label=spec.num_classes)

    def batches(start: int) -> Generator[Batch, None, None]:
        return iter(
            latent_batches(
                latent_set,
                seed=config.seed,
                batch_size=settings.training.batch_size,
                start=start,
                rank=runtime.rank,
                world=runtime.world,
                pin=runtime.device.type == "cuda",
                disk=disk_cache(config.scaling, latent_set.uri),
            )
        )

    def artifact(uri: str, name: str, images_seen: int, warnings: tuple[str, ...] = ()) -> artifacts.Denoiser:
        return artifacts.Denoiser(
            uri,
            name,
            spec=spec.to_dict(),
            latents=latent,
            shift=shift,
            scale=scale,
            prefix_choices=choices.trained,
            class_names=latent_set.class_names,
            images_seen=images_seen,
            latent_set=latent_set.fingerprint,
            autoencoder_uri=latent_set.autoencoder_uri,
            warnings=warnings,
        )

    def on_milestone(weights: Weights, state: TrainState) -> None:
        seen = state.images_seen
        snapshot = artifact(snapshot_uri(uri, seen), snapshot_fingerprint(fingerprint, seen), seen)
        if not artifacts.finished(snapshot.uri):
            storage.write_bytes(storage.join(snapshot.uri, WEIGHTS), to_safetensors(weights))
            snapshot.commit()

    training, milestones = settings.training, tuple(milestones_of(settings))
    phase = Phase("training", training, 0, whole_batches(training), objective, batches, milestones)
    done = _run(make_network, [phase], config.seed, uri, runtime, tracker, on_milestone, until)
    if done is not None:
        trained, warnings = done
        _finish(artifact(uri, fingerprint, trained.state.images_seen, warnings), trained, runtime)


def _run(
    make_network: Callable[[], torch.nn.Module],
    phases: list[Phase],
    seed: int,
    uri: str,
    runtime: Runtime,
    tracker: Tracker,
    on_milestone: Callable[[Weights, TrainState], None] = lambda weights, state: None,
    until: int = 0,
) -> tuple[Trained, tuple[str, ...]] | None:
    """Train; return what came out, and what was noticed on the way; None when it stopped before the end."""
    for phase in phases:
        shares = runtime.world * phase.training.accumulation
        if phase.training.batch_size % shares:
            raise ConfigError(
                f"batch_size {phase.training.batch_size} cannot be shared evenly by {runtime.world} workers"
                + (f" in {phase.training.accumulation} parts each" if shares > runtime.world else "")
                + "; change training.batch_size, training.accumulation or scaling.num_workers"
            )
    progress = Progress(uri.rstrip("/").rsplit("/", 2)[-2], phases, tracker, runtime.say)
    keep = max(phase.training.keep_checkpoints for phase in phases)
    checkpoints = Checkpoints(storage.join(uri, CHECKPOINTS), keep)
    trained = train(
        make_network,
        phases,
        seed=seed,
        runtime=runtime,
        checkpoints=checkpoints,
        on_log=progress,
        on_milestone=on_milestone,
        until=until,
    )
    if trained is None:
        return None
    if runtime.rank == 0:
        progress.end(trained.state)
    return trained, tuple(progress.warnings)


def _finish(artifact: artifacts.Autoencoder | artifacts.Denoiser, trained: Trained, runtime: Runtime) -> None:
    """Write weights, history and, last, the manifest; then the checkpoints are not needed any more."""
    if runtime.rank == 0:
        storage.write_bytes(storage.join(artifact.uri, WEIGHTS), to_safetensors(trained.average))
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
