"""The training loop, for the autoencoder's phases and for the denoiser, on one process or many. Read `train` first."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dcae15.config import TrainingConfig
from dcae15.data.loader import Batch
from dcae15.errors import TrainingError
from dcae15.losses import LossTerms
from dcae15.runtime import Runtime
from dcae15.training import parallel, parts
from dcae15.training.checkpoint import Checkpoints
from dcae15.training.meter import Meter, Row
from dcae15.training.objectives import Objective
from dcae15.training.randomness import StepRandomness

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Phase:
    """A part of a training run; it begins with the averaged weights of the one before, and a new optimizer."""

    name: str  # for people
    training: TrainingConfig  # lengths, optimizer, switches, intervals
    first: int  # images seen, in the whole run, when it begins
    last: int  # images seen when it ends: ``first`` and its length, rounded up to whole batches
    objective: Callable[[Any], Objective]  # makes what it trains from a network, and freezes what it does not
    # makes the stream of batches from the images seen so far in the run
    batches: Callable[[int], Generator[Batch, None, None]]
    milestones: tuple[int, ...] = ()  # images seen, in the whole run, after which the averaged weights are handed out


@dataclass
class TrainState:
    """Where a training run is."""

    images_seen: int = 0  # images seen by all workers together, in all phases
    phase: int = 0  # index of the phase
    # one row per log interval: images, phase, loss, learning_rate, gradient_norm, images_per_second, data_wait, ...
    history: list[Row] = field(default_factory=list)
    resumed_from: int = 0  # images seen when this process took over; 0 for a fresh start
    # digests of the weights when the phase began; empty before it begins
    begun: dict[str, str] = field(default_factory=dict)
    # trainable parameters that a phase left as they were, by the phase's name
    unmoved: dict[str, list[str]] = field(default_factory=dict)


@dataclass
class Trained:
    """The result, with weights on the first worker and nothing in their place on the others."""

    weights: Weights  # of the last step
    average: Weights  # of the last phase
    state: TrainState  # where the run ended


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
        checkpoints: where state is kept; rank 0 reads and writes.
        on_log: called with every row of the history on rank 0.
        on_milestone: called on rank 0 with the averaged weights, on the CPU, at every milestone; again after a restart from a
            checkpoint before it. The weights are good until it returns.
        until: stop at the first milestone of at least so many images, with a checkpoint; 0 means never.

    Returns:
        The trained weights, on the CPU; None when it stopped before the end.

    Raises:
        TrainingError: the loss or gradient is not finite, and the last checkpoint is untouched; or something frozen has changed.
    """
    saved = checkpoints.latest() if runtime.rank == 0 else None
    state = parallel.from_first_worker(_resumed(saved), runtime)

    def save(held: dict[str, Any]) -> None:
        if runtime.rank == 0:
            checkpoints.save(state.images_seen, {**vars(state), **held})
        runtime.barrier()

    while True:
        phase = phases[state.phase]
        config = phase.training
        if until and until <= state.images_seen < phases[-1].last:
            return None
        networks = Networks(make_network(), phase, runtime)
        if state.images_seen:
            networks.load(saved or {}, middle=bool(state.begun))
            saved = None
        if not state.begun:
            state.begun = parts.digests(parallel.weights_of(networks.model.network))
        meter = Meter(config.batch_size, runtime)
        with closing(phase.batches(state.images_seen)) as stream:  # stops the loader's thread
            while state.images_seen < phase.last:
                batch = next(stream)
                before = state.images_seen - phase.first
                scalars = networks.forward_backward(batch, seed)
                scalars |= networks.clip()
                _require_finite(scalars, state.images_seen)
                rate = networks.step(schedule(config, before))
                networks.update_average(before // config.batch_size + 1)
                state.images_seen += config.batch_size
                meter.add(scalars, batch.wait)

                after, last, preempted = before + config.batch_size, state.images_seen >= phase.last, False
                milestone = any(phase.first + before < images <= state.images_seen for images in phase.milestones)
                if last or milestone or _crossed(before, after, config.log_images):
                    state.history.append({**meter.row(state.images_seen, rate), "phase": float(state.phase)})
                    if runtime.rank == 0:
                        on_log(state.history[-1], state)
                    preempted = runtime.preempted()
                if milestone:
                    average = parallel.weights_of(networks.average)
                    if runtime.rank == 0:
                        on_milestone(average, state)
                stop = milestone and 0 < until <= state.images_seen and not last
                if not last and (stop or preempted or _crossed(before, after, config.checkpoint_images)):
                    save(networks.state())
                if stop:
                    return None
        result, trainable = networks.state(), parts.changeable(networks.model.network)
        del networks  # before the next phase needs the memory
        if unmoved := parts.require_frozen(state.begun, result["network"], trainable, runtime):
            state.unmoved[phase.name] = unmoved
        if state.phase == len(phases) - 1:
            save(result)  # the artifact is written next, and may fail
            return Trained(result["network"], result["average"], state)
        state.phase, state.begun = state.phase + 1, {}
        saved = {"network": result["average"]}
        save(saved)


class Learner:
    """A network, the objective that it learns from, and its optimizer: AdamW, which does not decay vectors."""

    def __init__(self, objective: Any, config: TrainingConfig, runtime: Runtime) -> None:
        self.objective, self.config, self.runtime = objective, config, runtime
        self.network: nn.Module = objective.network
        self.call = parallel.parallelise(objective, config, runtime)
        parts.train_mode(self.network)
        self.trainable: list[Tensor] = [p for p in self.network.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in self.trainable if p.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in self.trainable if p.ndim <= 1], "weight_decay": 0.0},
        ]
        groups, betas = [group for group in groups if group["params"]], (config.beta1, config.beta2)
        self.optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, fused=True)

    def forward_backward(self, arguments: tuple[Any, ...], last: bool) -> LossTerms:
        """Add the gradient of one of the step's parts; with its ``last``, the workers' gradients are averaged."""
        with parallel.averaging(self.call, on=last):
            with torch.autocast(self.runtime.device.type, torch.bfloat16, enabled=self.config.bf16):
                terms: LossTerms = self.call(*arguments)
            (terms.total / self.config.accumulation).backward()
        return terms

    def clip(self) -> Tensor:
        """Scale the gradient down to the norm ``clip_norm`` (0 means never); return its norm before."""
        norm = torch.nn.utils.clip_grad_norm_(self.trainable, self.config.clip_norm or math.inf)
        return getattr(norm, "full_tensor", lambda: norm)()  # of shards, it is a number in parts

    def step(self, share: float) -> float:
        """Move the weights with a share of the peak learning rate; return that rate."""
        rate = self.config.learning_rate * share
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return rate

    def state(self) -> dict[str, Any]:
        """Return the weights and the optimizer's state, whole, on the CPU of rank 0; all workers call this together."""
        return {
            "network": parallel.weights_of(self.network),
            "optimizer": parallel.optimizer_state_of(self.network, self.optimizer),
        }

    def load(self, saved: dict[str, Any]) -> None:
        """Continue from what `state` returned; only rank 0's is read."""
        parallel.load_optimizer(self.network, self.optimizer, saved.get("optimizer", {}), self.runtime)
        parallel.load_weights(self.network, saved.get("network", {}), self.runtime)


