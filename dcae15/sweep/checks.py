"""What the keys of a sweep's file say of each other must make sense before any configuration is built from it."""

from __future__ import annotations

import math
from collections.abc import Iterator

from dcae15.config import field_type
from dcae15.errors import ConfigError, nearest
from dcae15.sweep.file import Figure, Range, Sweep

OURS = {
    "seed": "give them in 'seeds'",
    "storage": "all trials share their artifacts there; give it on the command line",
}
"""Fields that neither arms nor a space may change, and what to do instead."""


def check_sweep(sweep: Sweep) -> None:
    """Refuse a sweep that cannot work, whatever the configuration says.

    Raises:
        ConfigError: names the file and every key that is wrong, and what to do.
    """
    rules = (_seeds, _fields, _space, _search, _figures)
    problems = [f"{sweep.where}: {problem}" for rule in rules for problem in rule(sweep)]
    if problems:
        raise ConfigError("\n".join(problems))


def _seeds(sweep: Sweep) -> Iterator[str]:
    if not sweep.seeds:
        yield "seeds is empty; give at least one, such as [0]"
    if len(set(sweep.seeds)) < len(sweep.seeds):
        yield f"seeds {list(sweep.seeds)} has one twice, which would be the same trial; give each once"


def _fields(sweep: Sweep) -> Iterator[str]:
    where = {"set": sweep.set, "space": sweep.space, **{f"arms.{name}": arm for name, arm in sweep.arms.items()}}
    for key, fields in where.items():
        yield from (f"{key} has {path}; {mend}" for path, mend in OURS.items() if path in fields)
    for name, arm in sweep.arms.items():
        for path in arm.keys() & sweep.space.keys():
            yield f"arms.{name} and space both have {path}; leave it out of one of them"
    if not (sweep.arms or sweep.space or sweep.include or len(sweep.seeds) > 1):
        yield "there is nothing to vary: the sweep has no arms, no space, one seed and no include; give a space, or arms"


def _space(sweep: Sweep) -> Iterator[str]:
    for path, values in sweep.space.items():
        if isinstance(values, Range):
            yield from (f"space.{path} {problem}" for problem in _range(path, values))
        elif not values:
            yield f"space.{path} is an empty list, so that there are no trials; give values such as [1, 2], or leave it out"
        elif len({repr(value) for value in values}) < len(values):
            yield f"space.{path} {list(values)} has a value twice, which would be the same trial; give each once"


def _range(path: str, values: Range) -> Iterator[str]:
    kind = field_type(path)
    if kind not in ("int", "float"):
        yield f"is a range, but the field holds no number ({kind}); give a list of values"
        return
    if not all(math.isfinite(number) for number in (values.low, values.high, values.step)):
        yield "is a range with a number that is not finite"
        return
    if values.low >= values.high:
        yield f"has low {values.low:g}, which is not below high {values.high:g}; exchange them, or give a list of one value"
    if values.log and values.low <= 0:
        yield f"has log: true and low {values.low:g}; a logarithm needs low above 0"
    if values.step < 0 or values.step > values.high - values.low > 0:
        yield f"has step {values.step:g}; it must be above 0 and at most high - low, or 0 for any number"
    if values.log and values.step:
        yield "has both log and step; leave one out"
    if kind == "int" and any(number != int(number) for number in (values.low, values.high, values.step)):
        yield "is a range for a field of whole numbers; low, high and step must be whole numbers"


def _points(sweep: Sweep) -> float:
    """Return how many different points the space has; infinite where a range allows any number."""
    count = 1.0
    for path, values in sweep.space.items():
        if not isinstance(values, Range):
            count *= len(values)
        elif values.step or field_type(path) == "int":
            count *= math.floor((values.high - values.low) / (values.step or 1) + 1e-9) + 1
        else:
            return math.inf
    return count


def _search(sweep: Sweep) -> Iterator[str]:
    if sweep.search == "grid":
        for path in [path for path, values in sweep.space.items() if isinstance(values, Range)][:1]:
            yield f"space.{path} is a range, but search is 'grid'; give a list of values, or search: random"
        if sweep.trials:
            yield f"trials is {sweep.trials}, but a grid runs every combination; leave it out, or give search: random"
        return
    if not sweep.space:
        yield f"search is '{sweep.search}', but there is no space to draw from; give a space"
    elif not sweep.trials:
        yield f"search is '{sweep.search}', which needs to know how many to draw; give trials, such as 'trials: 20'"
    elif not any(_space(sweep)) and (count := _points(sweep)) < sweep.trials:
        yield f"trials is {sweep.trials}, but the space has only {count:.0f} points; lower it, or give search: grid"
    if sweep.search == "tpe":
        why = "search is 'tpe', which learns from one trial for the next"
        if len(sweep.seeds) > 1:
            yield f"{why}, but seeds has {len(sweep.seeds)}; give one"
        if sweep.arms:
            yield f"{why}, but there are arms ({', '.join(sweep.arms)}); move what they share to 'set' and search the rest"


def _figures(sweep: Sweep) -> Iterator[str]:
    for i, figure in enumerate(sweep.figures):
        yield from (f"figures[{i}].{problem}" for problem in _figure(sweep, figure))


def _figure(sweep: Sweep, figure: Figure) -> Iterator[str]:
    least = 2 if figure.kind == "against" else 1
    if len(figure.measures) < least or not all(figure.measures):
        yield f"measures {list(figure.measures)} has too few for '{figure.kind}'; give {least} or more"
    if (figure.kind == "over_field") != bool(figure.field):
        yield f"field is '{figure.field}'; give one for figures of kind over_field, and for these only"
    elif figure.field:
        varied = {*sweep.space, *(path for arm in sweep.arms.values() for path in arm)}
        if figure.field not in varied and not sweep.include:
            near = nearest(figure.field, varied) or f"; these vary: {', '.join(sorted(varied))}"
            yield f"field is '{figure.field}', which no arm and no space varies{near}"
    if figure.reference and figure.kind not in ("over_images", "autoencoders"):
        yield f"reference is '{figure.reference}', which only figures of kind over_images and autoencoders have; leave it out"
    elif figure.kind == "over_images" and figure.reference and figure.reference not in sweep.arms and not sweep.include:
        arms = ", ".join(sweep.arms) or "none"
        yield f"reference is '{figure.reference}', which is no arm; the arms are {arms}{nearest(figure.reference, sweep.arms)}"
