"""Training the denoiser from artifact to artifact, on whatever runtime: data, network, milestones, result."""

from __future__ import annotations

from collections.abc import Generator

import torch
from safetensors.torch import save as to_safetensors

from dcae15 import artifacts, storage
from dcae15.artifacts import WEIGHTS, snapshot_uri
from dcae15.channels import Prefix
from dcae15.config import Config, fingerprint
from dcae15.data.disk_cache import disk_cache
from dcae15.data.latent_statistics import normalisation
from dcae15.data.loader import Batch, latent_batches
from dcae15.errors import ConfigError
from dcae15.models.dit import DiT
from dcae15.models.spec import DiTSpec
from dcae15.runtime import Runtime
from dcae15.tracking import Tracker
from dcae15.training.objectives import DiffusionObjective, Objective
from dcae15.training.randomness import generator
from dcae15.training.runs import run_phases, write_trained
from dcae15.training.trainer import Phase, TrainState, Weights


def snapshot_fingerprint(denoiser: str, images: int) -> str:
    """Return what names the denoiser as it was at a milestone: another one than the finished one, which generates other images."""
    return fingerprint("denoiser", {"finished": denoiser, "images_seen": images})


def planned_for(config: Config, latent_set: artifacts.LatentSet) -> tuple[Prefix, DiTSpec]:
    """Return the prefixes that are drawn, and the denoiser's graph; raise ConfigError when they do not fit the latents."""
    settings, latent = config.diffusion, latent_set.spec
    choices = config.diffusion.prefix.resolved(latent.channels, "diffusion.prefix")
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
    return choices, spec


def train_diffusion(
    config: Config, *, latents: str, uri: str, fingerprint: str, runtime: Runtime, tracker: Tracker, until: int = 0
) -> None:
    """Train the denoiser on the latent set at ``latents`` and write the artifact to ``uri``.

    At each of ``diffusion.milestones`` the averaged weights are written as an artifact of their own, see `snapshot_uri`. It stops
    at the first milestone of at least ``until`` images, if it is before the end; a later call goes on from there.
    """
    latent_set = artifacts.LatentSet.open(latents)
    settings, latent = config.diffusion, latent_set.spec
    choices, spec = planned_for(config, latent_set)
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

    milestones = tuple(settings.whole_milestones)
    phase = Phase("training", settings.training, 0, settings.training.whole_batches, objective, batches, milestones)
    done = run_phases(make_network, [phase], config.seed, uri, runtime, tracker, on_milestone, until)
    if done is not None:
        trained, warnings = done
        write_trained(artifact(uri, fingerprint, trained.state.images_seen, warnings), trained, runtime)
