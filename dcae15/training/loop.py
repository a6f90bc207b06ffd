"""The training loop: one loop for the autoencoder and the denoiser, on one process or many."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from dcae15.config import TrainingConfig
from dcae15.data.loader import Batch
from dcae15.errors import TrainingError
from dcae15.runtime import Runtime
from dcae15.training.checkpoint import Checkpoints
from dcae15.training.ema import MovingAverage
from dcae15.training.optimizers import adamw, learning_rate
from dcae15.training.randomness import StepRandomness

Row = dict[str, float]


@dataclass
class TrainState:
    """Where a training run is.

    Attributes:
        images_seen: images seen by all workers together.
        history: one row per log interval: images, loss, learning_rate, gradient_norm, images_per_second, data_wait.
        resumed_from: images seen when this process took over; 0 for a fresh start.
    """

    images_seen: int = 0
    history: list[Row] = field(default_factory=list)
    resumed_from: int = 0


@dataclass
class Trained:
    """The result: weights after the last step, their moving average, and what happened."""

    weights: dict[str, Tensor]
    average: dict[str, Tensor]
    state: TrainState


def train(
    objective: Any,
    batches: Callable[[int], Iterator[Batch]],
    config: TrainingConfig,
    *,
    seed: int,
    runtime: Runtime,
    checkpoints: Checkpoints,
    on_log: Callable[[Row, TrainState], None],
) -> Trained:
    """Train until ``config.images`` images were seen, from the newest checkpoint if there is one.

    Stopping at any moment and starting again gives the same weights as an undisturbed run: order, draws and noise are functions
    of the images seen, and a checkpoint holds everything else.

    Args:
        objective: the module to train, see `dcae15.training.objectives.Objective`.
        batches: makes the stream of batches from the images seen so far.
        config: lengths, optimizer, intervals.
        seed: of draws and noise.
        runtime: this process among its peers.
        checkpoints: where state is kept; rank 0 writes.
        on_log: called with every row of the history on rank 0.

    Returns:
        The trained weights, on the CPU.

    Raises:
        TrainingError: the loss or gradient is not finite; the last checkpoint is untouched.
    """
    objective.to(runtime.device, memory_format=torch.channels_last if config.channels_last else torch.preserve_format)
    network = objective.network
    optimizer = adamw(network, config)
    average = MovingAverage(network, config.ema_decay)
    state = _restore(checkpoints, network, optimizer, average)
    step = runtime.distribute(cast(nn.Module, torch.compile(objective)) if config.compile else objective)
    meter = _Meter(config.batch_size)

    def save() -> None:
        if runtime.rank == 0:
            checkpoints.save(state.images_seen, _snapshot(state, network, optimizer, average))
        runtime.barrier()

    objective.train()
    stream = batches(state.images_seen)
    while state.images_seen < config.images:
        batch = next(stream)
        randomness = StepRandomness(
            seed, state.images_seen, config.batch_size, runtime.rank, runtime.world, runtime.device
        )
        rate = learning_rate(config, state.images_seen)
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(runtime.device.type, torch.bfloat16, enabled=config.bf16):
            terms = step(*objective.draw(batch, randomness))
        optimizer.zero_grad(set_to_none=True)
        terms.total.backward()
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm or math.inf)
        _require_finite(terms.total.detach(), norm, state, runtime)
        optimizer.step()
        before = state.images_seen
        state.images_seen += config.batch_size
        average.update(state.images_seen // config.batch_size)
        meter.add(terms.named, norm, batch.wait)
        last = state.images_seen >= config.images
        if last or _crossed(before, state.images_seen, config.log_images):
            row = meter.row(state.images_seen, rate, runtime)
            state.history.append(row)
            if runtime.rank == 0:
                on_log(row, state)
            if not last and runtime.preempted():
                save()
        if not last and _crossed(before, state.images_seen, config.checkpoint_images):
            save()
    stream.close()  # pyright: ignore[reportAttributeAccessIssue]  # a generator: stops the loader's thread
    return Trained(_on_cpu(network.state_dict()), _on_cpu(average.state_dict()), state)


class _Meter:
    """Averages between two rows of the history."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self._reset()

    def _reset(self) -> None:
        self.began, self.steps, self.wait = time.perf_counter(), 0, 0.0
        self.sums: dict[str, Tensor] = {}

    def add(self, named: dict[str, Tensor], norm: Tensor, wait: float) -> None:
        for name, value in {**named, "gradient_norm": norm}.items():
            self.sums[name] = self.sums[name] + value.detach() if name in self.sums else value.detach().clone()
        self.steps += 1
        self.wait += wait

    def row(self, images_seen: int, rate: float, runtime: Runtime) -> Row:
        """Return the averages over all workers since the last row; every worker must call this at the same point."""
        names = sorted(self.sums)
        means = runtime.sum(torch.stack([self.sums[n] for n in names]).float()) / (self.steps * runtime.world)
        seconds = time.perf_counter() - self.began
        row = {
            "images": float(images_seen),
            **dict(zip(names, means.tolist(), strict=True)),
            "learning_rate": rate,
            "images_per_second": self.steps * self.batch_size / seconds,
            "data_wait": self.wait / seconds,
        }
        self._reset()
        return row


def _crossed(before: int, after: int, interval: int) -> bool:
    return interval > 0 and before // interval != after // interval


def _require_finite(loss: Tensor, norm: Tensor, state: TrainState, runtime: Runtime) -> None:
    """Stop before the optimizer moves. All workers see the same averaged gradient, and stop together."""
    if not bool(torch.isfinite(norm)):
        raise TrainingError(
            f"the gradient is not finite after {state.images_seen} images (loss {float(loss):.4g} on worker {runtime.rank}); "
            "the weights were not changed and the last checkpoint is good: lower training.learning_rate, "
            "lengthen training.warmup_images or set training.clip_norm, then run the same command again"
        )


def _snapshot(
    state: TrainState, network: Any, optimizer: torch.optim.Optimizer, average: MovingAverage
) -> dict[str, Any]:
    return {
        "images_seen": state.images_seen,
        "history": state.history,
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "average": average.state_dict(),
    }


def _restore(
    checkpoints: Checkpoints, network: Any, optimizer: torch.optim.Optimizer, average: MovingAverage
) -> TrainState:
    saved = checkpoints.latest()
    if saved is None:
        return TrainState()
    network.load_state_dict(saved["network"])
    optimizer.load_state_dict(saved["optimizer"])
    average.load_state_dict(saved["average"])
    return TrainState(saved["images_seen"], saved["history"], resumed_from=saved["images_seen"])


def _on_cpu(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in state.items()}
