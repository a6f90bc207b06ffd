"""A pipeline without Ray: who runs what, what is told of it and when, what is left for the next run, and what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

from dcae15 import artifacts, pipeline, storage
from dcae15.artifacts import MANIFEST, claims, snapshot_uri
from dcae15.config import Config, build, from_overrides
from dcae15.errors import ArtifactError, ConfigError
from dcae15.evaluation.milestones import row_uri
from dcae15.pipeline import Runner, dry_run, find, run_pipeline, run_stage
from dcae15.plan import Step, plan
from dcae15.runtime import LocalRuntime
from dcae15.stages import STAGES
from dcae15.stages.base import Row, Stage
from dcae15.tracking import Tracker, TrackerSpec
from dcae15.training.diffusion import train_diffusion
from tests.here import Here
from tests.latent_sets import make_autoencoder, make_images, make_latents

ALONG = ("train_diffusion", "measure_milestones")
ELSEWHERE = {"id": "b" * 32, "host": "elsewhere", "machine": "elsewhere", "process": 1, "started": "1"}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("given")
    images, autoencoder = make_images(str(root / "images")), make_autoencoder(str(root / "autoencoder"))
    latents = make_latents(str(root / "latents"), images, autoencoder)
    return {"images": images, "autoencoder": autoencoder, "latents": latents}


def stage(name: str) -> Stage:
    return next(stage for stage in STAGES if stage.name == name)


def configured(root: Path, *words: str) -> Config:
    return build([from_overrides([f"storage={root / 'storage'}", "tracking.enabled=false", *words])])[0]


def config(root: Path, *words: str) -> Config:
    """Milestones after 32 and 64 of 96 images."""
    denoiser = [f"diffusion.denoiser.{word}" for word in ("depth=1", "width=16", "heads=2")]
    training = [f"diffusion.training.{word}" for word in ("images=96", "batch_size=16", "warmup_images=16")]
    measured = ["sampling.images=5", "sampling.steps=2", "evaluation.feature_images=64", "evaluation.neighbours=2"]
    told = ["diffusion.prefix.kind=none", "diffusion.milestones=[20,64]"]
    return configured(root, *denoiser, *training, *measured, *told, *words)


class TrainsOnce(Here):
    """Trains in this process, and does not try again."""

    def train(self, function: Callable[..., None], config: Config, tracker: TrackerSpec, **arguments: Any) -> None:
        function(config, runtime=LocalRuntime(device=torch.device("cpu")), tracker=Tracker(), **arguments)


class Heard:
    """A run of the training of a denoiser and of the measures at its milestones, and what it told."""

    def __init__(self, config: Config, given: dict[str, str], stop_after: int = 0) -> None:
        self.config, self.stop_after = config, stop_after
        self.steps = [step for step in plan(config, given).steps if step.name in ALONG]
        self.events: list[str] = []
        self.rows: list[Row] = []

    def run(self) -> dict[str, float]:
        here = TrainsOnce()
        return Runner(self.config, self.steps, here, TrackerSpec(), self._on_row, self._on_step).run()

    def weights(self) -> bytes:
        folder = Path(self.steps[0].output.uri)
        return (folder / "weights.safetensors").read_bytes() + (folder / "weights_raw.safetensors").read_bytes()

    def _on_row(self, row: Row) -> None:
        self.events.append(f"{row['images']:.0f} images")
        self.rows.append(row)
        if len(self.rows) == self.stop_after:
            raise KeyboardInterrupt

    def _on_step(self, step: Step, what: str, seconds: float) -> None:
        self.events.append(f"{step.name} {what}")
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
    assert list(seconds) == list(ALONG)
    assert artifacts.Milestones.open(heard.steps[1].output.uri).rows == tuple(heard.rows)
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
    training, measures = (step.output.uri for step in stopped.steps)
    assert not artifacts.finished(training)
    assert artifacts.finished(snapshot_uri(training, 32))
    assert not storage.exists(snapshot_uri(training, 64)), "nobody trains on while nobody listens"
    first = storage.file_info(row_uri(measures, 32)).version
    again = Heard(stopped.config, given)
    again.run()
    assert again.events == finished[0].events
    assert again.rows == finished[0].rows
    assert again.weights() == finished[0].weights()
    assert storage.file_info(row_uri(measures, 32)).version == first, "measured once"


def test_what_another_process_makes_meanwhile_is_waited_for_and_reused(finished, given, tmp_path, monkeypatch, capsys):
    waiting = Heard(config(tmp_path), given)
    claimed = [
        storage.join(
            waiting.config.storage, claims.FOLDER, f"{step.stage.makes.KIND}-{step.output.fingerprint}.000001.json"
        )
        for step in waiting.steps
    ]
    for uri in claimed:
        storage.write_json(uri, ELSEWHERE)

    def sleep(seconds: float) -> None:
        """The other process finishes one step after the other."""
        i = next(i for i, step in enumerate(waiting.steps) if not step.done)
        shutil.copytree(finished[0].steps[i].output.uri, waiting.steps[i].output.uri, dirs_exist_ok=True)
        storage.remove(claimed[i])

    monkeypatch.setattr(claims.time, "sleep", sleep)
    assert waiting.run() == {}
    assert waiting.events == ["train_diffusion reused", "measure_milestones reused", "32 images", "64 images"]
    assert "train_diffusion: waits for process 1 on elsewhere, which makes it now\n" in capsys.readouterr().out


def test_a_failure_names_the_step_and_leaves_it_to_others(given, tmp_path):
    failing = Heard(config(tmp_path, "diffusion.training.batch_size=3", "diffusion.training.accumulation=2"), given)
    with pytest.raises(ConfigError, match=r"^train_diffusion: batch_size 3 cannot be shared evenly"):
        failing.run()
    assert failing.events == ["train_diffusion runs"]
    assert not storage.exists(storage.join(failing.config.storage, claims.FOLDER))


def test_measures_that_changed_are_taken_of_the_snapshots_that_are_there(finished, given):
    before = finished[0].config
    changed = Heard(before.changed(sampling=before.sampling.changed(seed=1)), given)
    assert list(changed.run()) == ["measure_milestones"]
    assert changed.events[:3] == ["train_diffusion reused", "measure_milestones runs", "32 images"]
    assert [row["images"] for row in changed.rows] == [32, 64]
    assert changed.rows != finished[0].rows


def test_what_is_tracked_of_a_finished_set():
    class Told(Tracker):
        def __init__(self) -> None:
            self.numbers: Mapping[str, float] = {}
            self.files: list[str] = []

        def metrics(self, values: Mapping[str, float], step: int) -> None:
            self.numbers = values

        def dict(self, values: Mapping[str, Any], path: str) -> None:
            self.files.append(path)

    def tracked(manifest: dict[str, Any], seconds: float | None) -> tuple[Mapping[str, float], list[str]]:
        tracker = Told()
        pipeline.track_counts(tracker, manifest, seconds)
        return tracker.numbers, tracker.files

    shards = [{"path": "a", "count": 30, "bytes": 100}, {"path": "b", "count": 10, "bytes": 60}]
    manifest = {"splits": {"train": {"shards": shards}, "val": {"shards": shards[1:]}}, "rejected": {"truncated": 2}}
    counts = {"images": 50, "images.train": 40, "images.val": 10, "shards": 3, "bytes": 220, "rejected.truncated": 2}
    assert tracked(manifest, None) == (counts, []), "no rate of a set that was begun before"
    rate = {"images_per_second": 25.0, "latent_rms_least": 0.5, "latent_rms_most": 5.0}
    of_latents = {**manifest, "statistics": {"mean": [3.0, 0.0], "std": [4.0, 0.5]}}
    assert tracked(of_latents, 2.0) == ({**counts, **rate}, ["channels.json"])
    assert tracked({"kind": "autoencoder"}, 2.0) == ({}, [])


def test_full_refuses_at_once_what_evaluate_could_not_compare(tmp_path):
    with pytest.raises(ConfigError, match=r"latents\.resolution is 16.*data\.resolution=16"):
        run_pipeline(configured(tmp_path, "latents.resolution=16"))


MILESTONES = "diffusion.milestones=[64000,128000]"


@pytest.mark.parametrize("milestones", [True, False])
def test_the_next_command_is_that_of_the_next_stage(tmp_path, capsys, milestones):
    config = configured(tmp_path, *([MILESTONES] if milestones else []))
    for step in plan(config).steps:
        storage.write_json(storage.join(step.output.uri, MANIFEST), {})
    run_stage(config, stage("train_diffusion"), {})
    following = "measure_milestones" if milestones else "sample"
    assert f"next: python pipelines/{following}.py with the same configuration" in capsys.readouterr().out
    run_stage(config, stage("train_autoencoder"), {})
    told = capsys.readouterr().out
    assert told.count("artifact: ") == 2, "the structured autoencoder and its baseline"
    assert "next: python pipelines/cache_latents.py with the same configuration" in told


@pytest.mark.parametrize(
    ("words", "name", "message"),
    [
        ([], "measure_milestones", r"nothing to do for measure_milestones: diffusion\.milestones is empty"),
        ([MILESTONES, "diffusion.enabled=false"], "measure_milestones", r"diffusion\.enabled is false"),
        (
            ["diffusion.enabled=false"],
            "train_diffusion",
            r"nothing to do for train_diffusion: diffusion\.enabled is false",
        ),
    ],
)
def test_a_stage_that_the_configuration_does_not_have_says_why(tmp_path, words, name, message):
    with pytest.raises(ConfigError, match=message):
        run_stage(configured(tmp_path, *words), stage(name), {})
    with pytest.raises(ConfigError, match=message):
        dry_run(configured(tmp_path, *words), stage(name), {})


def test_milestones_of_given_latents_need_what_they_were_made_of(given, tmp_path):
    with pytest.raises(ConfigError, match="must be given, too: images=URI autoencoder=URI"):
        run_stage(configured(tmp_path, MILESTONES), stage("measure_milestones"), {"latents": given["latents"]})


def test_a_missing_input_names_the_script_that_makes_it(given, tmp_path):
    with pytest.raises(ArtifactError, match=r"^sample needs denoiser at .*pipelines/train_diffusion.py` with the same"):
        run_stage(configured(tmp_path), stage("sample"), {})
    with pytest.raises(
        ArtifactError, match=r"train_autoencoder needs images .*prepare_images.py`.* or pass images=URI$"
    ):
        run_stage(configured(tmp_path), stage("train_autoencoder"), {})
    with pytest.raises(ArtifactError, match=r"needs denoiser .*\(without autoencoder=URI\) first"):
        run_stage(configured(tmp_path), stage("sample"), {"autoencoder": given["autoencoder"]})


def test_prefixes_that_do_not_fit_given_latents_stop_the_training_at_once(given, tmp_path):
    config = configured(tmp_path, "diffusion.prefix.choices=[4,32]")
    with pytest.raises(ConfigError, match=r"^diffusion\.prefix\.choices \[4, 32\] must end with all 4 channels"):
        run_stage(config, stage("train_diffusion"), {"latents": given["latents"]})
    made_of = {role: given[role] for role in ("images", "autoencoder")}
    assert "4x4x4 float16" in dry_run(config, stage("cache_latents"), made_of), "other stages do not ask them"


def test_what_nobody_made_for_a_given_autoencoder_is_left_out(given, tmp_path):
    known = {role: given[role] for role in ("images", "autoencoder")}
    config = configured(tmp_path)
    told = dry_run(config, stage("evaluate"), known)
    assert [line.split()[1] for line in told.splitlines() if "  reads " in line] == ["images:", "autoencoder:"]
    baseline = next(step.output.uri for step in plan(config, known).steps if step.name == "train_baseline")
    storage.write_json(storage.join(baseline, MANIFEST), {})
    assert f"reads baseline: {baseline}" in dry_run(config, stage("evaluate"), known)


def test_an_artifact_is_found_by_its_role(given, tmp_path):
    config = configured(tmp_path)
    assert find(config, "latents", given) == given["latents"]
    with pytest.raises(
        ArtifactError, match=r"no latents .*; run `python pipelines/cache_latents.py`.* or pass latents=URI$"
    ):
        find(config, "latents", {})
    with pytest.raises(
        ConfigError, match=r"no latents of this configuration: diffusion.enabled is false.*latents=URI$"
    ):
        find(configured(tmp_path, "diffusion.enabled=false"), "latents", {})
    (step,) = [step for step in plan(config).steps if step.role == "latents"]
    storage.write_json(storage.join(step.output.uri, MANIFEST), {})
    assert find(config, "latents", {}) == step.output.uri
