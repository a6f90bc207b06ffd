"""Milestones: snapshots on the way and training in parts leave no trace in what the training ends with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load as from_safetensors

import dcae15
from dcae15 import artifacts, storage
from dcae15.config import Config, build, check, from_overrides
from dcae15.errors import ArtifactError, ConfigError
from dcae15.plan import plan
from dcae15.tracking import Tracker
from dcae15.training.checkpoint import Checkpoints
from tests.unit.training import small
from tests.unit.training.small import StopError, StoppingTracker, run, small_config, weights


def with_milestones(*images: int) -> Config:
    config = small_config()
    return config.changed(diffusion=config.diffusion.changed(milestones=list(images)))


def train(config: Config, latents: str, out: str | Path, until: int = 0, tracker: Tracker | None = None) -> None:
    small.train("denoiser", config, latents, out, until=until, tracker=tracker or Tracker())


def snapshots(out: str | Path) -> list[int]:
    return sorted(int(path.name) for path in Path(out, "milestones").iterdir() if artifacts.finished(str(path)))


def saved(out: str | Path) -> dict:
    found = Checkpoints(storage.join(str(out), artifacts.CHECKPOINTS)).latest()
    assert found is not None
    return found


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, latent_set: str) -> bytes:
    """The weights of a training without milestones: 160 images in batches of 16."""
    return run("denoiser", small_config(), latent_set, str(tmp_path_factory.mktemp("plain") / "k" / "a"))


@pytest.mark.parametrize(
    ("milestones", "kept"),
    [
        ([1, 15, 16, 17], [16, 32]),  # several in one batch are one; a batch is never cut
        ([48, 96, 160], [48, 96, 160]),  # at checkpoints, between them, and at the very last image
        ([151], [160]),
    ],
    ids=str,
)
def test_milestones_keep_the_denoiser_at_whole_batches_and_change_nothing(
    tmp_path, latent_set, plain, milestones, kept
):
    config, out = with_milestones(*milestones), tmp_path / "k" / "a"
    assert config.diffusion.whole_milestones == kept
    train(config, latent_set, out)
    assert weights(out) == plain
    assert snapshots(out) == kept
    assert [artifacts.Denoiser.open(artifacts.snapshot_uri(str(out), images)).images_seen for images in kept] == kept
    rows = [row["images"] for row in artifacts.read_history(str(out))]
    assert rows == sorted(set(rows))
    assert set(kept) <= set(rows)


def test_a_training_in_parts_ends_with_the_same_bits(tmp_path, latent_set, plain):
    config, out = with_milestones(20, 48, 100, 160), tmp_path / "k" / "a"
    for i, images in enumerate([32, 48, 112]):
        train(config, latent_set, out, until=images)
        assert snapshots(out) == [32, 48, 112][: i + 1]
        assert not artifacts.finished(str(out))
        assert saved(out)["images_seen"] == images, "it goes on where it stopped"
        snapshot = Path(artifacts.snapshot_uri(str(out), images), "weights.safetensors").read_bytes()
        average = saved(out)["average"]
        assert all(torch.equal(value, average[name]) for name, value in from_safetensors(snapshot).items())
        train(config, latent_set, out, until=images)
        assert saved(out)["images_seen"] == images, "the same call again does nothing"
    train(config, latent_set, out, until=160)
    assert artifacts.finished(str(out)), "the last milestone is the end"
    assert weights(out) == plain
    assert Path(artifacts.snapshot_uri(str(out), 160), "weights.safetensors").read_bytes() == plain[: len(plain) // 2]
    rows = [row["images"] for row in artifacts.read_history(str(out))]
    assert rows == sorted(set(rows))


@pytest.mark.parametrize("rows", [[1], [3], [2, 1], [3, 4]], ids=str)
def test_a_training_that_is_killed_between_milestones_ends_with_the_same_bits(tmp_path, latent_set, plain, rows):
    config, out = with_milestones(40, 100), tmp_path / "k" / "a"
    for after in rows:
        with pytest.raises(StopError):
            train(config, latent_set, out, tracker=StoppingTracker(after))
    for until in (48, 112, 0):
        train(config, latent_set, out, until)
    assert weights(out) == plain
    assert snapshots(out) == [48, 112]


def test_a_kill_between_a_snapshot_and_its_checkpoint_costs_only_the_way_back_there(
    tmp_path, latent_set, plain, monkeypatch
):
    def killed(self: Checkpoints, images: int, state: dict) -> None:
        raise StopError

    config, out = with_milestones(40, 100), tmp_path / "k" / "a"
    with monkeypatch.context() as patch, pytest.raises(StopError):
        patch.setattr(Checkpoints, "save", killed)
        train(config, latent_set, out, until=48)
    manifest = storage.join(artifacts.snapshot_uri(str(out), 48), artifacts.MANIFEST)
    version = storage.file_info(manifest).version
    train(config, latent_set, out, until=112)
    assert storage.file_info(manifest).version == version, "made once"
    train(config, latent_set, out)
    assert weights(out) == plain


def test_a_snapshot_is_a_denoiser_of_its_own(tmp_path, latent_set):
    out = tmp_path / "k" / "a"
    train(with_milestones(32), latent_set, out)
    snapshot = artifacts.snapshot_uri(str(out), 32)
    loaded = dcae15.load_denoiser(snapshot)
    assert loaded.artifact.images_seen == 32
    assert loaded.sample([0, 1]).shape == (2, 8, 4, 4)
    with pytest.raises(ArtifactError, match=f"{32 + 16:012d} does not exist"):
        dcae15.load_denoiser(artifacts.snapshot_uri(str(out), 48))
    config = Config(storage=str(tmp_path))
    of_end, of_snapshot = (
        next(step.output.uri for step in plan(config, {"denoiser": uri}).steps if step.name == "sample")
        for uri in (str(out), snapshot)
    )
    assert of_end != of_snapshot, "what a snapshot generated is not what the finished denoiser generates"


@pytest.mark.parametrize(
    ("milestones", "message"),
    [
        ([0, 32], r"diffusion\.milestones\[0\] is 0; it must be at least 1"),
        ([64, 32], r"\[64, 32\] must be ascending, without repeats"),
        ([32, 32], r"\[32, 32\] must be ascending, without repeats"),
        (
            [32, 161],
            r"ends with 161 images, beyond the training's diffusion.training.images 150; leave it out or train",
        ),
    ],
    ids=str,
)
def test_milestones_that_cannot_be_are_refused(milestones, message):
    words = ["diffusion.training.images=150", "diffusion.training.batch_size=16", "diffusion.training.warmup_images=0"]
    with pytest.raises(ConfigError, match=message):
        check(build([from_overrides([*words, f"diffusion.milestones={milestones}"])])[0])
    config, _ = build([from_overrides(words)])
    config.diffusion.milestones = [160]  # the last batch is whole
    check(config)
