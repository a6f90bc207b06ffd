"""A sweep's file: what it says, and what is refused before anything starts; `tests/wrong_inputs.py` has more."""

from dataclasses import replace

import pytest

from dcae15 import storage
from dcae15.errors import ConfigError
from dcae15.sweep.file import Figure, Range
from dcae15.sweep.reading import sweep_from_yaml
from dcae15.sweep.trials import check_trials

SPACE = "space: {autoencoder.prefix.first: [2, 4]}\n"
RANDOM = "search: random\ntrials: 3\n"


def sweep(text, scale="", origin="studies/mine.yaml"):
    return sweep_from_yaml(f"name: mine\n{text}", origin, scale)


def refusal(text, scale=""):
    with pytest.raises(ConfigError) as caught:
        check_trials(sweep(text, scale), [])
    return str(caught.value)


def test_fields_may_be_nested_or_dotted_and_ranges_beside_lists():
    found = sweep(
        """
question: Which?
set: {diffusion: {training.images: 6400, scaling: per_channel}, arms: []}
arms: {plain: {autoencoder: {prefix: {kind: none}}}, ours: }
seeds: [0, 7]
space:
  diffusion:
    prefix: {step: [2, 4]}
    training.learning_rate: {low: 1e-4, high: 1e-2, log: true}
  autoencoder.prefix.first: {low: 2, high: 8, step: 2}
search: random
trials: 5
figures: [{kind: against, measures: [psnr.structured.all, frechet_distance.generated], title: One}]
"""
    )
    assert found.set == {"diffusion.training.images": 6400, "diffusion.scaling": "per_channel", "arms": []}
    assert found.arms == {"plain": {"autoencoder.prefix.kind": "none"}, "ours": {}}
    assert found.space == {
        "diffusion.prefix.step": (2, 4),
        "diffusion.training.learning_rate": Range(1e-4, 1e-2, log=True),
        "autoencoder.prefix.first": Range(2, 8, step=2),
    }
    assert (found.seeds, found.trials, found.question, found.origin) == ((0, 7), 5, "Which?", "studies/mine.yaml")
    assert found.figures == (Figure("against", ("psnr.structured.all", "frechet_distance.generated"), title="One"),)


SCALES = """
seeds: [0]
set: {autoencoder: {latent_channels: 16, training.images: 6400}}
default_scale: small
scales:
  small:
  large: {seeds: [0, 1], set: {autoencoder.latent_channels: 64}, config: ../large.yaml}
"""


def test_a_scale_takes_the_place_of_keys_and_comes_over_what_is_set(tmp_path):
    (tmp_path / "large.yaml").write_text("arms: []")
    origin = str(tmp_path / "studies" / "mine.yaml")
    small, large = sweep(SPACE + SCALES, "", origin), sweep(SPACE + SCALES, "large", origin)
    assert (small.scale, small.seeds, large.scale, large.seeds) == ("small", (0,), "large", (0, 1))
    assert small.set["autoencoder.latent_channels"] == 16
    assert large.set == {"autoencoder.latent_channels": 64, "autoencoder.training.images": 6400}
    assert large.config == (str(tmp_path / "large.yaml"),) and large.layers[0].values == {"arms": []}
    assert replace(large, scale="", seeds=(0,), config=(), layers=(), set=small.set) == replace(small, scale="")


