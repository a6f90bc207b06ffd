"""The loop on a small autoencoder and a small denoiser: exact resume, any number of workers, guards."""

from pathlib import Path

import pytest
import torch

from dcae15 import artifacts, storage
from dcae15.errors import ConfigError, TrainingError
from dcae15.runtime import LocalRuntime
from dcae15.training.checkpoint import Checkpoints
from dcae15.training.trainer import _require_finite
from tests.unit.training.small import StopError, StoppingTracker, run, small_config


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, image_set, latent_set) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("undisturbed")
    return {
        stage: run(stage, small_config(), source, folder / "k" / stage)
        for stage, source in (("autoencoder", image_set), ("denoiser", latent_set))
    }


@pytest.mark.parametrize("stage", ["autoencoder", "denoiser"])
@pytest.mark.parametrize("stops", [[1], [2], [3, 1], [2, 2]], ids=str)
def test_a_stopped_and_continued_run_ends_with_the_same_bits(
    tmp_path, image_set, latent_set, undisturbed, stage, stops
):
    config, source = small_config(), image_set if stage == "autoencoder" else latent_set
    out = str(tmp_path / "kind" / "b")
    for stop in stops:
        with pytest.raises(StopError):
            run(stage, config, source, out, StoppingTracker(stop))
        assert not artifacts.finished(out)
    assert run(stage, config, source, out) == undisturbed[stage]
    images = [row["images"] for row in artifacts.read_history(out)]
    assert images == sorted(set(images)), "the history has each row once"
    assert images[-1] == 160
    assert not storage.exists(storage.join(out, artifacts.CHECKPOINTS)), "checkpoints go once the result is there"


def test_the_loss_falls_and_another_seed_gives_other_weights(tmp_path, image_set, undisturbed):
    config = small_config(images=640, learning_rate=2e-3)
    run("autoencoder", config, image_set, str(tmp_path / "k" / "a"))
    rows = artifacts.read_history(str(tmp_path / "k" / "a"))
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    assert {"learning_rate", "gradient_norm", "images_per_second", "data_wait"} <= rows[0].keys()
    config = small_config()
    config.seed = 1
    assert run("autoencoder", config, image_set, str(tmp_path / "k" / "b")) != undisturbed["autoencoder"]


def test_training_leaves_the_global_generator_alone(tmp_path, image_set):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    run("autoencoder", small_config(images=32), image_set, str(tmp_path / "k" / "a"))
    assert torch.equal(torch.rand(1), expected)


def test_a_gradient_that_is_not_finite_stops_before_the_update(tmp_path, image_set):
    config = small_config(learning_rate=1e12, clip_norm=0.0, warmup_images=0, images=1600, checkpoint_images=16)
    out = str(tmp_path / "k" / "a")
    with pytest.raises(
        TrainingError, match=r"not finite after \d+ images \(it is NaN; .*lower training\.learning_rate"
    ):
        run("autoencoder", config, image_set, out)
    saved = Checkpoints(storage.join(out, artifacts.CHECKPOINTS)).latest()
    assert saved is not None
    assert all(bool(torch.isfinite(v).all()) for v in saved["network"].values())


def test_before_the_first_step_no_learning_rate_is_blamed():
    scalars = {"gradient_norm": torch.tensor(float("inf")), "loss": torch.tensor(3.0)}
    with pytest.raises(TrainingError, match=r"after 0 images \(it overflows; loss 3 .*no step was taken yet") as error:
        _require_finite(scalars, 0)
    assert "learning_rate" not in str(error.value)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, image_set, undisturbed):
    config = small_config()
    out = tmp_path / "k" / "b"
    with pytest.raises(StopError):
        run("autoencoder", config, image_set, str(out), StoppingTracker(4))
    files = sorted(Path(out, artifacts.CHECKPOINTS).glob("*.pt"))
    assert len(files) == 2
    files[-1].write_bytes(files[-1].read_bytes()[:-1000])
    assert run("autoencoder", config, image_set, str(out)) == undisturbed["autoencoder"]


def test_a_batch_that_workers_cannot_share_names_the_fields(tmp_path, image_set):
    runtime = LocalRuntime(world=3, device=torch.device("cpu"))
    with pytest.raises(ConfigError, match=r"batch_size 16 .* 3 workers"):
        run("autoencoder", small_config(), image_set, str(tmp_path / "k" / "a"), runtime=runtime)


def test_prefixes_that_the_autoencoder_never_saw_are_refused(tmp_path, latent_set):
    config = small_config()
    config.diffusion.prefix.choices = [2, 8]
    with pytest.raises(ConfigError, match=r"\[2\] channels that the autoencoder never saw"):
        run("denoiser", config, latent_set, str(tmp_path / "k" / "a"))


def test_an_image_size_that_does_not_fit_names_the_field(tmp_path, image_set):
    config = small_config()
    config.autoencoder.encoder_widths = config.autoencoder.decoder_widths = [8] * 6
    config.autoencoder.encoder_depths = config.autoencoder.decoder_depths = [0, 1, 1, 1, 1, 1]
    with pytest.raises(ConfigError, match=r"16 pixels .* 32-fold; change data.resolution"):
        run("autoencoder", config, image_set, str(tmp_path / "k" / "a"))
