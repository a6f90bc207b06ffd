"""The trials of a sweep, and the configuration and command of each."""

import shlex
from dataclasses import replace

import pytest

from dcae15.cli import FULL, parse
from dcae15.errors import ConfigError
from dcae15.sweep.file import Range
from dcae15.sweep.reading import sweep_from_yaml
from dcae15.sweep.trials import check_trials, make_trial, trial_command, trial_config, trials_of

GRID = """
name: mine
set: {diffusion: {prefix: {first: '${autoencoder.prefix.first}', step: 4}}}
arms: {small: {diffusion.denoiser.depth: 1}, large: {diffusion.denoiser.depth: 2}}
seeds: [0, 3]
space: {autoencoder: {latent_channels: [8, 16], prefix.first: [2, 4, 12]}}
"""
RANDOM = """
name: mine
search: random
trials: 40
space:
  diffusion.training.learning_rate: {low: 1e-4, high: 1e-2, log: true}
  diffusion.denoiser.depth: {low: 1, high: 3}
  diffusion.prefix.step: {low: 4, high: 12, step: 4}
  diffusion.denoiser.width: {low: 4, high: 4096, log: true}
  diffusion.scaling: [scalar, per_channel]
  diffusion.denoiser.label_std: {low: 0.5, high: 1}
"""


def sweep(text=GRID, **changes):
    return replace(sweep_from_yaml(text, "mine.yaml"), **changes)


def test_a_grid_is_every_combination_of_arms_seeds_and_values():
    trials = trials_of(sweep())
    assert len(trials) == len({trial.id for trial in trials}) == 2 * 2 * 6
    assert {(t.arm, t.seed, *t.values.values()) for t in trials} == {
        (arm, seed, c, first) for arm in ("small", "large") for seed in (0, 3) for c in (8, 16) for first in (2, 4, 12)
    }


def test_an_id_is_of_arm_seed_values_and_name_alone():
    values = {"autoencoder.latent_channels": 8, "autoencoder.prefix.first": 2}
    other = {**values, "autoencoder.prefix.first": 4}
    named = [(values, "small"), (values, "large"), (values, "small", 3), (other, "small")]
    ids = [make_trial(sweep(), *arguments).id for arguments in named]
    assert len({*ids, make_trial(sweep(name="theirs"), values, "small").id}) == 5
    assert ids[0] == "c464a7d286"  # an interrupted sweep finds its records again by it
    assert make_trial(sweep(seeds=(9,)), dict(reversed(values.items())), "small").id == ids[0]


def test_random_draws_are_always_the_same_different_and_inside():
    trials = trials_of(sweep(RANDOM))
    assert [t.id for t in trials] == [t.id for t in trials_of(sweep(RANDOM))]
    assert [t.id for t in trials[:9]] == [t.id for t in trials_of(sweep(RANDOM, trials=9))]
    assert len({t.id for t in trials}) == 40
    rates, depths, steps, widths, scalings, stds = zip(*(t.values.values() for t in trials), strict=True)
    assert all(1e-4 <= rate <= 1e-2 for rate in rates) and 10 < sum(rate < 1e-3 for rate in rates) < 30
    assert set(depths) == {1, 2, 3} and set(steps) == {4, 8, 12} and set(scalings) == {"scalar", "per_channel"}
    assert all(isinstance(width, int) and 4 <= width <= 4096 for width in widths)
    assert 10 < sum(width < 128 for width in widths) < 30
    assert all(0.5 <= std <= 1 for std in stds)


def test_every_arm_and_seed_has_the_same_draws():
    trials = trials_of(sweep(RANDOM, arms={"a": {}, "b": {"arms": []}}, seeds=(0, 1), trials=5))
    points = {(t.arm, t.seed): [] for t in trials}
    for t in trials:
        points[t.arm, t.seed].append(t.values)
    assert len(points) == 4 and all(len(drawn) == 5 and drawn == points["a", 0] for drawn in points.values())


def test_draws_from_few_points_are_all_of_them():
    few = sweep(RANDOM, space={"diffusion.denoiser.depth": Range(1, 3), "diffusion.scaling": ("scalar",)}, trials=3)
    assert sorted(t.values["diffusion.denoiser.depth"] for t in trials_of(few)) == [1, 2, 3]


def test_a_study_that_only_includes_others_has_no_trials_of_its_own():
    assert trials_of(sweep_from_yaml("name: both\ninclude: [one, two]\nseeds: [0, 1]", "both.yaml")) == []


def test_later_layers_win(tmp_path):
    (tmp_path / "base.yaml").write_text("name: base\narms: []\ndata: {limit: 5, val_fraction: 0.5}")
    text = GRID + "config: base.yaml"
    found = sweep_from_yaml(text.replace("set: {", "set: {data.limit: 6, "), str(tmp_path / "mine.yaml"))
    trial = make_trial(found, {"autoencoder.latent_channels": 16, "autoencoder.prefix.first": 4}, "large", 3)
    config = trial_config(found, trial, ["data.val_fraction=0.25", "storage=/there"])
    assert (config.name, config.seed, config.arms, config.storage) == ("mine", 3, [], "/there")
    assert (config.data.limit, config.data.val_fraction) == (6, 0.25)
    assert (config.autoencoder.latent_channels, config.diffusion.denoiser.depth) == (16, 2)
    assert config.diffusion.prefix.first == config.autoencoder.prefix.first == 4


