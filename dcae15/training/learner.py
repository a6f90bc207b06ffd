"""One network in training: its optimizer, its average, and one optimizer step at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dcae15.config import TrainingConfig
from dcae15.data.loader import Batch
from dcae15.errors import TrainingError
from dcae15.runtime import Runtime
from dcae15.training import optimizers, parallel, parts
from dcae15.training.ema import MovingAverage
from dcae15.training.objectives import CriticObjective, Objective
from dcae15.training.randomness import StepRandomness


class Part(NamedTuple):
    """What a worker computes in one go: some rows of the global batch and their draws."""

    batch: Batch
    randomness: StepRandomness


def split(batch: Batch, seed: int, config: TrainingConfig, runtime: Runtime) -> list[Part]:
    """Cut a worker's batch into ``config.accumulation`` parts, with the draws of their rows of the global batch."""
    count = config.accumulation
    size = len(batch.inputs) // count
    pieces = []
    for i in range(count):
        rows = slice(i * size, (i + 1) * size)
        randomness = StepRandomness(
            seed, batch.start, config.batch_size, runtime.rank * count + i, runtime.world * count, runtime.device
        )
        pieces.append(Part(Batch(batch.start, batch.inputs[rows], batch.labels[rows], batch.wait), randomness))
    return pieces


