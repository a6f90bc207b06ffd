"""Impossible to lose work with: one pipeline is killed in every stage, another is left alone, and both end with the same bits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dcae15 import storage
from dcae15.artifacts import MANIFEST, LatentSet
from dcae15.data import shards
from tests.scripts import REPOSITORY, TINY, Workplace, parent, processes, wait_until, workplace

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1500)]

WORDS = [
    "data.shard_images=8",
    "autoencoder.phases=[{name: everything, training: {images: 3200}}, {name: the head, parts: [decoder_head], "
    "losses: {adversarial: {weight: 0.5, width: 8, layers: 1, start_images: 320}}, training: {images: 2560}}]",
    "autoencoder.training.checkpoint_images=320",
    "diffusion.training.images=4800",
    "diffusion.training.checkpoint_images=320",
    "sampling.images=120",
    "sampling.shard_images=4",
    "sampling.batch_size=4",
    "sampling.steps=12",
]
KIND = {
    "prepare_images": "images",
    "train_autoencoder": "autoencoder",
    "train_baseline": "autoencoder",
    "cache_latents": "latents",
    "train_diffusion": "denoiser",
    "sample": "images",
    "evaluate": "evaluation",
}


class Run:
    """A pipeline that runs in the background."""

    def __init__(self, place: Workplace, root: Path, log: Path, *words: str) -> None:
        self.place, self.root, self.log = place, root, log
        command = [
            sys.executable,
            REPOSITORY / "pipelines/full.py",
            "--config",
            TINY,
            f"storage={root}",
            *WORDS,
            *words,
        ]
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                command, cwd=place.folder, env=place.environment(), stdout=out, stderr=subprocess.STDOUT
            )

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for a condition while the process lives."""
        wait_until(lambda: condition() or self.process.poll() is not None, 600, what)
        assert condition(), f"ended with {self.process.poll()} before: {what}\n{self.log.read_text()[-3000:]}"

    def kill(self) -> None:
        """kill -9 the driver, and wait until its Ray is gone."""
        self.process.kill()
        self.process.wait()
        wait_until(lambda: not self.place.ray_processes(), 300, "Ray ends with its driver")

    def finish(self) -> None:
        """Wait for success."""
        code = self.process.wait(600)
        assert code == 0, self.log.read_text()[-3000:]

    def worker(self, title: str) -> int:
        """The process of a Ray worker of this run whose title starts with ``title``; 0 when there is none."""
        raylets = [pid for pid, line in processes() if "raylet/raylet" in line and str(self.place.ray) in line]
        for pid, line in processes():
            if line.startswith(title) and parent(pid) in raylets:
                return pid
        return 0


@contextmanager
def started(folder: Path) -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []
    with workplace(folder / "cwd") as place:

        def start(*words: str) -> Run:
            runs.append(Run(place, folder / "storage", folder / "log", *words))
            return runs[-1]

        try:
            yield start
        finally:
            for run in runs:
                if run.process.poll() is None:
                    run.kill()


def uris(folder: Path) -> dict[str, Path]:
    named = storage.read_json(str(folder / "storage" / "latest.json"))
    return {stage: Path(uri) for stage, uri in named.items() if stage != "report"}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("undisturbed")
    with started(folder) as start:
        start().finish()
    return uris(folder)


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory: pytest.TempPathFactory, undisturbed: dict[str, Path]) -> tuple[dict[str, Path], str]:
    """The artifacts and the log of a pipeline that was killed seven times."""
    folder = tmp_path_factory.mktemp("disturbed")

    def at(stage: str) -> Path:
        return folder / "storage" / KIND[stage] / undisturbed[stage].name

    def written(stage: str, count: int) -> bool:
        return len(list(at(stage).rglob("*.parquet.json"))) >= count

    def saved(stage: str, after: int = 0) -> bool:
        """Whether there is a checkpoint of more than so many images."""
        return any(int(path.name.split(".")[0]) > after for path in (at(stage) / "checkpoints").glob("*.pt.json"))

    def unfinished(stage: str) -> None:
        assert not (at(stage) / MANIFEST).exists(), f"the kill came too late for {stage}"

    with started(folder) as start:
        run = start()
        run.wait_for(lambda: written("prepare_images", 2), "a shard of images")
        run.kill()
        unfinished("prepare_images")

        run = start()
        run.wait_for(lambda: saved("train_autoencoder"), "a checkpoint of the autoencoder")
        run.kill()
        unfinished("train_autoencoder")

        run = start("scaling.num_workers=1")  # in a process of its own, which can be killed without the driver
        run.wait_for(lambda: saved("train_baseline", after=3200), "a checkpoint of the baseline with its discriminator")
        os.kill(run.worker("ray::RayTrainWorker"), signal.SIGKILL)
        unfinished("train_baseline")
        run.wait_for(lambda: written("cache_latents", 1), "the worker was replaced, and a shard of latents")
        os.kill(run.worker("ray::MapWorker"), signal.SIGKILL)
        unfinished("cache_latents")
        run.wait_for(lambda: saved("train_diffusion"), "the actor was replaced, and a checkpoint of the denoiser")
        run.kill()
        unfinished("train_diffusion")

        run = start()
        run.wait_for(lambda: written("sample", 2), "a shard of generated images")
        run.process.send_signal(signal.SIGTERM)
        assert run.process.wait(300) == 143
        unfinished("sample")

        start().finish()
        return uris(folder), (folder / "log").read_text()


def test_the_same_stages_end_with_the_same_names(undisturbed, disturbed):
    assert {stage: uri.name for stage, uri in disturbed[0].items()} == {s: u.name for s, u in undisturbed.items()}


@pytest.mark.parametrize("stage", ["train_autoencoder", "train_baseline", "train_diffusion"])
@pytest.mark.parametrize("file", ["weights.safetensors", "weights_raw.safetensors"])
def test_weights_are_equal_bit_for_bit(undisturbed, disturbed, stage, file):
    assert (undisturbed[stage] / file).read_bytes() == (disturbed[0][stage] / file).read_bytes()


@pytest.mark.parametrize("stage", ["prepare_images", "cache_latents", "sample"])
def test_shards_are_equal_bit_for_bit_and_none_is_missing_or_double(undisturbed, disturbed, stage):
    ours, theirs = (storage.read_json(str(uri[stage] / MANIFEST)) for uri in (undisturbed, disturbed[0]))
    assert ours["splits"] == theirs["splits"]
    for split in theirs["splits"].values():
        for shard in split["shards"]:
            data = (disturbed[0][stage] / shard["path"]).read_bytes()
            assert storage.sha256(data) == shard["sha256"]


def test_every_latent_is_there_once_and_statistics_are_equal(undisturbed, disturbed):
    ours, theirs = (LatentSet.open(str(uri["cache_latents"])) for uri in (undisturbed, disturbed[0]))
    assert ours.statistics == theirs.statistics
    ids = [
        name
        for split in theirs.splits.values()
        for shard in split.shards
        for name in shards.read_shard(theirs.uri, shard).column("id").to_pylist()
    ]
    assert len(ids) == len(set(ids)) == 360


def test_training_went_on_where_it_was_and_said_so(disturbed):
    log = disturbed[1]
    assert "autoencoder: continues at" in log
    assert "denoiser: continues at" in log
    assert "cache_latents: done" in log
    assert "terminated; the same command continues the work" in log


def test_nothing_is_left_lying_about(disturbed):
    root = disturbed[0]["train_autoencoder"].parents[1]
    left = [p for p in root.rglob("*") if p.name == "checkpoints" or (p.name.startswith(".") and p.is_file())]
    assert left == []
