"""From phases to an artifact: train, show how it goes, write what came out."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import torch
from safetensors.torch import save as to_safetensors

from dcae15 import artifacts, storage
from dcae15.artifacts import CHECKPOINTS, HISTORY, RAW_WEIGHTS, WEIGHTS
from dcae15.errors import ConfigError
from dcae15.runtime import Runtime
from dcae15.tracking import Tracker
from dcae15.training.checkpoint import Checkpoints
from dcae15.training.progress import Progress
from dcae15.training.trainer import Phase, Trained, TrainState, Weights, train


def run_phases(
    make_network: Callable[[], torch.nn.Module],
    phases: Sequence[Phase],
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


def write_trained(artifact: artifacts.Autoencoder | artifacts.Denoiser, trained: Trained, runtime: Runtime) -> None:
    """Write weights, history and, last, the manifest; then the checkpoints are not needed any more."""
    if runtime.rank == 0:
        storage.write_bytes(storage.join(artifact.uri, WEIGHTS), to_safetensors(trained.average))
        storage.write_bytes(storage.join(artifact.uri, RAW_WEIGHTS), to_safetensors(trained.weights))
        history = "".join(json.dumps(row) + "\n" for row in trained.state.history)
        storage.write_bytes(storage.join(artifact.uri, HISTORY), history.encode())
        parameters = sum(value.numel() for value in trained.weights.values())
        artifact.commit(workers=runtime.world, parameters=parameters)
        Checkpoints(storage.join(artifact.uri, CHECKPOINTS)).clear()
    runtime.barrier()
