"""Sweeps on a real Ray: killed and continued, with trials that fail, with trials that go on from others, and wrong ones."""

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

from dcae15 import artifacts, storage
from dcae15.trials import TrialRecord, read_records
from tests.scripts import REPOSITORY, Done, Workplace, wait_until, workplace

pytestmark = [pytest.mark.ray, pytest.mark.timeout(2400)]

RATE = "diffusion.training.learning_rate"
SET = """
set:
  baseline: false
  data: {shapes: {images: 160, val_images: 48, classes: 4}, shard_images: 80}
  autoencoder:
    latent_channels: 8
    encoder_widths: [8, 8, 16, 16]
    encoder_depths: [0, 1, 1, 1]
    decoder_widths: [8, 8, 16, 16]
    decoder_depths: [0, 1, 1, 1]
    training: {images: 160, batch_size: 16, warmup_images: 32, log_images: 160, checkpoint_images: 80}
  diffusion:
    prefix.first: ${autoencoder.prefix.first}
    denoiser: {depth: 1, width: 32, heads: 2}
    milestones: [160, 320, 480]
    training: {images: 480, batch_size: 16, warmup_images: 32, log_images: 160, checkpoint_images: 80}
  sampling: {images: 24, steps: 2, guidance: 1, shard_images: 24, batch_size: 24}
  evaluation: {reconstruction_images: 24, feature_images: 160, probe_images: 0, channel_images: 8, milestone_images: 48}
"""
CROSSED = f"""
name: crossed
question: Which autoencoder, and which rate?
space: {{autoencoder.prefix.first: [4, 8], {RATE}: [4.0e-3, 1.0e-3]}}
scheduler: asha
reduction: 2
{SET}
"""
HOPEFUL = f"""
name: hopeful
arms: {{hopeless: {{{RATE}: 1.0e+30}}, fine: {{{RATE}: 4.0e-3}}}}
{SET}
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
"""


@dataclass(frozen=True)
class Sweeps:
    """Where sweeps run, one after the other, in the same storage."""

    place: Workplace
    storage: Path

    def words(self, name: str, text: str) -> list[str]:
        file = self.place.folder / f"{name}.yaml"
        file.write_text(text)
        return ["--sweep", str(file), f"storage={self.storage}"]

    def run(self, name: str, text: str, *words: str) -> Done:
        return self.place.run("sweep", *self.words(name, text), *words, timeout_s=1200)

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

    def records(self, name: str) -> list[TrialRecord]:
        return read_records(str(self.folder(name))) if list(self.storage.glob(f"sweeps/{name}-*")) else []

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
    """A sweep that was killed, and the same command after it.

    Attributes:
        made: what was there after the kill.
        killed: the records after the kill.
        done: the second run.
    """

    made: dict[str, str]
    killed: list[TrialRecord]
    done: Done


@pytest.fixture(scope="module")
def continued(sweeps: Sweeps) -> Continued:
    def measured() -> bool:
        return any(record.curve for record in sweeps.records("crossed"))

    sweeps.kill_when("crossed", CROSSED, measured, "a trial has measured its first milestone")
    made, killed = sweeps.made(), sweeps.records("crossed")
    done = sweeps.run("crossed", CROSSED)
    assert done.code == 0, done.out[-3000:] + done.err[-3000:]
    return Continued(made, killed, done)


def test_every_trial_ends_after_a_kill(sweeps, continued):
    assert any(record.status == "running" for record in continued.killed), "the kill came too late"
    records = sweeps.records("crossed")
    assert Counter(tuple(record.values.values()) for record in records) == Counter(
        [(first, rate) for first in (4, 8) for rate in (1e-3, 4e-3)]
    )
    assert {record.status for record in records} <= {"finished", "stopped"}
    for record in records:
        assert record.error == "" and record.seconds > 0
        assert [row["images"] for row in record.curve] == [160, 320, 480][: len(record.curve)]
        if record.status == "finished":
            assert len(record.curve) == 3 and record.metrics["frechet_distance.generated"] > 0
            assert Path(record.report).exists()


def test_what_trials_share_is_made_once(sweeps, continued):
    assert {storage.join(uri) for uri in continued.made}, "something was finished before the kill"
    now = sweeps.made()
    assert {uri: now[uri] for uri in continued.made} == continued.made, "and was not made again"
    ran: Counter[str] = Counter()
    fingerprints: dict[str, set[str]] = {}
    for record in sweeps.records("crossed"):
        for name, stage in record.stages.items():
            ran[stage["fingerprint"]] += stage["ran"]
            fingerprints.setdefault(name, set()).add(stage["fingerprint"])
    assert set(ran.values()) == {1}
    counts = {name: len(found) for name, found in fingerprints.items()}
    assert counts["prepare_images"] == 1 and counts["train_diffusion"] == 4
    assert counts["train_autoencoder"] == counts["cache_latents"] == 2


def test_the_command_says_how_it_goes_and_what_is_best(sweeps, continued):
    out = continued.done.out
    assert "2 trials at once" in out
    assert "crossed: 4 trials: " in out and "frechet_distance.generated" in out
    assert f"report: {sweeps.folder('crossed')}/sweep.html" in out
    best = min(
        (record for record in sweeps.records("crossed") if record.status == "finished"),
        key=lambda record: record.metrics["frechet_distance.generated"],
    )
    assert f"rerun it: {best.command}" in out
    assert "Traceback" not in out + continued.done.err


