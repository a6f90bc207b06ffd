"""Impossible to lose work with: whatever is killed, the same command goes on, and the result has the bits of an undisturbed run."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from dcae15.artifacts import LatentSet, read_manifest
from tests.conftest import Finished
from tests.scripts import TINY, Background, Workplace

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

SHARED = ("--config", str(TINY), "arms=[]", "tracking.enabled=false")
TWO_PHASES = (
    "autoencoder.phases=[{name: everything}, {name: the head, parts: [decoder_head], "
    "losses: {adversarial: {weight: 0.5, width: 8, layers: 1, start_images: 160}}, training: {images: 960}}]",
    "autoencoder.training.checkpoint_images=160",
)
LONGER = ("diffusion.training.images=9600", "diffusion.training.checkpoint_images=640")


@pytest.fixture
def start(place: Workplace, tmp_path: Path) -> Callable[..., Background]:
    """Start a script with a storage of this test's own."""
    return lambda script, *words: place.start(
        script, *SHARED, f"storage={tmp_path / 'storage'}", *words, log=tmp_path / "log"
    )


def written(folder: Path, count: int) -> bool:
    return len(list(folder.rglob("*.parquet.json"))) >= count


def saved(folder: Path, after: int = 0) -> bool:
    """Whether there is a checkpoint of more than so many images."""
    return any(int(path.name.split(".")[0]) > after for path in (folder / "checkpoints").glob("*.pt.json"))


def trained(place: Workplace, finished: Finished, root: Path, script: str, *words: str) -> Path:
    """The artifact of a training that nobody disturbed."""
    done = place.run(script, *SHARED, f"storage={finished.copy(root)}", *words)
    assert done.code == 0, done.err
    return Path(done.artifact)


def artifact_of(log: str) -> Path:
    return Path(log.rsplit("artifact: ", 1)[1].splitlines()[0])


def assert_equal_sets(ours: Path, theirs: Path) -> None:
    """The same shards by name, count and checksum, and files that have them; nothing else lies there."""
    expected = read_manifest(str(theirs))["splits"]
    assert read_manifest(str(ours))["splits"] == expected
    shards = [shard["path"] for split in expected.values() for shard in split["shards"]]
    assert sorted(str(path.relative_to(ours)) for path in ours.rglob("*.parquet")) == sorted(shards)
    for path in shards:
        assert (ours / path).read_bytes() == (theirs / path).read_bytes()


def assert_equal_weights(ours: Path, theirs: Path) -> None:
    assert ours.name == theirs.name, "the fingerprint is the same"
    for file in ("weights.safetensors", "weights_raw.safetensors"):
        assert (ours / file).read_bytes() == (theirs / file).read_bytes(), file
    assert not (ours / "checkpoints").exists(), "nothing is left lying about"


def test_images_when_the_driver_is_killed(finished, start, tmp_path):
    expected = finished.artifacts["prepare_images"]
    folder = tmp_path / "storage" / "images" / expected.name
    run = start("prepare_images")
    run.wait_for(lambda: written(folder, 2), "two shards of images")
    assert run.end(signal.SIGKILL) == -signal.SIGKILL
    assert not (folder / "manifest.json").exists(), "the kill came too late"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.parquet")}
    log = start("prepare_images").finish()
    assert "were done before; continuing" in log
    assert [path.name for path, then in before.items() if path.stat().st_mtime_ns != then] == [], "done twice"
    assert_equal_sets(artifact_of(log), expected)


def test_the_autoencoder_when_the_driver_is_killed_while_its_discriminator_trains(finished, place, start, tmp_path):
    expected = trained(place, finished, tmp_path / "calm", "train_autoencoder", *TWO_PHASES)
    finished.copy(tmp_path / "storage", "images")
    folder = tmp_path / "storage" / "autoencoder" / expected.name
    run = start("train_autoencoder", *TWO_PHASES)
    run.wait_for(lambda: saved(folder, after=640), "a checkpoint of the second phase")
    run.end(signal.SIGKILL)
    assert not (folder / "manifest.json").exists(), "the kill came too late"
    log = start("train_autoencoder", *TWO_PHASES).finish()
    assert "autoencoder: continues at" in log
    assert_equal_weights(artifact_of(log), expected)


def test_latents_when_an_actor_is_killed_and_the_driver_is_terminated(finished, place, start, tmp_path):
    expected = finished.artifacts["cache_latents"]
    finished.copy(tmp_path / "storage", "images", "autoencoder")
    folder = tmp_path / "storage" / "latents" / expected.name
    run = start("cache_latents", "scaling.encoders=[2,0]")
    run.wait_for(lambda: written(folder, 1), "a shard of latents")
    os.kill(place.worker("ray::MapWorker"), signal.SIGKILL)
    before = len(list(folder.rglob("*.parquet")))
    run.wait_for(lambda: written(folder, before + 1), "the actor was replaced, or another one works")
    assert run.end(signal.SIGTERM) == 143
    assert "terminated; the same command continues the work" in run.log.read_text()
    assert not (folder / "manifest.json").exists(), "the signal came too late"
    log = start("cache_latents").finish()
    assert "were done before; continuing" in log
    assert_equal_sets(artifact_of(log), expected)
    assert LatentSet.open(str(folder)).statistics == LatentSet.open(str(expected)).statistics


def test_the_denoiser_when_its_worker_is_killed_and_then_the_driver(finished, place, start, tmp_path):
    expected = trained(place, finished, tmp_path / "calm", "train_diffusion", *LONGER)
    finished.copy(tmp_path / "storage", "images", "autoencoder", "latents")
    folder = tmp_path / "storage" / "denoiser" / expected.name
    run = start("train_diffusion", *LONGER, "scaling.num_workers=1")
    run.wait_for(lambda: saved(folder), "a checkpoint")
    os.kill(place.worker("ray::RayTrainWorker"), signal.SIGKILL)
    run.wait_for(lambda: "denoiser: continues at" in run.log.read_text(), "the worker was replaced")
    reached = max(int(path.name.split(".")[0]) for path in (folder / "checkpoints").glob("*.pt.json"))
    run.wait_for(lambda: saved(folder, after=reached), "another checkpoint")
    run.end(signal.SIGKILL)
    assert not (folder / "manifest.json").exists(), "the kill came too late"
    log = start("train_diffusion", *LONGER).finish()
    assert log.count("denoiser: continues at") == 2
    assert_equal_weights(artifact_of(log), expected)
