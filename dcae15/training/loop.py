"""The training loop: one loop for the autoencoder's phases and the denoiser, on one process or many."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from dcae15.config import TrainingConfig
from dcae15.data.loader import Batch
from dcae15.runtime import Runtime
from dcae15.training import parts
from dcae15.training.checkpoint import Checkpoints
from dcae15.training.learner import Learner, split
from dcae15.training.meter import Meter, Row
from dcae15.training.objectives import Objective
from dcae15.training.parallel import whole

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Phase:
    """A part of a training run; it begins with the averaged weights of the one before, and a new optimizer.

    Attributes:
        name: for people.
        training: lengths, optimizer, switches, intervals.
        first: images seen, in the whole run, when it begins.
        last: images seen when it ends: ``first`` and its length, rounded up to whole batches.
        objective: makes what it trains from a network, and freezes what it does not.
        batches: makes the stream of batches from the images seen so far in the run.
    """

    name: str
    training: TrainingConfig
    first: int
    last: int
    objective: Callable[[Any], Objective]
    batches: Callable[[int], Generator[Batch, None, None]]


@dataclass
class TrainState:
    """Where a training run is.

    Attributes:
        images_seen: images seen by all workers together, in all phases.
        phase: index of the phase.
        history: one row per log interval: images, phase, loss, learning_rate, gradient_norm, images_per_second, data_wait, ...
        resumed_from: images seen when this process took over; 0 for a fresh start.
        begun: digests of the weights when the phase began.
    """

    images_seen: int = 0
    phase: int = 0
    history: list[Row] = field(default_factory=list)
    resumed_from: int = 0
    begun: dict[str, str] = field(default_factory=dict)


@dataclass
class Trained:
    """The result: weights after the last step, their moving average, and what happened.

    Attributes:
        weights: of the last step.
        average: of the last phase.
        state: where the run ended.
        unmoved: trainable parameters that a phase left as they were, by phase.
    """

    weights: Weights
    average: Weights
    state: TrainState
    unmoved: dict[str, list[str]]


def train(
    make_network: Callable[[], nn.Module],
    phases: Sequence[Phase],
    *,
    seed: int,
    runtime: Runtime,
    checkpoints: Checkpoints,
    on_log: Callable[[Row, TrainState], None],
) -> Trained:
    """Train through all phases, from the newest checkpoint if there is one.

    Stopping at any moment and starting again gives the same weights as an undisturbed run: order, draws and noise are functions
    of the images seen, and a checkpoint holds everything else.

    Args:
        make_network: makes the network with its initial weights.
        phases: one after the other.
        seed: of draws and noise.
        runtime: this process among its peers.
        checkpoints: where state is kept; rank 0 writes.
        on_log: called with every row of the history on rank 0.

    Returns:
        The trained weights, on the CPU.

    Raises:
        TrainingError: the loss or gradient is not finite, and the last checkpoint is untouched; or something frozen has changed.
    """
    saved = checkpoints.latest()
    state = TrainState()
    if saved is not None:
        state = TrainState(
            saved["images_seen"],
            saved["phase"],
            saved["history"],
            resumed_from=saved["images_seen"],
            begun=saved["begun"],
        )
    stages = _Phases(make_network, seed, runtime, checkpoints, on_log)
    unmoved: dict[str, list[str]] = {}
    weights: Weights | None = None
    while True:
        phase = phases[state.phase]
        learner = stages.enter(phase, state, weights, saved)
        saved = None
        stages.run(phase, state, learner)
        result = learner.state()
        unmoved[phase.name] = parts.unmoved(state.begun, parts.digests(result["network"]), learner.changeable())
        if state.phase == len(phases) - 1:
            return Trained(result["network"], result["average"], state, {k: v for k, v in unmoved.items() if v})
        weights = result["average"]
        state.phase, state.begun = state.phase + 1, {}
        stages.save(state, {"network": weights})


class _Phases:
    """Enters and runs phases."""

    def __init__(
        self,
        make_network: Callable[[], nn.Module],
        seed: int,
        runtime: Runtime,
        checkpoints: Checkpoints,
        on_log: Callable[[Row, TrainState], None],
    ) -> None:
        self.make_network, self.seed, self.runtime = make_network, seed, runtime
        self.checkpoints, self.on_log = checkpoints, on_log

    def enter(self, phase: Phase, state: TrainState, weights: Weights | None, saved: dict[str, Any] | None) -> Learner:
        """Return what trains: continued from a checkpoint, or begun with the weights of the phase before."""
        network = self.make_network()
        start = weights if saved is None else saved["network"]
        if start is not None:
            network.load_state_dict(start)
        learner = Learner(phase.objective(network), phase.training, self.runtime)
        if saved is not None and "optimizer" in saved:
            learner.load(saved)
        if not state.begun:
            state.begun = parts.digests(whole(network.state_dict()))
        return learner

    def run(self, phase: Phase, state: TrainState, learner: Learner) -> None:
        """Train until the phase's end."""
        config = phase.training
        meter = Meter(config.batch_size, self.runtime)
        with closing(phase.batches(state.images_seen)) as stream:  # stops the loader's thread
            while state.images_seen < phase.last:
                batch = next(stream)
                before = state.images_seen - phase.first
                named, rate = learner.train(split(batch, self.seed, config, self.runtime), before)
                state.images_seen += config.batch_size
                after, last = before + config.batch_size, state.images_seen >= phase.last
                meter.add(named, batch.wait)
                preempted = False
                if last or _crossed(before, after, config.log_images):
                    row = {**meter.row(state.images_seen, rate), "phase": float(state.phase)}
                    state.history.append(row)
                    if self.runtime.rank == 0:
                        self.on_log(row, state)
                    preempted = self.runtime.preempted()
                if not last and (preempted or _crossed(before, after, config.checkpoint_images)):
                    self.save(state, learner.state())

    def save(self, state: TrainState, of: dict[str, Any]) -> None:
        """Write a checkpoint."""
        if self.runtime.rank == 0:
            about = {name: getattr(state, name) for name in ("images_seen", "phase", "history", "begun")}
            self.checkpoints.save(state.images_seen, {**about, **of})
        self.runtime.barrier()


def _crossed(before: int, after: int, interval: int) -> bool:
    return interval > 0 and before // interval != after // interval
