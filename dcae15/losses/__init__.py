"""Training objectives."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class LossTerms(NamedTuple):
    """The result of a training step.

    Attributes:
        total: what is minimised; with an adaptive weight a scalar with the same gradients instead.
        named: scalars worth logging, detached, by name; the same names in every step.
        for_critic: what the discriminator learns from in the same step, detached; empty without one.
    """

    total: Tensor
    named: dict[str, Tensor]
    for_critic: tuple[Tensor, ...] = ()
