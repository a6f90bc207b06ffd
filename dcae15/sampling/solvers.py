"""Reproducible noise, and the ODE solvers that carry it (t = 0) to data (t = 1) along a velocity field."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Velocity = Callable[[Tensor, float], Tensor]
"""A velocity field: ``velocity(x, t)`` has the shape of ``x``; t, 0 (noise) to 1 (data), is one for the whole batch."""


def initial_noise(indices: Sequence[int], shape: tuple[int, ...], seed: int) -> Tensor:
    """Return standard normal noise, float32 on the CPU, of shape ``(len(indices), *shape)``.

    The noise of image i is a pure function of (seed, i, shape), whatever else is in the batch. To sample a prefix of
    the channels, draw the full shape and slice: all prefixes then start from the same noise.
    """
    noise = torch.empty(len(indices), *shape)
    for row, index in zip(noise, indices, strict=True):
        key = hashlib.sha256(f"noise:{seed}:{index}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(key[:8], "little") >> 1)
        row.normal_(generator=generator)
    return noise


def integrate(velocity: Velocity, noise: Tensor, *, solver: str, steps: int) -> Tensor:
    """Solve dx/dt = velocity(x, t) from t = 0 to t = 1 on a uniform time grid.

    The field belongs to the linear path ``x_t = t * data + (1 - t) * noise`` whose velocity is ``data - noise``. It is
    finite on the whole of [0, 1], so Heun corrects every step, the last one too.

    Args:
        velocity: the field; called once per step by 'euler', twice by 'heun'.
        noise: the state at t = 0, any shape.
        solver: 'euler' (first order) or 'heun' (second order).
        steps: number of steps, at least 1.

    Returns:
        The state at t = 1, of the shape of ``noise``.
    """
    x = noise
    for step in range(steps):
        t, t_next = step / steps, (step + 1) / steps
        slope = velocity(x, t)
        if solver == "heun":
            slope = (slope + velocity(x + slope * (t_next - t), t_next)) / 2
        x = x + slope * (t_next - t)
    return x
