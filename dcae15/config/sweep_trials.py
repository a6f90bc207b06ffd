"""The trials of a sweep, and the configuration and the command of each."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence

from dcae15.config.checks import check
from dcae15.config.layers import Layer, build, field_of, from_overrides, is_list_of_sections, overlaid
from dcae15.config.schema import Config
from dcae15.config.space import Point, corners, draws, grid
from dcae15.config.sweep import Sweep, Trial, Value
from dcae15.errors import ConfigError

SCRIPT = "pipelines/full.py"


def make_trial(sweep: Sweep, values: Mapping[str, Value], arm: str = "", seed: int = 0) -> Trial:
    """Return the trial of an arm, a seed and a point of the space; the same three always have the same id."""
    text = json.dumps({"sweep": sweep.name, "arm": arm, "seed": seed, "values": dict(values)}, sort_keys=True)
    return Trial(hashlib.sha256(text.encode()).hexdigest()[:10], arm, seed, dict(values))


def trials_of(sweep: Sweep) -> list[Trial]:
    """Return the trials that are known beforehand: all of a grid or of random draws, none of ``tpe``, which learns on its way.

    Every arm has the same points, so that arms compare. A sweep that only includes others has none of its own.
    """
    if sweep.search == "tpe" or (sweep.include and not (sweep.arms or sweep.space)):
        return []
    return _trials_at(sweep, grid(sweep) if sweep.search == "grid" else draws(sweep))


def _trials_at(sweep: Sweep, points: Sequence[Point]) -> list[Trial]:
    return [
        make_trial(sweep, point, arm, seed) for seed in sweep.seeds for arm in sweep.arms or [""] for point in points
    ]


def trial_config(sweep: Sweep, trial: Trial, overrides: Sequence[str]) -> Config:
    """Return the checked configuration of a trial's pipeline.

    Files come first, then the sweep's ``set``, the arm, the trial's values and its seed; ``key=value`` overrides come last.

    Raises:
        ConfigError: a value is wrong, fields contradict each other, or an override sets what the sweep varies.
    """
    config = _built(sweep, trial, overrides)
    check(config)
    return config


def _built(sweep: Sweep, trial: Trial, overrides: Sequence[str]) -> Config:
    given = check_overrides(sweep, overrides)
    return build([*sweep.layers, *_layers(sweep, trial), given])[0]


def _layers(sweep: Sweep, trial: Trial) -> Iterator[Layer]:
    of = sweep.origin or sweep.name
    yield Layer(of, {"name": sweep.name})
    yield Layer(f"{of}: set", sweep.set)
    yield Layer(f"{of}: arms.{trial.arm}", sweep.arms[trial.arm] if trial.arm else {})
    yield Layer(f"{of}: space", trial.values)
    yield Layer(f"{of}: seeds", {"seed": trial.seed})


def trial_command(sweep: Sweep, trial: Trial, overrides: Sequence[str]) -> str:
    """Return the command, ready for a shell, that runs the same pipeline as the trial does, alone."""
    layers = [*_layers(sweep, trial), check_overrides(sweep, overrides)]
    files = [word for path in sweep.config for word in ("--config", path)]
    values = overlaid(layer.values for layer in layers)
    return shlex.join(["python", SCRIPT, *files, *(f"{path}={_word(path, value)}" for path, value in values.items())])


def _word(path: str, value: Value) -> str:
    """Return a value as `from_overrides` reads it."""
    if is_list_of_sections(path):  # the number of its sections, whose fields follow
        return json.dumps([{}] * value) if isinstance(value, int) else str(value)
    if isinstance(value, str):
        return value
    if field_of(path).type == "str":
        return ("yes" if value else "no") if isinstance(value, bool) else str(value)
    return json.dumps(value)


def check_overrides(sweep: Sweep, overrides: Sequence[str]) -> Layer:
    """Return ``key=value`` words for all trials as a layer.

    Raises:
        ConfigError: a key is unknown, a value cannot be read, or one is what the sweep varies itself.
    """
    layer = from_overrides(overrides)
    of = sweep.origin or sweep.name
    varied = {"seed": f"{of}: seeds", **dict.fromkeys(sweep.space, f"{of}: space")}
    for name, arm in sweep.arms.items():
        varied |= dict.fromkeys(arm, f"{of}: arms.{name}")
    for path in layer.values:
        for other, where in varied.items():
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
    for trial in trials or (_trials_at(sweep, corners(sweep)) if sweep.search == "tpe" else []):
        config = _built(sweep, trial, overrides)
        try:
            check(config)
        except ConfigError as error:
            problems[describe(trial)] = str(error)
        else:
            configs[trial.id] = config
    if problems and not (sweep.skip_invalid and configs):
        raise ConfigError("\n".join(_once(sweep, problems)))
    if sweep.scheduler != "none":
        _check_milestones(sweep, list(configs.values()))
    left_out = [f"{trial}: {problem.splitlines()[0]}" for trial, problem in problems.items()]
    return [trial for trial in trials if trial.id in configs], left_out


def describe(trial: Trial) -> str:
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
        yield f"{sweep.origin or sweep.name}: trial {trials[0]}{others}: {problem}"
    if not sweep.skip_invalid and sweep.space:
        yield "with skip_invalid: true such combinations are left out"


def _check_milestones(sweep: Sweep, configs: Sequence[Config]) -> None:
    of, why = sweep.origin or sweep.name, f"scheduler is '{sweep.scheduler}', which decides at milestones"
    if not all(config.diffusion.enabled for config in configs):
        raise ConfigError(f"{of}: {why}, but diffusion.enabled is false in a trial; enable it, or give scheduler: none")
    found = {tuple(config.diffusion.milestones) for config in configs}
    if any(len(milestones) < 2 for milestones in found):
        fewest = list(min(found, key=len))
        raise ConfigError(
            f"{of}: {why}, but diffusion.milestones is {fewest} in a trial; give 2 or more, such as [16000, 64000]"
        )
    if len(found) > 1:
        two = " and ".join(str(list(milestones)) for milestones in sorted(found)[:2])
        raise ConfigError(
            f"{of}: {why}, but diffusion.milestones differ between trials ({two}); give all the same in 'set'"
        )
