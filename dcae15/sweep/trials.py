"""The trials of a sweep: points of its space, and the configuration and the command of each."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dcae15.config import PHASES, Config, Layer, build, check, field_type, from_overrides, overlaid
from dcae15.errors import ConfigError, InvalidConfigError
from dcae15.sweep.file import Range, Sweep, Value

Point = dict[str, Value]
SCRIPT = "pipelines/full.py"
MOST_TRIES = 1_000
"""Draws for each trial before a space counts as exhausted; only spaces with hardly more points than trials come near."""
MOST_CORNERS = 256
DIGITS = 6
"""Significant digits of a drawn number, so that a command that repeats a trial is short and exact."""


STATUSES = ("waiting", "running", "finished", "stopped", "failed")


@dataclass(frozen=True)
class Trial:
    """One pipeline of a sweep, and what became of it."""

    id: str  # 10 hex digits, named by arm, seed and values: the same in every run of the sweep
    sweep: str  # name of its sweep or study
    arm: str = ""  # its arm; empty in a sweep without arms
    seed: int = 0  # of the pipeline
    # what the search chose, by dotted path; without the arm's own values
    values: dict[str, Any] = field(default_factory=dict)
    status: str = "waiting"  # one of `STATUSES`; ``stopped`` means early, by the scheduler
    error: str = ""  # why it failed; else empty
    seconds: float = 0.0  # that it ran, over all attempts
    # final numbers by name, such as ``frechet_distance.generated`` or ``psnr.structured.quarter``
    metrics: dict[str, float] = field(default_factory=dict)
    # what was measured at each milestone: ``images`` (seen) and metrics by name
    curve: list[dict[str, float]] = field(default_factory=list)
    # of its pipeline by name: ``uri``, ``fingerprint``, ``ran`` (False: another trial or run made it) and ``seconds``
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    command: str = ""  # the command that runs this pipeline alone
    report: str = ""  # URI of the pipeline's own report; empty until it is there
    run_id: str = ""  # MLflow's id of its run; empty where nothing is tracked

    @property
    def ended(self) -> bool:
        """Whether it is not run again."""
        return self.status in ("finished", "stopped")


def make_trial(sweep: Sweep, values: Mapping[str, Value], arm: str = "", seed: int = 0) -> Trial:
    """Return the trial of an arm, a seed and a point of the space; the same three always have the same id."""
    text = json.dumps({"sweep": sweep.name, "arm": arm, "seed": seed, "values": dict(values)}, sort_keys=True)
    return Trial(hashlib.sha256(text.encode()).hexdigest()[:10], sweep.name, arm, seed, dict(values))


def trials_of(sweep: Sweep) -> list[Trial]:
    """Return the trials that are known beforehand: all of a grid or of random draws, none of ``tpe``, which learns on its way.

    Every arm has the same points, so that arms compare. A sweep that only includes others has none of its own.

    Raises:
        ConfigError: so many different random points were not found.
    """
    if sweep.search == "tpe" or (sweep.include and not (sweep.arms or sweep.space)):
        return []
    points = _product(sweep, sweep.space) if sweep.search == "grid" else _draws(sweep)
    return _trials_at(sweep, list(points))


def _trials_at(sweep: Sweep, points: Sequence[Point]) -> list[Trial]:
    return [
        make_trial(sweep, point, arm, seed) for seed in sweep.seeds for arm in sweep.arms or [""] for point in points
    ]


# --- points of the space


def _product(sweep: Sweep, values: Mapping[str, Sequence[Value] | Range]) -> Iterator[Point]:
    """Yield every combination of values, of ranges their ends; one empty point where there is no space."""
    lists = [_ends(path, found) if isinstance(found, Range) else found for path, found in values.items()]
    return (dict(zip(sweep.space, chosen, strict=True)) for chosen in itertools.product(*lists))


def _ends(path: str, values: Range) -> list[Value]:
    return [int(end) if field_type(path) == "int" else end for end in (values.low, values.high)]


def corners(sweep: Sweep) -> list[Trial]:
    """Return trials at the first combinations of the ends of ranges and of the values of lists."""
    return _trials_at(sweep, list(itertools.islice(_product(sweep, sweep.space), MOST_CORNERS)))


def _draws(sweep: Sweep) -> list[Point]:
    """Return ``sweep.trials`` different random points, always the same ones for a sweep's name and space."""
    found: dict[str, Point] = {}
    source = random.Random(sweep.name)  # of its methods only random() is the same in every version of Python
    for _ in range(MOST_TRIES * sweep.trials):
        point = {path: _draw(path, values, source.random()) for path, values in sweep.space.items()}
        found.setdefault(repr(point), point)
        if len(found) == sweep.trials:
            return list(found.values())
    raise ConfigError(
        f"{sweep.where}: trials is {sweep.trials}, but only {len(found)} different points were found in the space; "
        "lower it, or give search: grid"
    )


def _draw(path: str, values: tuple[Value, ...] | Range, share: float) -> Value:
    """Return the value at a share of 0 to 1 (exclusive) of a list or range."""
    if not isinstance(values, Range):
        return values[int(share * len(values))]
    low, high, whole = values.low, values.high, field_type(path) == "int"
    if values.log:
        drawn = math.exp(math.log(low) + share * (math.log(high + whole) - math.log(low)))
    elif values.step or whole:
        step = values.step or 1
        drawn = low + step * int(share * (math.floor((high - low) / step + 1e-9) + 1))
    else:
        drawn = low + share * (high - low)
    return min(int(drawn), int(high)) if whole else min(max(float(f"{drawn:.{DIGITS}g}"), low), high)


# --- configurations and commands