def test_the_page_and_its_numbers_are_there(sweeps, continued):
    folder = sweeps.folder("crossed")
    assert sorted(path.name for path in folder.iterdir()) == ["sweep.html", "sweep.json", "trials", "trials.csv"]
    assert "Which autoencoder, and which rate?" in (folder / "sweep.html").read_text()
    assert len((folder / "trials.csv").read_text().strip().splitlines()) == 5
    numbers = json.loads((folder / "sweep.json").read_text())
    assert {trial["id"] for trial in numbers["trials"]} == {record.id for record in sweeps.records("crossed")}
    assert not list(sweeps.storage.glob(".ray/*")), "nor anything of Tune's, also of the killed run"


def test_tracked_is_one_tree(sweeps, continued, tmp_path):
    runs = sweeps.tracked(tmp_path / "mlflow.db")
    parent = {run.info.run_id: run.data.tags.get("mlflow.parentRunId") for run in runs}
    (top,) = (run for run in runs if run.info.run_name == "crossed")
    assert parent[top.info.run_id] is None and top.info.status == "FINISHED"
    records = {record.run_id: record for record in sweeps.records("crossed")}
    trials = [run for run in runs if parent[run.info.run_id] == top.info.run_id]
    assert {run.info.run_id for run in trials} == set(records) and len(records) == 4
    for run in trials:
        record = records[run.info.run_id]
        assert run.info.status == "FINISHED"
        assert {path: float(run.data.params[path]) for path in record.values} == record.values
        assert run.data.metrics.items() >= record.metrics.items()
    stages = [run for run in runs if parent[run.info.run_id] in records]
    names = Counter(run.info.run_name for run in stages)
    assert names["prepare_images"] == 1 and names["train_autoencoder"] == names["cache_latents"] == 2
    assert names["train_diffusion"] == 4
    assert len(runs) == 1 + 4 + len(stages)
    unfinished = {run.info.run_name for run in stages if run.info.status != "FINISHED"}
    assert unfinished <= {"train_diffusion"}, "only where the scheduler stopped a trial"


def test_a_finished_sweep_is_only_reported_again(sweeps, continued):
    sessions, records = sweeps.place.ray_sessions(), sweeps.records("crossed")
    page = sweeps.folder("crossed") / "sweep.html"
    page.unlink()
    done = sweeps.place.run("sweep", "--sweep", "crossed.yaml", f"storage={sweeps.storage}")  # in the working directory
    assert done.code == 0, done.err
    assert sweeps.place.ray_sessions() == sessions, "no Ray was started"
    assert f"report: {page}" in done.out and page.exists()
    assert sweeps.records("crossed") == records


def test_a_trial_that_fails_is_reported_and_does_not_fail_the_sweep(sweeps, continued, tmp_path):
    # Two trials at once on two CPUs, and each has a worker of Ray Train: if trials held CPUs themselves, none would be left.
    done = sweeps.run("hopeful", HOPEFUL, "scaling.num_workers=1", "scaling.cpus_per_worker=1")
    assert done.code == 0, done.out[-3000:] + done.err[-3000:]
    records = {record.arm: record for record in sweeps.records("hopeful")}
    assert records["fine"].status == "finished"
    assert not any(stage["ran"] for name, stage in records["fine"].stages.items() if name == "train_autoencoder")
    failed = records["hopeless"]
    assert failed.status == "failed" and failed.metrics == {}
    assert failed.error.startswith("train_diffusion: ") and "not finite" in failed.error
    assert "1 failed" in done.out and "best: fine" in done.out
    assert "not finite" in (sweeps.folder("hopeful") / "sweep.html").read_text()
    runs = {run.info.run_id: run for run in sweeps.tracked(tmp_path / "mlflow.db")}
    assert runs[failed.run_id].info.status == "FAILED" and "not finite" in runs[failed.run_id].data.tags["error"]
    assert runs[runs[failed.run_id].data.tags["mlflow.parentRunId"]].info.status == "FINISHED"


def test_a_search_draws_its_trials_on_its_way(sweeps):
    done = sweeps.run("found", FOUND, "diffusion.enabled=false")
    assert done.code == 0, done.out[-3000:] + done.err[-3000:]
    assert "1 trials at once" in done.out
    records = sweeps.records("found")
    assert [record.status for record in records] == ["finished"] * 2, [record.error for record in records]
    (first, second) = (record.values["autoencoder.training.learning_rate"] for record in records)
    assert first != second and all(1e-4 <= rate <= 1e-2 for rate in (first, second))
    best = max(records, key=lambda record: record.metrics["psnr.structured.all"])
    assert f"rerun it: {best.command}" in done.out

    sessions = sweeps.place.ray_sessions()
    again = sweeps.run("found", FOUND, "diffusion.enabled=false")
    assert again.code == 0 and f"rerun it: {best.command}" in again.out
    assert sweeps.place.ray_sessions() == sessions and sweeps.records("found") == records


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (CROSSED.replace("prefix.first: [", "prefix.frist: ["), "did you mean autoencoder.prefix.first"),
        (
            CROSSED.replace("[4, 8]", "[]"),
            "space.autoencoder.prefix.first is an empty list, so that there are no trials",
        ),
        (CROSSED + "cpus_per_trial: 99", "cpus_per_trial is 99, the cluster has "),
        (CROSSED + "metric: frechet_distance.genrated", "metric 'frechet_distance.genrated' is reported by no stage"),
    ],
    ids=["field", "empty", "resources", "metric"],
)
def test_what_cannot_work_is_said_before_anything_starts(sweeps, tmp_path, text, message):
    place, sessions = sweeps.place, sweeps.place.ray_sessions()
    there = Sweeps(place, tmp_path / "storage")
    done = there.run("wrong", text)
    assert done.code == 2, done.out + done.err
    assert message in done.err and "Traceback" not in done.err
    assert not list(there.storage.rglob("trials/*")) and there.made() == {}
    if "99" not in text:  # else Ray had to be asked what there is
        assert place.ray_sessions() == sessions and not there.storage.exists()
