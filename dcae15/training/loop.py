"""The training loop: one loop for the autoencoder's phases and the denoiser, on one process or many."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dcae15.config import TrainingConfig
from dcae15.data.loader import Batch
from dcae15.errors import TrainingError
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
        milestones: images seen, in the whole run, after which the averaged weights are handed out.
        rates: (images seen in the whole run, peak learning rate from there on), ascending; before the first it is that of
            ``training``.
    """

    name: str
    training: TrainingConfig
    first: int
    last: int
    objective: Callable[[Any], Objective]
    batches: Callable[[int], Generator[Batch, None, None]]
    milestones: tuple[int, ...] = ()
    rates: tuple[tuple[int, float], ...] = ()

    def peak_rate(self, images_seen: int) -> float:
        """Return the peak learning rate of a step that begins after so many images of the whole run."""
        passed = [rate for start, rate in self.rates if images_seen >= start]
        return passed[-1] if passed else self.training.learning_rate


@dataclass
class TrainState:
    """Where a training run is.

    Attributes:
        images_seen: images seen by all workers together, in all phases.
        phase: index of the phase.
        history: one row per log interval: images, phase, loss, learning_rate, gradient_norm, images_per_second, data_wait, ...
        resumed_from: images seen when this process took over; 0 for a fresh start.
        begun: digests of the weights when the phase began.
        unmoved: trainable parameters that a phase left as they were, by the phase's name.
    """

    images_seen: int = 0
    phase: int = 0
    history: list[Row] = field(default_factory=list)
    resumed_from: int = 0
    begun: dict[str, str] = field(default_factory=dict)
    unmoved: dict[str, list[str]] = field(default_factory=dict)


@dataclass
class Trained:
    """The result: weights after the last step, their moving average, and what happened.

    Attributes:
        weights: of the last step; on rank 0, None elsewhere.
        average: of the last phase; on rank 0, None elsewhere.
        state: where the run ended.
    """

    weights: Weights
    average: Weights
    state: TrainState