@pytest.mark.parametrize(
    ("origin", "path", "opened"),
    [
        ("memory://bucket/a/studies/mine.yaml", "../base.yaml", "memory://bucket/a/base.yaml"),
        ("{tmp}/a/mine.yaml", "../base.yaml", "{tmp}/base.yaml"),
        ("mine.yaml", "{tmp}/base.yaml", "{tmp}/base.yaml"),
        ("s3://bucket/mine.yaml", "{tmp}/base.yaml", "{tmp}/base.yaml"),
    ],
)
def test_files_are_relative_to_the_folder_of_the_sweep(tmp_path, origin, path, opened):
    origin, path, opened = (text.format(tmp=tmp_path) for text in (origin, path, opened))
    storage.write_bytes(opened, b"arms: [baseline]")
    assert sweep(f"{SPACE}config: {path}", origin=origin).config == (opened,)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", ["is not valid YAML"]),
        (SPACE + "layers: []", ["'layers' is no key of a sweep"]),
        (SPACE + "default_scale: small", ["default_scale is 'small'", "the file has no scales"]),
        (SPACE + "scales: {small: {}}", ["default_scale is missing", "small"]),
        (SPACE + "default_scale: smal\nscales: {small: {}}", ["default_scale is 'smal'", "did you mean 'small'"]),
        (SPACE + "default_scale: small\nscales: {small: {seds: [0]}}", ["scales.small: 'seds'", "'seeds'"]),
        (SPACE + "seeds: []", ["seeds is empty"]),
        (SPACE + "seeds: [1, 1]", ["seeds [1, 1] has one twice"]),
        (SPACE + "seeds: [-1]", ["seeds[0] is -1; it must be at least 0"]),
        (SPACE + "seeds: [0.5]", ["seeds[0] is '0.5'; it must be a whole number"]),
        (SPACE + "seeds: [true]", ["seeds[0] is 'True'; it must be a whole number"]),
        (SPACE + "skip_invalid: 3", ["skip_invalid is '3'", "true or false"]),
        (SPACE + "metric: ''", ["metric is empty"]),
        (SPACE + "search: girds", ["search is 'girds'", "grid, random, tpe"]),
        (SPACE + "scheduler: ahsa", ["scheduler is 'ahsa'", "did you mean 'asha'"]),
        (SPACE + "scheduler: pbt", ["scheduler is 'pbt'; it must be one of none, asha"]),
        (SPACE + "mode: mini", ["mode is 'mini'", "did you mean 'min'"]),
        (SPACE + "reduction: 1", ["reduction is 1", "at least 2"]),
        (SPACE + "cpus_per_trial: 0", ["cpus_per_trial is 0", "at least 1"]),
        ("question: What?", ["nothing to vary", "give a space, or arms"]),
        ("space: {autoencoder.prefix.first: []}", ["space.autoencoder.prefix.first is an empty list"]),
        ("space: {autoencoder.prefix.first: [4, 4]}", ["space.autoencoder.prefix.first [4, 4] has a value twice"]),
        ("space: {autoencoder.prefix.frist: [4]}", ["mine.yaml: space", "did you mean autoencoder.prefix.first"]),
        ("space: {autoencoder.prefix.first: 4}", ["autoencoder.prefix.first is '4'", "a list of values"]),
        ("space: {autoencoder.prefix.first: {low: 2}}", ["a range such as {low: 1e-4, high: 1e-2, log: true}"]),
        (
            "space: {autoencoder.prefix.first: {low: 2, high: 4, setp: 1}}",
            ["space.autoencoder.prefix.first: 'setp' is no key of a range", "did you mean 'step'"],
        ),
        ("space: {autoencoder.phases: [{}]}", ["autoencoder.phases holds sections", "autoencoder.phases[0]"]),
        ("space: {seed: [0, 1]}", ["space has seed", "give them in 'seeds'"]),
        ("arms: {a: {storage: x}}", ["arms.a has storage", "command line"]),
        ("arms: {a: {diffusion.scalling: scalar}}", ["arms.a", "did you mean diffusion.scaling"]),
        (SPACE + "arms: {a: {autoencoder.prefix.first: 4}}", ["arms.a and space both have autoencoder.prefix.first"]),
        (SPACE + "set: {data.resolutoin: 64}", ["mine.yaml: set", "did you mean data.resolution"]),
        (SPACE + "set: 4", ["set is '4'", "a section"]),
        (SPACE + "trials: 4", ["trials is 4, but a grid runs every combination"]),
        ("space: {diffusion.training.learning_rate: {low: 1, high: 2}}", ["is a range, but search is 'grid'"]),
        (SPACE + "search: tpe", ["search is 'tpe'", "give trials"]),
        ("arms: {a: , b: }\n" + RANDOM, ["search is 'random', but there is no space"]),
        (SPACE + RANDOM, ["trials is 3, but the space has only 2 points"]),
        (SPACE + "search: tpe\ntrials: 2\nseeds: [0, 1]", ["search is 'tpe'", "seeds has 2"]),
        (SPACE + "search: tpe\ntrials: 2\narms: {a: {}, b: {}}", ["search is 'tpe'", "there are arms (a, b)"]),
        (SPACE + "figures: [{measures: [a]}]", ["figures[0].kind is missing"]),
        (SPACE + "figures: [{kind: per_arm, measures: []}]", ["figures[0].measures", "give 1 or more"]),
        (SPACE + "figures: [{kind: against, measures: [a]}]", ["figures[0].measures", "give 2 or more"]),
        (SPACE + "figures: [{kind: per_arm, measure: a}]", ["'measure' is no key of a figure", "'measures'"]),
        (SPACE + "figures: {kind: per_arm}", ["a list of figures"]),
        (SPACE + "figures: [{kind: over_field, measures: [a]}]", ["figures[0].field is ''"]),
        (SPACE + "figures: [{kind: per_arm, measures: [a], field: seed}]", ["figures[0].field is 'seed'"]),
        (
            SPACE + "figures: [{kind: over_field, measures: [a], field: autoencoder.prefix.fist}]",
            ["no space varies", "did you mean 'autoencoder.prefix.first'"],
        ),
        (
            "arms: {plain: , ours: }\nfigures: [{kind: over_images, measures: [a], reference: plan}]",
            ["reference is 'plan', which is no arm", "did you mean 'plain'"],
        ),
        (
            SPACE + "figures: [{kind: per_arm, measures: [a], reference: b}]",
            ["only figures of kind over_images and autoencoders"],
        ),
    ],
)
def test_what_is_wrong_is_named_with_file_and_key(text, named):
    message = refusal(text)
    assert "studies/mine.yaml" in message
    assert [words for words in named if words not in message] == []