class Networks:
    """What a phase trains: the model with its moving average and, in an adversarial one, the discriminator ("critic")."""

    def __init__(self, network: nn.Module, phase: Phase, runtime: Runtime) -> None:
        config = self.config = phase.training
        self.runtime = runtime
        self.average = copy.deepcopy(network).requires_grad_(False)
        parallel.beside(self.average, config, runtime)
        self.objective = phase.objective(network)
        self.model, self.critic = Learner(self.objective, config, runtime), None
        if (critic := self.objective.critic) is not None:
            own = critic.settings
            rate = own.learning_rate or config.learning_rate
            changes = {"learning_rate": rate, "beta1": own.beta1, "beta2": own.beta2, "weight_decay": 0.0}
            small = config.changed(parallel="ddp", **changes)
            self.critic = Learner(critic, small, runtime)
        pairs = zip(self.average.parameters(), network.parameters(), strict=True)
        self.averaged: list[Tensor] = [average for average, parameter in pairs if parameter.requires_grad]

    def forward_backward(self, batch: Batch, seed: int) -> dict[str, Tensor]:
        """Leave the gradients of a step, of all workers; return its scalars, of this one.

        A batch is taken in ``accumulation`` parts. The critic learns from what the model made of the same part.
        """
        scalars: dict[str, Tensor] = {}
        count = self.config.accumulation
        for i, (rows, randomness) in enumerate(_parts(batch, seed, self.config, self.runtime)):
            last = i == count - 1
            terms = self.model.forward_backward(self.objective.draw(rows, randomness), last)
            named = terms.named
            if self.critic is not None:
                named = {**named, **self.critic.forward_backward(terms.for_critic, last).named}
            for name, value in named.items():
                scalars[name] = scalars.get(name, 0.0) + value / count
        return scalars

    def clip(self) -> dict[str, Tensor]:
        """Clip the gradients; return their norms before."""
        norms = {"gradient_norm": self.model.clip()}
        return norms if self.critic is None else {**norms, "discriminator_gradient_norm": self.critic.clip()}

    def step(self, share: float) -> float:
        """Move all weights with a share of their peak learning rates; return the model's rate."""
        rate = self.model.step(share)
        if self.critic is not None:
            self.critic.step(share)
        return rate

    @torch.no_grad()
    def update_average(self, step: int) -> None:
        """Take the weights after optimizer step ``step`` (1, 2, ...) into their exponential moving average.

        Its decay ramps up as (1 + n) / (10 + n) over the first n steps; with ``ema_decay`` 0 it is the weights themselves.
        Buffers are copied; what is frozen is its own average.
        """
        decay = min(self.config.ema_decay, (1 + step) / (10 + step)) if self.config.ema_decay else 0.0
        torch._foreach_lerp_(self.averaged, self.model.trainable, 1 - decay)
        for average, value in zip(self.average.buffers(), self.model.network.buffers(), strict=True):
            average.copy_(value)

    def state(self) -> dict[str, Any]:
        """Return everything that the next step depends on, whole, on the CPU of rank 0; all workers call this together."""
        average, critic = parallel.weights_of(self.average), self.critic and self.critic.state()
        return {**self.model.state(), "average": average, "critic": critic}

    def load(self, saved: dict[str, Any], middle: bool) -> None:
        """Continue in the middle of the phase, from what `state` returned, or begin it with weights ``network``.

        Here or on another number of workers; only rank 0's ``saved`` is read.
        """
        if middle:
            self.model.load(saved)
            if self.critic is not None:
                self.critic.load(saved.get("critic", {}))
        else:
            parallel.load_weights(self.model.network, saved.get("network", {}), self.runtime)
        parallel.load_weights(self.average, saved.get("average" if middle else "network", {}), self.runtime)


