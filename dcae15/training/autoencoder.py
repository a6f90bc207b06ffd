"""Training the autoencoder from artifact to artifact, on whatever runtime: data, network, phases, result."""

from __future__ import annotations

from collections.abc import Generator

import torch

from dcae15 import artifacts
from dcae15.config import AutoencoderConfig, Config, PhaseConfig, autoencoder_spec, phase_size_problems
from dcae15.data.disk_cache import disk_cache
from dcae15.data.loader import Batch, image_batches
from dcae15.errors import ConfigError
from dcae15.library import load_autoencoder
from dcae15.losses.perceptual import LPIPS, load_lpips
from dcae15.models.autoencoder import Autoencoder
from dcae15.models.discriminator import PatchDiscriminator
from dcae15.models.spec import AutoencoderSpec
from dcae15.runtime import Runtime
from dcae15.tracking import Tracker
from dcae15.training import parts
from dcae15.training.objectives import AutoencoderObjective, CriticObjective, Objective
from dcae15.training.randomness import generator
from dcae15.training.runs import run_phases, write_trained
from dcae15.training.trainer import Phase


def train_autoencoder(
    config: Config, *, images: str, uri: str, fingerprint: str, runtime: Runtime, tracker: Tracker, initial: str = ""
) -> None:
    """Train the autoencoder on the image set at ``images`` and write the artifact to ``uri``.

    It begins with the weights of the artifact at ``initial``, where one is given.
    """
    image_set = artifacts.ImageSet.open(images)
    settings = config.autoencoder
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
    for i, phase in enumerate(settings.all_phases):
        last = first + phase.training.whole_batches

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
    done = run_phases(make_network, phases, config.seed, uri, runtime, tracker)
    assert done is not None
    trained, warnings = done
    write_trained(
        artifacts.Autoencoder(
            uri,
            fingerprint,
            spec=spec.to_dict(),
            resolution=image_set.resolution,
            prefix_choices=tuple(settings.trained_prefixes(spec.latent_channels)),
            mask_kind=settings.mask_kind,
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
    for i, phase in enumerate(settings.all_phases):
        path, perceptual = settings.phase_path(i), phase.losses.perceptual
        parts.freeze(network, phase.parts, f"{path}.parts" if settings.phases else "parts")
        key = str(perceptual.changed(weight=1.0))
        if perceptual.weight and key not in read:
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
        phase.prefix.resolved(network.spec.latent_channels),
        losses,
        lpips,
        critic,
        judged_from=first + adversarial.start_images,
        average=lambda value: runtime.sum(value) / runtime.world,
        fixed_shapes=phase.training.compile,
    )
