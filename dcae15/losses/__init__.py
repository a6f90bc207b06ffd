"""Training objectives."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class LossTerms(NamedTuple):
    """What a training step minimises (``total``), and the scalars worth logging, detached, by name."""

    total: Tensor
    named: dict[str, Tensor]
