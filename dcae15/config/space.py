"""Points of a search space: the grid, random draws, and its corners."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator

from dcae15.config.sweep import Range, Sweep, Value
from dcae15.config.sweep_checks import is_whole
from dcae15.errors import ConfigError

Point = dict[str, Value]
MOST_TRIES = 1_000
"""Draws for each trial before a space counts as exhausted; only spaces with hardly more points than trials come near."""
MOST_CORNERS = 256
DIGITS = 6
"""Significant digits of a drawn number, so that a command that repeats a trial is short and exact."""


def grid(sweep: Sweep) -> list[Point]:
    """Return every combination of the values of a space of lists; one empty point where there is no space."""
    lists = [values for values in sweep.space.values() if not isinstance(values, Range)]
    return [dict(zip(sweep.space, chosen, strict=True)) for chosen in itertools.product(*lists)]


def corners(sweep: Sweep) -> list[Point]:
    """Return the first combinations of the ends of ranges and of the values of lists."""
    ends = [
        tuple(_number(path, end) for end in (values.low, values.high)) if isinstance(values, Range) else values
        for path, values in sweep.space.items()
    ]
    found = itertools.islice(itertools.product(*ends), MOST_CORNERS)
    return [dict(zip(sweep.space, chosen, strict=True)) for chosen in found]


def draws(sweep: Sweep) -> list[Point]:
    """Return ``sweep.trials`` different random points, always the same ones for a sweep's name and space.

    Raises:
        ConfigError: so many different ones were not found.
    """
    found: dict[str, Point] = {}
    for point in itertools.islice(_drawn(sweep), MOST_TRIES * sweep.trials):
        found.setdefault(repr(point), point)
        if len(found) == sweep.trials:
            return list(found.values())
    raise ConfigError(
        f"{sweep.origin or sweep.name}: trials is {sweep.trials}, but only {len(found)} different points were found in the space; "
        "lower it, or give search: grid"
    )


def _drawn(sweep: Sweep) -> Iterator[Point]:
    source = random.Random(sweep.name)  # of its methods only random() is the same in every version of Python
    while True:
        yield {path: _draw(path, values, source.random()) for path, values in sweep.space.items()}


def _draw(path: str, values: tuple[Value, ...] | Range, share: float) -> Value:
    """Return the value at a share of 0 to 1 (exclusive) of a list or range."""
    if not isinstance(values, Range):
        return values[int(share * len(values))]
    low, high = values.low, values.high
    if values.log:
        drawn = math.exp(math.log(low) + share * (math.log(high + is_whole(path)) - math.log(low)))
    elif values.step or is_whole(path):
        step = values.step or 1
        drawn = low + step * int(share * (math.floor((high - low) / step + 1e-9) + 1))
    else:
        drawn = low + share * (high - low)
    if is_whole(path):
        return min(int(drawn), int(high))
    return min(max(float(f"{drawn:.{DIGITS}g}"), low), high)


def _number(path: str, value: float) -> Value:
    return int(value) if is_whole(path) else value
