"""Training objectives."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class LossTerms(NamedTuple):
    """The result of a training step."""

    total: Tensor  # what is minimised; with an adaptive weight a scalar with the same gradients instead
    named: dict[str, Tensor]  # scalars worth logging, detached, by name; the same names in every step
    # what the discriminator learns from in the same step, detached; empty without one
    for_critic: tuple[Tensor, ...] = ()
