"""The fold over a plan, without Ray: who runs what, what is heard of it and when, and what is left for the next run."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
import ray
import torch

from dcae15 import artifacts, storage
from dcae15.artifacts import claims
from dcae15.config import Config
from dcae15.errors import ConfigError
from dcae15.evaluation.milestones import Row, row_uri
from dcae15.orchestration.cluster import Cluster, Session
from dcae15.orchestration.fold import Fold
from dcae15.orchestration.plan import Stage, plan
from dcae15.runtime import LocalRuntime
from dcae15.tracking import Tracker, TrackerSpec
from dcae15.training.stages import snapshot_uri, train_diffusion
from tests.latent_sets import make_autoencoder, make_images, make_latents

STAGES = ("train_diffusion", "measure_milestones")
ELSEWHERE = {"id": "b" * 32, "host": "elsewhere", "machine": "elsewhere", "process": 1, "started": "1"}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("given")
    images, autoencoder = make_images(str(root / "images")), make_autoencoder(str(root / "autoencoder"))
    latents = make_latents(str(root / "latents"), images, autoencoder)
    return {"images": images, "autoencoder": autoencoder, "latents": latents}


def config(root: Path) -> Config:
    """Milestones after 32 and 64 of 96 images."""
    config = Config(storage=str(root / "storage"))
    diffusion = config.diffusion
    diffusion.denoiser.depth, diffusion.denoiser.width, diffusion.denoiser.heads = 1, 16, 2
    diffusion.prefix.kind, diffusion.milestones = "none", [20, 64]
    diffusion.training = dataclasses.replace(diffusion.training, images=96, batch_size=16, warmup_images=16)
    config.sampling.images, config.sampling.steps = 5, 2
    config.evaluation.feature_images, config.evaluation.neighbours = 64, 2
    return config


class Heard:
    """A fold over the training of a denoiser and the measures at its milestones, and what it told."""

    def __init__(self, config: Config, given: dict[str, str], stop_after: int = 0) -> None:
        self.config, self.stop_after = config, stop_after
        self.stages = [stage for stage in plan(config, given) if stage.name in STAGES]
        self.events: list[str] = []
        self.rows: list[Row] = []
        self.unfinished: list[bool] = []

    def run(self) -> dict[str, float]:
        session = Session(self.config, Cluster(1, 0, local=True))
        fold = Fold(self.config, self.stages, session, TrackerSpec(), self._on_milestone, self._on_stage)
        return fold.run()

    def weights(self) -> bytes:
        folder = Path(self.stages[0].uri)
        return (folder / "weights.safetensors").read_bytes() + (folder / "weights_raw.safetensors").read_bytes()

    def _on_milestone(self, row: Row) -> None:
        self.events.append(f"{row['images']:.0f} images")
        self.rows.append(row)
        if len(self.rows) == self.stop_after:
            raise KeyboardInterrupt

    def _on_stage(self, stage: Stage, what: str, seconds: float) -> None:
        self.events.append(f"{stage.name} {what}")
        assert (seconds > 0) == (what == "done")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, given: dict[str, str]) -> tuple[Heard, dict[str, float]]:
    heard = Heard(config(tmp_path_factory.mktemp("finished")), given)
    return heard, heard.run()


def test_quality_is_heard_while_the_training_goes_on(finished):
    heard, seconds = finished
    assert heard.events == [
        "train_diffusion runs",
        "32 images",
        "64 images",
        "train_diffusion done",
        "measure_milestones runs",
        "measure_milestones done",
    ]
    assert list(seconds) == list(STAGES)
    assert artifacts.Milestones.open(heard.stages[1].uri).rows == tuple(heard.rows)
    assert not storage.exists(storage.join(heard.config.storage, claims.FOLDER))
    assert not ray.is_initialized()


def test_finished_stages_are_reused_and_their_rows_heard_again(finished, given, capsys):
    again = Heard(finished[0].config, given)
    assert again.run() == {}
    assert again.events == ["train_diffusion reused", "measure_milestones reused", "32 images", "64 images"]
    assert again.rows == finished[0].rows
    assert capsys.readouterr().out.count(": reused ") == 2


def test_training_with_measures_ends_with_the_bits_of_an_uninterrupted_one(finished, given, tmp_path):
    train_diffusion(
        finished[0].config,
        latents=given["latents"],
        uri=str(tmp_path),
        fingerprint="x",
        runtime=LocalRuntime(device=torch.device("cpu")),
        tracker=Tracker(),
    )
    plain = (tmp_path / "weights.safetensors").read_bytes() + (tmp_path / "weights_raw.safetensors").read_bytes()
    assert finished[0].weights() == plain


def test_a_run_that_is_stopped_at_a_milestone_goes_on_from_there(finished, given, tmp_path):
    stopped = Heard(config(tmp_path), given, stop_after=1)
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    training, measures = stopped.stages
    assert not training.done
    assert artifacts.finished(snapshot_uri(training.uri, 32))
    assert not storage.exists(snapshot_uri(training.uri, 64)), "nobody trains on while nobody listens"
    first = storage.file_info(row_uri(measures.uri, 32)).version
    again = Heard(stopped.config, given)
    again.run()
    assert again.events == finished[0].events
    assert again.rows == finished[0].rows
    assert again.weights() == finished[0].weights()
    assert storage.file_info(row_uri(measures.uri, 32)).version == first, "measured once"


def test_what_another_process_makes_meanwhile_is_waited_for_and_reused(finished, given, tmp_path, monkeypatch, capsys):
    waiting = Heard(config(tmp_path), given)
    claimed = [
        storage.join(waiting.config.storage, claims.FOLDER, f"{stage.kind}-{stage.fingerprint}.000001.json")
        for stage in waiting.stages
    ]
    for uri in claimed:
        storage.write_json(uri, ELSEWHERE)

    def sleep(seconds: float) -> None:
        """The other process finishes one stage after the other."""
        stage = next(stage for stage in waiting.stages if not stage.done)
        shutil.copytree(finished[0].stages[waiting.stages.index(stage)].uri, stage.uri, dirs_exist_ok=True)
        storage.remove(claimed[waiting.stages.index(stage)])

    monkeypatch.setattr(claims.time, "sleep", sleep)
    assert waiting.run() == {}
    assert waiting.events == ["train_diffusion reused", "measure_milestones reused", "32 images", "64 images"]
    assert "train_diffusion: waits: process 1 on elsewhere makes it now\n" in capsys.readouterr().out


def test_a_failure_names_the_stage_and_leaves_it_to_others(given, tmp_path):
    failing = Heard(config(tmp_path), given)
    failing.config.diffusion.training.batch_size = 3
    failing.config.diffusion.training.accumulation = 2
    with pytest.raises(ConfigError, match=r"^train_diffusion: batch_size 3 cannot be shared evenly"):
        failing.run()
    assert failing.events == ["train_diffusion runs"]
    assert not storage.exists(storage.join(failing.config.storage, claims.FOLDER))


def test_measures_that_changed_are_taken_of_the_snapshots_that_are_there(finished, given):
    changed = Heard(dataclasses.replace(finished[0].config), given)
    changed.config.sampling = dataclasses.replace(changed.config.sampling, seed=1)
    changed.stages = [stage for stage in plan(changed.config, given) if stage.name in STAGES]
    assert list(changed.run()) == ["measure_milestones"]
    assert changed.events[:3] == ["train_diffusion reused", "measure_milestones runs", "32 images"]
    assert [row["images"] for row in changed.rows] == [32, 64]
    assert changed.rows != finished[0].rows
