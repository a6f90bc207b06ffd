"""Averages of what training logs."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from dcae15.runtime import Runtime

Row = dict[str, float]


class Meter:
    """Averages between two rows of the history."""

    def __init__(self, batch_size: int, runtime: Runtime) -> None:
        self.batch_size, self.runtime = batch_size, runtime
        self._reset()

    def _reset(self) -> None:
        self.began, self.steps, self.wait = time.perf_counter(), 0, 0.0
        self.sums: dict[str, Tensor] = {}

    def add(self, named: dict[str, Tensor], wait: float) -> None:
        """Take in one step's scalars, and the seconds that it waited for data."""
        for name, value in named.items():
            self.sums[name] = self.sums[name] + value.detach() if name in self.sums else value.detach().clone()
        self.steps += 1
        self.wait += wait

    def row(self, images_seen: int, rate: float) -> Row:
        """Return the averages over all workers since the last row; every worker must call this at the same point."""
        names = sorted(self.sums)
        sums = self.runtime.sum(torch.stack([self.sums[n].float() for n in names]))
        means = sums / (self.steps * self.runtime.world)
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
