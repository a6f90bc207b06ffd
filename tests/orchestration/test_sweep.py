"""Sweeps on a real Ray: one is killed and continued while a trial fails and ASHA stops another, one searches."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dcae15 import artifacts
from dcae15.sweep.records import read_records
from dcae15.sweep.trials import Trial
from tests.scripts import REPOSITORY, Done, Workplace, wait_until, workplace

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1200)]

RATE = "diffusion.training.learning_rate"
SET = """
set:
  arms: []
  data: {shapes: {images: 160, val_images: 48, classes: 4}, shard_images: 80}
  autoencoder:
    latent_channels: 8
    encoder_widths: [8, 8, 16, 16]
    encoder_depths: [0, 1, 1, 1]
    decoder_widths: [8, 8, 16, 16]
    decoder_depths: [0, 1, 1, 1]
    training: {images: 160, batch_size: 16, warmup_images: 32, log_images: 160, checkpoint_images: 80}
  diffusion:
    denoiser: {depth: 1, width: 32, heads: 2}
    training: {images: 320, batch_size: 16, warmup_images: 32, log_images: 160, checkpoint_images: 80}
  sampling: {images: 24, steps: 2, guidance: 1, shard_images: 24, batch_size: 24}
  evaluation: {reconstruction_images: 24, feature_images: 160, probe_images: 0, channel_images: 8, milestone_images: 48}
"""
HALVED = f"""
name: halved
question: Which rate?
arms: {{fine: {{{RATE}: 4.0e-3}}, hopeless: {{{RATE}: 1.0e+30}}, slow: {{{RATE}: 1.0e-9}}}}
scheduler: asha
reduction: 2
{SET}
  diffusion.milestones: [160, 320]
"""
FOUND = f"""
name: found
search: tpe
trials: 2
concurrent: 1
space: {{autoencoder.training.learning_rate: {{low: 1.0e-4, high: 1.0e-2, log: true}}}}
metric: psnr.structured.all
mode: max
{SET}
  diffusion.enabled: false
