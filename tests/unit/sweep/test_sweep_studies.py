"""The studies and sweeps that come with the project: each can start at every scale, and they share what they can."""

from functools import cache
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from dcae15.config import warnings_for
from dcae15.errors import ConfigError
from dcae15.plan import plan
from dcae15.sweep.metrics import check_metrics
from dcae15.sweep.reading import sweep_from_yaml
from dcae15.sweep.trials import check_trials, trial_config

CONFIGS = Path(__file__).parents[3] / "pipelines" / "configs"
FILES = sorted([*CONFIGS.glob("studies/*.yaml"), *CONFIGS.glob("sweeps/*.yaml")])
AND_SCALES = [(path, scale) for path in FILES for scale in OmegaConf.load(path).get("scales", [""])]
GIVEN = ["data.source=s3://a/b", "autoencoder.losses.perceptual.vgg=/v", "autoencoder.losses.perceptual.heads=/h"]
TRIALS = {
    "channel_count": (16, 16),
    "channels_cpu": (15,),
    "convergence": (36, 12, 36, 36),
    "mask_strategy": (18, 18),
    "partial_reconstruction": (3, 2),
    "sparsity": (16, 12),
    "sparsity_metrics": (0, 0),
    "structure": (2,),
}


@cache
def opened(path, scale):
    return sweep_from_yaml(path.read_text(), str(path), scale)


def given(scale):
    return GIVEN if "imagenet" in scale else []


@cache
def checked(path, scale):
    return check_trials(opened(path, scale), given(scale))[0]


@cache
def configs(path, scale):
    """Return the configurations of all trials; at ImageNet's scale, where they take long, of one of each arm."""
    trials = checked(path, scale)
    chosen = {trial.arm: trial for trial in trials}.values() if given(scale) else trials
    return [trial_config(opened(path, scale), trial, given(scale)) for trial in chosen]


def included(sweep, scale):
    return [config for name in sweep.include for config in configs(CONFIGS / "studies" / f"{name}.yaml", scale)]


@pytest.mark.parametrize(("path", "scale"), AND_SCALES, ids=[f"{path.stem}-{scale}" for path, scale in AND_SCALES])
def test_every_file_can_start_at_every_scale(path, scale):
    sweep = opened(path, scale)
    assert sweep.question and (sweep.figures or path.parent.name == "sweeps")
    check_metrics(sweep, [*configs(path, scale), *included(sweep, scale)])


def test_the_trials_are_as_many_as_the_files_say():
    counts = {}
    for path, scale in AND_SCALES:
        counts[path.stem] = (*counts.get(path.stem, ()), len(checked(path, scale)))
    assert counts == TRIALS


@pytest.mark.parametrize("name", ["sparsity", "channel_count", "mask_strategy", "convergence", "structure"])
def test_every_study_repeats_with_several_seeds(name):
    least = 3 if name == "convergence" else 2
    assert len(opened(CONFIGS / "studies" / f"{name}.yaml", "" if name == "structure" else "laptop").seeds) >= least


def test_studies_share_autoencoders_and_denoisers():
    made = {}
    for path in FILES:
        for config in configs(path, "laptop" if (path, "laptop") in AND_SCALES else ""):
            for step in plan(config).steps:
                made.setdefault((path.stem, step.stage.makes.KIND), set()).add(step.output.fingerprint)
    assert made["sparsity", "autoencoder"] == made["channel_count", "autoencoder"]
    assert len(made["partial_reconstruction", "autoencoder"] & made["channel_count", "autoencoder"]) == 4
    assert made["partial_reconstruction", "autoencoder"] == made["convergence", "autoencoder"]
    assert len(made["mask_strategy", "denoiser"] & made["channel_count", "denoiser"]) == 4
    assert len(made["channels_cpu", "autoencoder"]) == 15


def test_no_study_sets_what_has_no_effect_but_the_masks_of_an_arm_without():
    for path, scale in AND_SCALES:
        sweep = opened(path, scale)
        own = {*sweep.set, *sweep.space}.union(*sweep.arms.values())  # a base file may hold more
        for warning in (words for config in configs(path, scale) for words in warnings_for(config)):
            fields, without_effect, _ = warning.partition(": no effect, because ")
            foreign = without_effect and own.isdisjoint(fields.split(", "))
            assert foreign or "prefix.kind is 'none'" in warning, warning


def test_imagenet_asks_for_the_images_and_the_weights_that_are_not_ours():
    with pytest.raises(ConfigError) as caught:
        check_trials(opened(CONFIGS / "studies" / "convergence.yaml", "imagenet"), [])
    assert all(word.partition("=")[0] in str(caught.value) for word in GIVEN)