def trial_config(sweep: Sweep, trial: Trial, overrides: Sequence[str]) -> Config:
    """Return the checked configuration of a trial's pipeline.

    Files come first, then the sweep's ``set``, the arm, the trial's values and its seed; ``key=value`` overrides come last.

    Raises:
        ConfigError: a value is wrong, fields contradict each other, or an override sets what the sweep varies.
    """
    config, _ = build([*sweep.layers, *_layers(sweep, trial), check_overrides(sweep, overrides)])
    check(config)
    return config


def _layers(sweep: Sweep, trial: Trial) -> Iterator[Layer]:
    yield Layer(sweep.where, {"name": sweep.name})
    yield Layer(f"{sweep.where}: set", sweep.set)
    yield Layer(f"{sweep.where}: arms.{trial.arm}", sweep.arms[trial.arm] if trial.arm else {})
    yield Layer(f"{sweep.where}: space", trial.values)
    yield Layer(f"{sweep.where}: seeds", {"seed": trial.seed})


def trial_command(sweep: Sweep, trial: Trial, overrides: Sequence[str]) -> str:
    """Return the command, ready for a shell, that runs the same pipeline as the trial does, alone."""
    layers = [*_layers(sweep, trial), check_overrides(sweep, overrides)]
    files = [word for path in sweep.config for word in ("--config", path)]
    values = overlaid(layer.values for layer in layers)
    return shlex.join(["python", SCRIPT, *files, *(f"{path}={_word(path, value)}" for path, value in values.items())])


def _word(path: str, value: Value) -> str:
    """Return a value as `from_overrides` reads it."""
    if path == PHASES:  # the number of its sections, whose fields follow
        return json.dumps([{}] * value) if isinstance(value, int) else str(value)
    if isinstance(value, str):
        return value
    if field_type(path) == "str":
        return ("yes" if value else "no") if isinstance(value, bool) else str(value)
    return json.dumps(value)


def check_overrides(sweep: Sweep, overrides: Sequence[str]) -> Layer:
    """Return ``key=value`` words for all trials as a layer.

    Raises:
        ConfigError: a key is unknown, a value cannot be read, or one is what the sweep varies itself.
    """
    layer = from_overrides(overrides)
    varied = {"seed": f"{sweep.where}: seeds", **dict.fromkeys(sweep.space, f"{sweep.where}: space")}
    for name, arm in sweep.arms.items():
        varied |= dict.fromkeys(arm, f"{sweep.where}: arms.{name}")
    for path, (other, where) in itertools.product(layer.values, varied.items()):
        if path == other or path.startswith(f"{other}[") or other.startswith(f"{path}["):
            raise ConfigError(
                f"{path} on the command line would be the same for all trials, but {where} varies "
                f"{other if other != path else 'it'}; change it there"
            )
    return layer


def check_trials(sweep: Sweep, overrides: Sequence[str]) -> tuple[list[Trial], list[str]]:
    """Build and check the configuration of every trial that `trials_of` knows; for ``tpe`` those at the space's corners.

    Returns:
        The trials to run, and one sentence for each that is left out because its fields contradict each other, which
        happens only with ``skip_invalid``.

    Raises:
        ConfigError: configurations cannot work, or a scheduler finds no milestones in them; each problem once.
    """
    trials = trials_of(sweep)
    configs: dict[str, Config] = {}
    problems: dict[str, str] = {}
    for trial in corners(sweep) if sweep.search == "tpe" else trials:
        try:
            configs[trial.id] = trial_config(sweep, trial, overrides)
        except InvalidConfigError as error:
            problems[_described(trial)] = str(error)
    if problems and not (sweep.skip_invalid and configs):
        raise ConfigError("\n".join(_once(sweep, problems)))
    if sweep.scheduler != "none":
        _check_milestones(sweep, list(configs.values()))
    left_out = [f"{trial}: {problem.splitlines()[0]}" for trial, problem in problems.items()]
    return [trial for trial in trials if trial.id in configs], left_out


def _described(trial: Trial) -> str:
    """Return what makes a trial: its arm, its values by path, its seed."""
    values = [f"{path}={_word(path, value)}" for path, value in trial.values.items()]
    return ", ".join([*([trial.arm] if trial.arm else []), *values, f"seed={trial.seed}"])


def _once(sweep: Sweep, problems: Mapping[str, str]) -> Iterator[str]:
    """Yield each different problem with the first trial that has it, and how many have it."""
    by_text: dict[str, list[str]] = {}
    for trial, problem in problems.items():
        by_text.setdefault(problem, []).append(trial)
    for problem, trials in by_text.items():
        others = f" and {len(trials) - 1} more" if len(trials) > 1 else ""
        yield f"{sweep.where}: trial {trials[0]}{others}: {problem}"
    if not sweep.skip_invalid and sweep.space:
        yield "with skip_invalid: true such combinations are left out"


def _check_milestones(sweep: Sweep, configs: Sequence[Config]) -> None:
    why = f"{sweep.where}: scheduler is '{sweep.scheduler}', which decides at milestones"
    if not all(config.diffusion.enabled for config in configs):
        raise ConfigError(f"{why}, but diffusion.enabled is false in a trial; enable it, or give scheduler: none")
    found = sorted({tuple(config.diffusion.milestones) for config in configs}, key=len)
    if any(len(milestones) < 2 for milestones in found):
        raise ConfigError(
            f"{why}, but diffusion.milestones is {list(found[0])} in a trial; give 2 or more, such as [16000, 64000]"
        )
    if len(found) > 1:
        two = " and ".join(str(list(milestones)) for milestones in sorted(found)[:2])
        raise ConfigError(f"{why}, but diffusion.milestones differ between trials ({two}); give all the same in 'set'")