PHASES = """
name: mine
config: base.yaml
set:
  data.source: "/my images/$HOME's"
  autoencoder.phases[1].training.images: 6400
  sampling.guidance: 1
  tracking.experiment: yes
  data.classes: ["a, b", c]
arms:
  none: {autoencoder.prefix.kind: none, diffusion.prefix.kind: none}
  two: {autoencoder.phases: [{name: x}, {parts: [decoder], losses.l1: 2}]}
space: {diffusion.training.learning_rate: [1.0e-05, 3]}
"""
BASE = """
autoencoder: {phases: [{name: a}, {name: b, training: {images: 3200}}], prefix: {first: 8, step: 8}}
diffusion: {prefix: {first: 8, step: 8}}
"""


@pytest.mark.parametrize("arm", ["none", "two"])
@pytest.mark.parametrize("overrides", [[], ["scaling.encoders=[1,2]", "name=other", "storage=~/my results"]])
def test_the_command_runs_the_same_pipeline(tmp_path, arm, overrides):
    (tmp_path / "base.yaml").write_text(BASE)
    found = sweep_from_yaml(PHASES, str(tmp_path / "mine.yaml"))
    for trial in (t for t in trials_of(found) if t.arm == arm):
        python, script, *words = shlex.split(trial_command(found, trial, overrides))
        config = trial_config(found, trial, overrides)
        assert (python, script) == ("python", "pipelines/full.py")
        asked, _ = parse(FULL, words)
        assert asked.config == config
        assert [p.name for p in config.autoencoder.phases] == {"none": ["a", "b"], "two": ["x", "training"]}[arm]


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("seed=4", ["seed on the command line", "mine.yaml: seeds varies it"]),
        ("autoencoder.prefix.first=4", ["mine.yaml: space varies it"]),
        ("diffusion.denoiser.depth=4", ["mine.yaml: arms.small varies it"]),
        ("data.limits=4", ["did you mean data.limit"]),
        ("data", ["'data' is not key=value"]),
    ],
)
def test_the_command_line_cannot_set_what_the_sweep_varies(word, named):
    found = sweep(arms={"small": {"diffusion.denoiser.depth": 1}})
    with pytest.raises(ConfigError) as caught:
        check_trials(found, ["storage=/x", word])
    assert [words for words in named if words not in str(caught.value)] == []


def test_combinations_that_contradict_themselves_are_refused_or_left_out():
    with pytest.raises(ConfigError) as caught:
        check_trials(sweep(), [])
    message, trial = str(caught.value), "small, autoencoder.latent_channels=8, autoencoder.prefix.first=12, seed=0"
    assert f"mine.yaml: trial {trial} and 3 more" in message
    assert "autoencoder.prefix.first is 12, more than the latent's 8 channels" in message and "skip_invalid" in message
    found = sweep_from_yaml(GRID + "skip_invalid: true\nscheduler: none", "mine.yaml")
    with pytest.raises(ConfigError, match="never trains"):  # step 4 of the autoencoder's own default starts elsewhere
        check_trials(replace(found, set={"diffusion.prefix.first": 3}), [])
    trials, left_out = check_trials(found, [])
    assert len(trials) == 20 and len(left_out) == 4
    assert all("prefix.first is 12, more than" in sentence for sentence in left_out)
    assert {(8, 12)}.isdisjoint(tuple(t.values.values()) for t in trials)


def test_a_value_out_of_range_is_left_out_like_a_contradiction():
    found = sweep_from_yaml("name: mine\nspace: {sampling.guidance: [2, -4]}", "mine.yaml")
    with pytest.raises(ConfigError) as caught:
        check_trials(found, [])
    assert "mine.yaml: trial sampling.guidance=-4, seed=0: sampling.guidance is -4; it must be" in str(caught.value)
    trials, left_out = check_trials(replace(found, skip_invalid=True), [])
    assert (len(trials), len(left_out)) == (1, 1)


def test_a_value_of_a_wrong_type_is_never_left_out():
    found = sweep_from_yaml("name: mine\nskip_invalid: true\nspace: {tracking.enabled: [true, maybe]}", "mine.yaml")
    with pytest.raises(
        ConfigError, match=r"tracking\.enabled is 'maybe' \(mine.yaml: space\); it must be true or false"
    ):
        check_trials(found, [])


def test_the_corners_of_a_space_are_tried_before_it_is_searched():
    text = "name: mine\nsearch: tpe\ntrials: 9\nspace: {autoencoder.prefix: {first: {low: 4, high: %d}, step: [4, 8]}}"
    fine, wrong = (sweep_from_yaml(text % high, "mine.yaml") for high in (32, 33))
    fine = replace(fine, set={"diffusion.prefix.kind": "none"})
    assert check_trials(fine, []) == ([], []) and trials_of(fine) == []
    with pytest.raises(ConfigError, match=r"autoencoder\.prefix\.first is 33, more than the latent's 32 channels"):
        check_trials(replace(wrong, set=fine.set), [])