def train(
    make_network: Callable[[], nn.Module],
    phases: Sequence[Phase],
    *,
    seed: int,
    runtime: Runtime,
    checkpoints: Checkpoints,
    on_log: Callable[[Row, TrainState], None],
    on_milestone: Callable[[Weights, TrainState], None] = lambda weights, state: None,
    until: int = 0,
) -> Trained | None:
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
        on_milestone: called on rank 0 with the averaged weights, on the CPU, at every milestone; again after a restart from a
            checkpoint before it.
        until: stop at the first milestone of at least so many images, with a checkpoint; 0 means never.

    Returns:
        The trained weights, on the CPU; None when it stopped before the end.

    Raises:
        TrainingError: the loss or gradient is not finite, and the last checkpoint is untouched; or something frozen has changed.
    """
    run = _Run(make_network, phases, seed, runtime, checkpoints, on_log, on_milestone, until)
    saved = run.newest()
    resumed_from = saved["images_seen"] if saved else 0
    while True:
        state = TrainState(resumed_from=resumed_from)
        if saved:
            state = TrainState(resumed_from=resumed_from, **{name: saved[name] for name in KEPT})
        if until and state.images_seen >= until and state.images_seen < phases[-1].last:
            return None
        learner = run.enter(state, saved)
        saved = None
        if not run.finish(state, learner):
            return None
        result = learner.state()
        del learner  # before the next phase needs the memory
        run.require_frozen(state, result["network"])
        if state.phase == len(phases) - 1:
            run.save(state, result)  # the artifact is written next, and may fail
            return Trained(result["network"], result["average"], state)
        state.phase, state.begun = state.phase + 1, {}
        run.save(state, {"network": result["average"]})
        saved = run.newest()


KEPT = ("images_seen", "phase", "history", "begun", "unmoved")
"""What a checkpoint keeps of a TrainState."""


@dataclass
class _Run:
    """Enters and finishes the phases of a run; see `train` for what it holds."""

    make_network: Callable[[], nn.Module]
    phases: Sequence[Phase]
    seed: int
    runtime: Runtime
    checkpoints: Checkpoints
    on_log: Callable[[Row, TrainState], None]
    on_milestone: Callable[[Weights, TrainState], None]
    until: int
    trainable: set[str] = field(default_factory=set)

    def newest(self) -> dict[str, Any] | None:
        """Return the newest good checkpoint: rank 0 chooses, and the others read the same one."""
        saved = self.checkpoints.latest() if self.runtime.rank == 0 else None
        found = saved["images_seen"] if saved else -1
        chosen = self.runtime.sum(torch.tensor(found if self.runtime.rank == 0 else 0, device=self.runtime.device))
        if self.runtime.rank == 0 or chosen < 0:
            return saved
        return self.checkpoints.at(int(chosen))

    def enter(self, state: TrainState, saved: dict[str, Any] | None) -> Learner:
        """Return what trains: continued from a checkpoint, or begun with the weights of the phase before."""
        phase = self.phases[state.phase]
        network = self.make_network()
        if saved:
            network.load_state_dict(saved["network"])
        learner = Learner(phase.objective(network), phase.training, self.runtime)
        if saved and "optimizer" in saved:
            learner.load(saved)
        self.trainable = learner.changeable()
        if not state.begun:
            weights = whole(learner.network.state_dict(), keep=self.runtime.rank == 0)
            state.begun = parts.digests(weights) if self.runtime.rank == 0 else {}
        return learner

    def finish(self, state: TrainState, learner: Learner) -> bool:
        """Train until the phase's end; return False when it stopped at a milestone before."""
        phase = self.phases[state.phase]
        config = phase.training
        meter = Meter(config.batch_size, self.runtime)
        with closing(phase.batches(state.images_seen)) as stream:  # stops the loader's thread
            while state.images_seen < phase.last:
                batch = next(stream)
                before = state.images_seen - phase.first
                pieces = split(batch, self.seed, config, self.runtime)
                named, rate = learner.train(pieces, before, phase.peak_rate(state.images_seen))
                state.images_seen += config.batch_size
                after, last = before + config.batch_size, state.images_seen >= phase.last
                meter.add(named, batch.wait)
                milestone = _passed(phase.milestones, state.images_seen - config.batch_size, state.images_seen)
                preempted = False
                if last or milestone or _crossed(before, after, config.log_images):
                    row = {**meter.row(state.images_seen, rate), "phase": float(state.phase)}
                    state.history.append(row)
                    if self.runtime.rank == 0:
                        self.on_log(row, state)
                    preempted = self.runtime.preempted()
                if milestone:
                    average = learner.averaged()
                    if self.runtime.rank == 0:
                        self.on_milestone(average, state)
                stop = bool(milestone and self.until) and state.images_seen >= self.until and not last
                if not last and (stop or preempted or _crossed(before, after, config.checkpoint_images)):
                    self.save(state, learner.state())
                if stop:
                    return False
        return True

    def require_frozen(self, state: TrainState, weights: Weights) -> None:
        """Note what the phase left unmoved, by comparing its end with its beginning.

        Raises:
            TrainingError: something frozen has changed; on every worker.
        """
        phase, error, unmoved = self.phases[state.phase], None, []
        if self.runtime.rank == 0:
            try:
                unmoved = parts.unmoved(state.begun, parts.digests(weights), self.trainable)
            except TrainingError as found:
                error = found
        if float(self.runtime.sum(torch.tensor(float(error is not None), device=self.runtime.device))):
            raise error or TrainingError(f"phase {phase.name}: a frozen tensor has changed, as the first worker says")
        if unmoved:
            state.unmoved[phase.name] = unmoved

    def save(self, state: TrainState, of: dict[str, Any]) -> None:
        """Write a checkpoint."""
        if self.runtime.rank == 0:
            self.checkpoints.save(state.images_seen, {**{name: getattr(state, name) for name in KEPT}, **of})
        self.runtime.barrier()


def _passed(milestones: Sequence[int], before: int, after: int) -> bool:
    return any(before < milestone <= after for milestone in milestones)


def _crossed(before: int, after: int, interval: int) -> bool:
    return interval > 0 and before // interval != after // interval
