"""ODE solvers that carry noise (t = 0) to data (t = 1) along a velocity field."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from dcae15.errors import ConfigError

Velocity = Callable[[Tensor, float], Tensor]
"""A velocity field: ``velocity(x, t)`` has the shape of ``x``; t, 0 (noise) to 1 (data), is one for the whole batch."""


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

    Raises:
        ConfigError: the solver is unknown, or there is no step.
    """
    if solver not in ("euler", "heun"):
        raise ConfigError(f"sampling.solver is {solver!r}; choose 'euler' or 'heun'")
    if steps < 1:
        raise ConfigError(f"sampling.steps is {steps}; the solver needs at least 1 step")
    x = noise
    for step in range(steps):
        t, t_next = step / steps, (step + 1) / steps
        slope = velocity(x, t)
        if solver == "heun":
            slope = (slope + velocity(x + slope * (t_next - t), t_next)) / 2
        x = x + slope * (t_next - t)
    return x