@pytest.mark.parametrize(
    ("field", "values", "named"),
    [
        ("diffusion.training.learning_rate", "{low: 0, high: 1, log: true}", "a logarithm needs low above 0"),
        ("diffusion.training.learning_rate", "{low: 1, high: 2, log: true, step: 0.5}", "both log and step"),
        ("diffusion.training.learning_rate", "{low: 1, high: 2, step: 3}", "step 3; it must be above 0"),
        ("diffusion.training.learning_rate", "{low: 1, high: .inf}", "not finite"),
        ("diffusion.training.learning_rate", "{low: a, high: 2}", "low is 'a'; it must be a number"),
        ("diffusion.training.learning_rate", "{low: 1, high: 2, log: 1}", "log is '1'; it must be true or false"),
        ("autoencoder.prefix.first", "{low: 2.5, high: 4}", "whole numbers"),
        ("diffusion.scaling", "{low: 1, high: 2}", "the field holds no number (str)"),
    ],
)
def test_a_range_that_cannot_be_is_refused(field, values, named):
    message = refusal(f"{RANDOM}space: {{{field}: {values}}}")
    assert "studies/mine.yaml: space" in message and field in message and named in message


def test_a_sweep_has_a_name_and_a_known_scale():
    with pytest.raises(ConfigError, match=r"a\.yaml: name is missing"):
        sweep_from_yaml(SPACE, "a.yaml")
    with pytest.raises(ConfigError, match="name is 'a b'; it must be of letters"):
        sweep_from_yaml(f"name: a b\n{SPACE}", "a.yaml")
    with pytest.raises(ConfigError, match=r"has no scale 'larg'; it must be one of small, large; did you mean 'large'"):
        sweep(SPACE + SCALES, "larg")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.yaml cannot be read"):
        sweep_from_yaml(f"name: mine\n{SPACE}config: absent.yaml", str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("set: {diffusion.milestones: [64000]}", r"diffusion.milestones is \[64000\] in a trial; give 2 or more"),
        ("set: {diffusion: {milestones: [6400, 64000], enabled: false}}", "diffusion.enabled is false in a trial"),
        (
            "arms: {a: {diffusion.milestones: [6400, 64000]}, b: {diffusion.milestones: [3200, 64000]}}",
            r"diffusion.milestones differ between trials \(\[3200, 64000\] and \[6400, 64000\]\)",
        ),
    ],
)
def test_a_scheduler_needs_the_same_milestones_in_every_trial(text, named):
    space = "space: {autoencoder.training.learning_rate: [1e-3, 3e-3]}\n"
    with pytest.raises(ConfigError, match=named):
        check_trials(sweep(f"{space}scheduler: asha\n{text}"), [])
    assert check_trials(sweep(f"{space}{text}"), [])[1] == []
