"""Peak learning rates from milestones on: what names a training, what is refused, and what a training then does."""

import dataclasses

import pytest

from dcae15.config import build, check, fingerprint, from_overrides, prefix_fields, result_fields
from dcae15.errors import ConfigError
from dcae15.orchestration.plan import plan
from dcae15.training import stages
from tests.unit.training.small import StopError, StoppingTracker, run, small_config

MILESTONES = "diffusion.milestones=[48,96]"


def named(*words):
    config, _ = build([from_overrides(["storage=/nowhere", *words])])
    return {stage.name: stage.fingerprint for stage in plan(config)}


def changed(*words):
    before, after = named(MILESTONES), named(MILESTONES, *words)
    return [name for name in before if before[name] != after[name]]


def test_rates_name_the_denoiser():
    assert changed("diffusion.learning_rates=[1e-4]") == ["train_diffusion", "measure_milestones", "sample", "evaluate"]
    several = [named(MILESTONES, f"diffusion.learning_rates={rates}") for rates in ("[1e-4]", "[2e-4]", "[1e-4,2e-4]")]
    assert len({names["train_diffusion"] for names in several}) == 3


def test_without_rates_a_denoiser_has_the_name_that_it_had_before_there_were_any():
    config, _ = build([from_overrides(["storage=/nowhere"])])
    planned = {stage.name: stage for stage in plan(config)}
    fields = {**result_fields(config.diffusion), "seed": config.seed}
    fields["prefix"] = prefix_fields(config.diffusion.prefix, config.autoencoder.latent_channels)
    del fields["milestones"], fields["learning_rates"]
    inputs = {"latents": planned["cache_latents"].fingerprint}
    assert planned["train_diffusion"].fingerprint == fingerprint("denoiser", {**fields, "inputs": inputs})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("diffusion.learning_rates=[1e-4]",),
            "learning_rates has 1 values, one from each milestone on, but .* only 0",
        ),
        (
            (MILESTONES, "diffusion.learning_rates=[1e-4,1e-4,1e-4]"),
            "3 values, .*; give fewer values or more milestones",
        ),
        ((MILESTONES, "diffusion.learning_rates=[0]"), r"diffusion\.learning_rates is \[0.*\]; it must be above 0"),
    ],
    ids=str,
)
def test_rates_that_cannot_be_are_refused(words, message):
    config, _ = build([from_overrides(words)])
    with pytest.raises(ConfigError, match=message):
        check(config)


def with_rates(*rates, **training):
    config = small_config(log_images=16, learning_rate=1e-3, schedule="constant", **training)
    diffusion = dataclasses.replace(config.diffusion, milestones=[40, 96], learning_rates=list(rates))
    return dataclasses.replace(config, diffusion=diffusion)


def rates_of(out):
    return {int(row["images"]): row["learning_rate"] for row in stages.read_history(out)}


def test_a_rate_holds_from_its_milestone_on(tmp_path, latent_set):
    plain, changed = str(tmp_path / "k" / "plain"), str(tmp_path / "k" / "changed")
    before, after = (
        run("denoiser", with_rates(), latent_set, plain),
        run("denoiser", with_rates(2e-3, 5e-4), latent_set, changed),
    )
    assert rates_of(plain) == {16: 5e-4} | dict.fromkeys(range(32, 161, 16), 1e-3)  # half of it while it warms up
    # The milestone at 40 images is the whole batch that ends at 48: the step after it is the first with another rate.
    assert rates_of(changed) == {16: 5e-4, 32: 1e-3, 48: 1e-3, 64: 2e-3, 80: 2e-3, 96: 2e-3} | dict.fromkeys(
        range(112, 161, 16), 5e-4
    )
    assert before != after


def test_the_schedule_acts_on_the_rate_of_the_moment(tmp_path, latent_set):
    config, out = with_rates(2e-3), str(tmp_path / "k" / "a")
    config.diffusion.training = dataclasses.replace(config.diffusion.training, schedule="cosine")
    run("denoiser", config, latent_set, out)
    halved = dataclasses.replace(config, diffusion=dataclasses.replace(config.diffusion, learning_rates=[]))
    run("denoiser", halved, latent_set, str(tmp_path / "k" / "b"))
    twice = {images: rate * (2 if images > 48 else 1) for images, rate in rates_of(str(tmp_path / "k" / "b")).items()}
    assert rates_of(out) == pytest.approx(twice)


@pytest.mark.parametrize("rows", [[3], [4], [2, 7]], ids=str)
def test_a_training_that_is_killed_goes_on_with_the_rate_of_the_moment(tmp_path, latent_set, rows):
    config, out = with_rates(2e-3, 5e-4, checkpoint_images=48), str(tmp_path / "k" / "killed")
    whole = run("denoiser", config, latent_set, str(tmp_path / "k" / "whole"))
    for after in rows:
        with pytest.raises(StopError):
            run("denoiser", config, latent_set, out, tracker=StoppingTracker(after))
    assert run("denoiser", config, latent_set, out) == whole
    assert rates_of(out) == rates_of(str(tmp_path / "k" / "whole"))