def schedule(config: TrainingConfig, images_seen: int) -> float:
    """Return the share of the peak learning rate in the step that starts after ``images_seen`` images of the phase.

    A linear warm-up, then constant, or cosine to zero at the end.
    """
    after_step = images_seen + config.batch_size
    if after_step < config.warmup_images:
        return after_step / config.warmup_images
    if config.schedule == "constant":
        return 1.0
    progress = (images_seen - config.warmup_images) / max(1, config.images - config.warmup_images)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, progress))))


def _resumed(saved: dict[str, Any] | None) -> TrainState:
    if saved is None:
        return TrainState()
    state = TrainState(**{f.name: saved[f.name] for f in dataclasses.fields(TrainState)})
    state.resumed_from = state.images_seen
    return state


def _parts(batch: Batch, seed: int, config: TrainingConfig, runtime: Runtime) -> Iterator[tuple[Batch, StepRandomness]]:
    """Cut a worker's batch into ``config.accumulation`` parts, with the draws of their rows of the global batch."""
    count = config.accumulation
    size = len(batch.inputs) // count
    for i in range(count):
        rows = slice(i * size, (i + 1) * size)
        part = Batch(batch.start, batch.inputs[rows], batch.labels[rows], batch.wait)
        index, world = runtime.rank * count + i, runtime.world * count
        yield part, StepRandomness(seed, batch.start, config.batch_size, index, world, runtime.device)


def _require_finite(scalars: dict[str, Tensor], images_seen: int) -> None:
    """Stop before any optimizer moves. All workers see the same averaged gradients, and stop together."""
    norms = {name: value for name, value in scalars.items() if name.endswith("gradient_norm")}
    if bool(torch.stack(list(norms.values())).isfinite().all()):
        return
    guilty = next(name for name, value in norms.items() if not bool(value.isfinite()))
    whose = "the discriminator's gradient" if guilty.startswith("discriminator") else "the gradient"
    kind = "it is NaN" if bool(norms[guilty].isnan()) else "it overflows"
    mending = (
        "lower training.learning_rate, lengthen training.warmup_images or set training.clip_norm, which begins a run of another "
        "name"
        if images_seen
        else "no step was taken yet: look at the weights that it begins with (autoencoder.initial) and at those of the losses"
    )
    raise TrainingError(
        f"{whose} is not finite after {images_seen} images ({kind}; loss {float(scalars['loss']):.4g} on this worker); "
        f"the weights were not changed and the last checkpoint is good. The same command would meet the same numbers: {mending}"
    )


def _crossed(before: int, after: int, interval: int) -> bool:
    return interval > 0 and before // interval != after // interval
