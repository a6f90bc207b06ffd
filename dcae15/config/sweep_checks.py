"""What a sweep says of itself must make sense before any configuration is built from it."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

from dcae15.config.checks import nearest
from dcae15.config.layers import field_of
from dcae15.config.sweep import FIGURES, SCHEDULERS, SEARCHES, Figure, Range, Sweep
from dcae15.errors import ConfigError

OURS = {
    "seed": "give them in 'seeds'",
    "storage": "all trials share their artifacts there; give it on the command line",
}
"""Fields that neither arms nor a space may change, and what to do instead."""


def is_whole(path: str) -> bool:
    """Tell whether a configuration field holds whole numbers."""
    return field_of(path).type == "int"


def check_sweep(sweep: Sweep) -> None:
    """Refuse a sweep that cannot work, whatever the configuration says.

    Raises:
        ConfigError: names the file and every key that is wrong, and what to do.
    """
    rules = (_words, _numbers, _seeds, _fields, _space, _search, _figures)
    problems = [f"{sweep.origin or sweep.name}: {problem}" for rule in rules for problem in rule(sweep)]
    if problems:
        raise ConfigError("\n".join(problems))


def _words(sweep: Sweep) -> Iterator[str]:
    for key, words in (("search", SEARCHES), ("scheduler", SCHEDULERS), ("mode", ("min", "max"))):
        yield from _one_of(key, getattr(sweep, key), words)
    if not sweep.metric:
        yield "metric is empty; give what trials are compared by, such as frechet_distance.generated"


def _one_of(key: str, word: str, words: Collection[str]) -> Iterator[str]:
    if word not in words:
        yield f"{key} is '{word}'; it must be one of {', '.join(words)}{nearest(word, words)}"


def _numbers(sweep: Sweep) -> Iterator[str]:
    least = {"trials": 0, "reduction": 2, "concurrent": 0, "cpus_per_trial": 1, "gpus_per_trial": 1}
    for key, bound in least.items():
        if getattr(sweep, key) < bound:
            yield f"{key} is {getattr(sweep, key)}; it must be at least {bound}"


def _seeds(sweep: Sweep) -> Iterator[str]:
    if not sweep.seeds:
        yield "seeds is empty; give at least one, such as [0]"
    if len(set(sweep.seeds)) < len(sweep.seeds):
        yield f"seeds {list(sweep.seeds)} has one twice, which would be the same trial; give each once"
    if any(seed < 0 for seed in sweep.seeds):
        yield f"seeds {list(sweep.seeds)} must be at least 0"


def _fields(sweep: Sweep) -> Iterator[str]:
    where = {"set": sweep.set, "space": sweep.space, **{f"arms.{name}": arm for name, arm in sweep.arms.items()}}
    for key, fields in where.items():
        for path, mend in OURS.items():
            if path in fields:
                yield f"{key} has {path}; {mend}"
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
    kind = field_of(path).type
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


def points(sweep: Sweep) -> float:
    """Return how many different points the space has; infinite where a range allows any number."""
    count = 1.0
    for path, values in sweep.space.items():
        if not isinstance(values, Range):
            count *= len(values)
        elif values.step or is_whole(path):
            count *= math.floor((values.high - values.low) / (values.step or 1) + 1e-9) + 1
        else:
            return math.inf
    return count


def _search(sweep: Sweep) -> Iterator[str]:
    ranges = [path for path, values in sweep.space.items() if isinstance(values, Range)]
    if sweep.search == "grid":
        if ranges:
            yield f"space.{ranges[0]} is a range, but search is 'grid'; give a list of values, or search: random"
        if sweep.trials:
            yield f"trials is {sweep.trials}, but a grid runs every combination; leave it out, or give search: random"
        return
    if sweep.search not in SEARCHES:
        return
    if not sweep.space:
        yield f"search is '{sweep.search}', but there is no space to draw from; give a space"
    elif not sweep.trials:
        yield f"search is '{sweep.search}', which needs to know how many to draw; give trials, such as 'trials: 20'"
    elif all(sweep.space.values()) and not any(_range_problems(sweep)) and (count := points(sweep)) < sweep.trials:
        yield f"trials is {sweep.trials}, but the space has only {count:.0f} points; lower it, or give search: grid"
    if sweep.search == "tpe":
        why = "search is 'tpe', which learns from one trial for the next"
        if len(sweep.seeds) > 1:
            yield f"{why}, but seeds has {len(sweep.seeds)}; give one"
        if sweep.arms:
            yield f"{why}, but there are arms ({', '.join(sweep.arms)}); move what they share to 'set' and search the rest"


def _range_problems(sweep: Sweep) -> Iterator[str]:
    for path, values in sweep.space.items():
        if isinstance(values, Range):
            yield from _range(path, values)


def _figures(sweep: Sweep) -> Iterator[str]:
    for i, figure in enumerate(sweep.figures):
        yield from (f"figures[{i}].{problem}" for problem in _figure(sweep, figure))


def _figure(sweep: Sweep, figure: Figure) -> Iterator[str]:
    yield from _one_of("kind", figure.kind, FIGURES)
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
    if figure.reference and figure.kind != "over_images":
        yield f"reference is '{figure.reference}', which only figures of kind over_images have; leave it out"
    elif figure.reference and figure.reference not in sweep.arms and not sweep.include:
        arms = ", ".join(sweep.arms) or "none"
        yield f"reference is '{figure.reference}', which is no arm; the arms are {arms}{nearest(figure.reference, sweep.arms)}"
