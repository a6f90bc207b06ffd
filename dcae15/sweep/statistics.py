"""Small statistics of a sweep: spread over seeds, images to reach a value, rank correlation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.stats import permutation_test, rankdata

PERMUTATIONS = 10_000


@dataclass(frozen=True)
class Spread:
    """Mean, least and greatest of some values, and how many there are."""

    mean: float
    low: float
    high: float
    count: int


def spread(values: Iterable[float]) -> Spread | None:
    """Return the spread of the finite values; None when there are none."""
    known = [value for value in values if math.isfinite(value)]
    return Spread(float(np.mean(known)), min(known), max(known), len(known)) if known else None


class Crossing(NamedTuple):
    """When a curve first reached a value: the images seen by then, NaN when it never did.

    ``at_most``: it was there at the first milestone already, so that it needed so many images or fewer.
    """

    images: float
    at_most: bool = False


def first_crossing(images: Sequence[float], values: Sequence[float], target: float, *, higher: bool) -> Crossing:
    """Return when a curve first reached ``target`` or better, linear in images between milestones.

    Args:
        images: seen at each milestone, ascending.
        values: measured there; NaN where nothing was.
        target: the value to reach.
        higher: whether higher values are better.
    """
    sign = 1.0 if higher else -1.0
    known = [(x, sign * (y - target)) for x, y in zip(images, values, strict=True) if math.isfinite(y)]
    if known and known[0][1] >= 0:
        return Crossing(known[0][0], at_most=True)
    for (x0, y0), (x1, y1) in itertools.pairwise(known):
        if y1 >= 0:
            return Crossing(x0 + (x1 - x0) * y0 / (y0 - y1))
    return Crossing(math.nan)


class Correlation(NamedTuple):
    """Spearman's rank correlation: ``rho`` in [-1, 1], the number of pairs, and the two-sided ``p`` of a permutation test."""

    rho: float
    pairs: int
    p: float


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> Correlation | None:
    """Return Spearman's rank correlation of pairs; None for fewer than three, or when one side is all alike.

    ``p`` is the share of orders of ``y`` whose correlation is as strong: of all orders up to seven pairs, of 10,000 drawn ones
    beyond.
    """
    if len(x) < 3 or len(set(x)) < 2 or len(set(y)) < 2:
        return None
    left, right = (ranks / np.linalg.norm(ranks) for ranks in (rankdata(v) - (len(x) + 1) / 2 for v in (x, y)))
    test = permutation_test(
        (left,),
        lambda ranks, axis: (ranks * right).sum(axis),
        permutation_type="pairings",
        n_resamples=PERMUTATIONS,
        vectorized=True,
        rng=0,
    )
    return Correlation(float(left @ right), len(x), float(test.pvalue))