"""
SHARED = ("prepare_images", "train_autoencoder", "cache_latents")


@dataclass(frozen=True)
class Sweeps:
    """Where sweeps run, one after the other, in the same storage."""

    place: Workplace
    storage: Path

    def words(self, name: str, text: str) -> list[str]:
        file = self.place.folder / f"{name}.yaml"
        file.write_text(text)
        return ["--sweep", str(file), f"storage={self.storage}"]

    def run(self, name: str, text: str) -> Done:
        done = self.place.run("sweep", *self.words(name, text), timeout_s=600)
        assert done.code == 0, done.out[-3000:] + done.err[-3000:]
        assert "Traceback" not in done.out + done.err
        return done

    def kill_when(self, name: str, text: str, reached: Callable[[], bool], what: str) -> None:
        """Run a sweep until something is reached, and kill its driver there."""
        log = self.place.folder / "log"
        command = [sys.executable, str(REPOSITORY / "pipelines" / "sweep.py"), *self.words(name, text)]
        with log.open("wb") as out:
            process = subprocess.Popen(
                command, cwd=self.place.folder, env=self.place.environment(), stdout=out, stderr=subprocess.STDOUT
            )
        try:
            wait_until(lambda: process.poll() is not None or reached(), 600, what)
            assert process.poll() is None, log.read_text()[-3000:]
        finally:
            process.kill()
            process.wait()
        wait_until(lambda: not self.place.ray_processes(), 300, "Ray ends with its driver")

    def folder(self, name: str) -> Path:
        (found,) = (self.storage / "sweeps").glob(f"{name}-*")
        return found

    def records(self, name: str) -> dict[str, Trial]:
        """Records by arm, or by id where there are no arms."""
        folders = list(self.storage.glob(f"sweeps/{name}-*"))
        return {record.arm or record.id: record for folder in folders for record in read_records(str(folder))}

    def tracked(self, copy: Path) -> list[Any]:
        """All runs in MLflow."""
        from mlflow import MlflowClient

        shutil.copy(self.storage / "mlflow.db", copy)
        client = MlflowClient(f"sqlite:///{copy}")
        experiment = client.get_experiment_by_name("dcae15")
        assert experiment is not None
        return list(client.search_runs([experiment.experiment_id]))

    def made(self) -> dict[str, str]:
        """When each artifact was made, by its URI."""
        found = [path.parent for path in self.storage.glob("*/*/manifest.json")]
        return {str(uri): artifacts.read_manifest(str(uri))["created"] for uri in found}


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sweeps]:
    folder = tmp_path_factory.mktemp("sweeps")
    with workplace(folder / "cwd") as place:
        yield Sweeps(place, folder / "storage")


@dataclass(frozen=True)
class Continued:
    """A sweep that was killed: what was there then, and the same command after it."""

    made: dict[str, str]
    killed: dict[str, Trial]
    done: Done


@pytest.fixture(scope="module")
def continued(sweeps: Sweeps) -> Continued:
    def measured() -> bool:
        return any(record.curve for record in sweeps.records("halved").values())

    sweeps.kill_when("halved", HALVED, measured, "a trial has measured its first milestone")
    made, killed = sweeps.made(), sweeps.records("halved")
    return Continued(made, killed, sweeps.run("halved", HALVED))


def test_after_a_kill_one_ends_one_is_stopped_and_one_has_failed(sweeps, continued):
    assert "running" in {record.status for record in continued.killed.values()}, "the kill came too late"
    records = sweeps.records("halved")
    assert {arm: record.status for arm, record in records.items()} == {
        "fine": "finished",
        "hopeless": "failed",
        "slow": "stopped",
    }
    fine, hopeless, slow = (records[arm] for arm in ("fine", "hopeless", "slow"))
    assert [row["images"] for row in fine.curve] == [160, 320] and [row["images"] for row in slow.curve] == [160]
    assert fine.metrics["frechet_distance.generated"] > 0 and Path(fine.report).exists()
    assert hopeless.metrics == {}
    assert hopeless.error.startswith("train_diffusion: ") and "not finite" in hopeless.error
    assert all(record.seconds > 0 for record in records.values())


def test_what_trials_share_is_made_once(sweeps, continued):
    assert continued.made, "something was finished before the kill"
    now = sweeps.made()
    assert {uri: now[uri] for uri in continued.made} == continued.made, "and was not made again"
    ran = Counter(
        (name, stage["fingerprint"])
        for record in sweeps.records("halved").values()
        for name, stage in record.stages.items()
        if stage["ran"]
    )
    assert [count for (name, _), count in ran.items() if name in SHARED] == [1, 1, 1]
    assert len([1 for name, _ in ran if name == "train_diffusion"]) == 3


def test_the_command_says_how_it_goes_and_what_is_best(sweeps, continued):
    folder, out = sweeps.folder("halved"), continued.done.out
    fine = sweeps.records("halved")["fine"]
    assert "2 trials at once" in out and "halved: 3 trials: " in out and "1 failed" in out
    assert f"best: fine: frechet_distance.generated {fine.metrics['frechet_distance.generated']:.4g}" in out
    assert f"rerun it: {fine.command}" in out and f"report: {folder}/sweep.html" in out
    assert sorted(path.name for path in folder.iterdir()) == ["sweep.html", "sweep.json", "trials", "trials.csv"]
    page = (folder / "sweep.html").read_text()
    assert "Which rate?" in page and "not finite" in page
    assert len((folder / "trials.csv").read_text().strip().splitlines()) == 4
    assert json.loads((folder / "sweep.json").read_text())["best"] == fine.id
    assert not list(sweeps.storage.glob(".ray/*")), "nothing of Tune's is left, also of the killed run"


def test_tracked_is_one_tree(sweeps, continued, tmp_path):
    runs = sweeps.tracked(tmp_path / "mlflow.db")
    parent = {run.info.run_id: run.data.tags.get("mlflow.parentRunId") for run in runs}
    (top,) = (run for run in runs if run.info.run_name == "halved")
    assert parent[top.info.run_id] is None and top.info.status == "FINISHED"
    records = {record.run_id: record for record in sweeps.records("halved").values()}
    trials = {records[run.info.run_id].arm: run for run in runs if parent[run.info.run_id] == top.info.run_id}
    assert {arm: run.info.status for arm, run in trials.items()} == {
        "fine": "FINISHED",
        "hopeless": "FAILED",
        "slow": "FINISHED",
    }
    assert "not finite" in trials["hopeless"].data.tags["error"] and "stopped" in trials["slow"].data.tags["ended"]
    fine = sweeps.records("halved")["fine"]
    assert trials["fine"].data.metrics.items() >= fine.metrics.items()
    assert trials["fine"].data.params == {"arm": "fine", "seed": "0"}
    stages = [run for run in runs if parent[run.info.run_id] in records]
    names = Counter(run.info.run_name for run in stages)
    assert [names[name] for name in (*SHARED, "train_diffusion")] == [1, 1, 1, 3]
    assert len(runs) == 1 + 3 + len(stages)


def test_a_search_draws_its_trials_on_its_way_and_is_only_reported_again(sweeps, continued):
    done = sweeps.run("found", FOUND)
    assert "1 trials at once" in done.out
    records = sweeps.records("found")
    assert [record.status for record in records.values()] == ["finished"] * 2
    first, second = (record.values["autoencoder.training.learning_rate"] for record in records.values())
    assert first != second and all(1e-4 <= rate <= 1e-2 for rate in (first, second))
    best = max(records.values(), key=lambda record: record.metrics["psnr.structured.all"])
    assert f"rerun it: {best.command}" in done.out

    sessions, page = sweeps.place.ray_sessions(), sweeps.folder("found") / "sweep.html"
    page.unlink()
    again = sweeps.run("found", FOUND)
    assert f"rerun it: {best.command}" in again.out and page.exists()
    assert sweeps.place.ray_sessions() == sessions and sweeps.records("found") == records, "no Ray was started"