class Learner:
    """An objective with its optimizer and moving average; with a discriminator, also that one's.

    Args:
        objective: see `dcae15.training.objectives.Objective`; parts of its network may be frozen.
        config: the phase's training.
        runtime: this process among its peers.
    """

    def __init__(self, objective: Objective, config: TrainingConfig, runtime: Runtime) -> None:
        self.objective, self.config, self.runtime = objective, config, runtime
        self.network = objective.network
        self.trainable = {name for name, p in self.network.named_parameters() if p.requires_grad}
        self.step = parallel.Step(objective, config, runtime)
        parts.train_mode(self.network)
        self.optimizer = optimizers.adamw(
            self.network,
            learning_rate=config.learning_rate,
            betas=(config.beta1, config.beta2),
            weight_decay=config.weight_decay,
        )
        self.average = MovingAverage(self.network, config.ema_decay)
        self.critic = _Critic(objective.critic, config, runtime) if objective.critic is not None else None

    def train(self, pieces: Sequence[Part], images_in_phase: int, peak_rate: float) -> tuple[dict[str, Tensor], float]:
        """Take one optimizer step.

        Args:
            pieces: this worker's part of the global batch.
            images_in_phase: images that the phase saw before.
            peak_rate: learning rate, of which the schedule gives a share.

        Returns:
            Scalars to log, and the learning rate.

        Raises:
            TrainingError: a loss or gradient is not finite; no weight has changed.
        """
        config, count = self.config, len(pieces)
        self._clear()
        named: dict[str, Tensor] = {}
        for i, piece in enumerate(pieces):
            last = i == count - 1
            with self.step.averaging(last):
                with torch.autocast(self.runtime.device.type, torch.bfloat16, enabled=config.bf16):
                    terms = self.step(*self.objective.draw(piece.batch, piece.randomness))
                (terms.total / count).backward()
            scalars = terms.named
            if self.critic is not None:
                scalars = {**scalars, **self.critic.learn(terms.for_critic, count, last)}
            for name, value in scalars.items():
                named[name] = named.get(name, 0.0) + value / count
        named["gradient_norm"] = _clip(self.network, config.clip_norm)
        if self.critic is not None:
            named["discriminator_gradient_norm"] = _clip(self.critic.objective.network, config.clip_norm)
        _require_finite(named, pieces[0].batch.start)
        share = optimizers.schedule(config, images_in_phase)
        _move(self.optimizer, peak_rate * share)
        if self.critic is not None:
            _move(self.critic.optimizer, self.critic.learning_rate * share)
        self.average.update(images_in_phase // config.batch_size + 1)
        return named, peak_rate * share

    def _clear(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        if self.critic is not None:
            self.critic.optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Any]:
        """Return everything that the next step depends on, as whole tensors on the CPU of rank 0.

        All workers call this together; the others get None for tensors.
        """
        critic = self.critic and {
            "network": self.critic.objective.network.state_dict(),
            "optimizer": self.critic.optimizer.state_dict(),
        }
        return parallel.whole(
            {
                "network": self.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "average": self.average.state_dict(),
                "critic": critic,
            },
            keep=self.runtime.rank == 0,
        )

    def averaged(self) -> dict[str, Tensor]:
        """Return the averaged weights as whole tensors on the CPU of rank 0; called as `state` is."""
        return parallel.whole({"average": self.average.state_dict()}, keep=self.runtime.rank == 0)["average"]

    def load(self, saved: dict[str, Any]) -> None:
        """Continue from what `state` returned, here or on another number of workers."""
        parallel.put(saved["network"], self.network.state_dict())
        parallel.put_optimizer(saved["optimizer"], self.optimizer)
        self.average.load_state_dict(saved["average"])
        if self.critic is not None:
            self.critic.objective.network.load_state_dict(saved["critic"]["network"])
            parallel.put_optimizer(saved["critic"]["optimizer"], self.critic.optimizer)

    def changeable(self) -> set[str]:
        """Return the names of weights that training may change: what is not frozen, and its running statistics."""
        training = {name for name, module in self.network.named_modules() if module.training}
        buffers = {name for name, _ in self.network.named_buffers() if name.rsplit(".", 1)[0] in training}
        return self.trainable | buffers


class _Critic:
    """The discriminator's network and optimizer; always whole on each worker."""

    def __init__(self, objective: CriticObjective, config: TrainingConfig, runtime: Runtime) -> None:
        self.objective, self.config, self.runtime = objective, config, runtime
        self.step = parallel.Step(objective, config, runtime, parallel="ddp")
        objective.train()
        settings = objective.settings
        self.learning_rate = settings.learning_rate or config.learning_rate
        self.optimizer = optimizers.adamw(
            objective.network,
            learning_rate=self.learning_rate,
            betas=(settings.beta1, settings.beta2),
            weight_decay=0.0,
        )

    def learn(self, pair: tuple[Tensor, ...], count: int, last: bool) -> dict[str, Tensor]:
        """Add the gradient of one part's images and reconstructions; return scalars to log."""
        with self.step.averaging(last):
            with torch.autocast(self.runtime.device.type, torch.bfloat16, enabled=self.config.bf16):
                terms = self.step(*pair)
            (terms.total / count).backward()
        return terms.named


def _clip(network: torch.nn.Module, most: float) -> Tensor:
    """Scale the gradient down to the norm ``most`` (0 means never); return its norm before."""
    trainable = [p for p in network.parameters() if p.requires_grad]
    norm = torch.nn.utils.clip_grad_norm_(trainable, most or math.inf)
    return norm.full_tensor() if parallel.is_shard(norm) else norm


def _move(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()


def _require_finite(named: dict[str, Tensor], images_seen: int) -> None:
    """Stop before any optimizer moves. All workers see the same averaged gradients, and stop together."""
    norms = {name: value for name, value in named.items() if name.endswith("gradient_norm")}
    if bool(torch.stack(list(norms.values())).isfinite().all()):
        return
    guilty = next(name for name, value in norms.items() if not bool(value.isfinite()))
    whose = "the discriminator's gradient" if guilty.startswith("discriminator") else "the gradient"
    raise TrainingError(
        f"{whose} is not finite after {images_seen} images (loss {float(named['loss']):.4g} on this worker); "
        "the weights were not changed and the last checkpoint is good. The same command would meet the same numbers: lower "
        "training.learning_rate, lengthen training.warmup_images or set training.clip_norm, which begins a run of another name"
    )
