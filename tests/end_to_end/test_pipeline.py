"""The whole pipeline on one machine as a user sees it: what it prints, what it leaves, what it does when asked again."""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import dcae15
from dcae15.artifacts import Denoiser, ImageSet, LatentSet, read_manifest
from dcae15.config import SamplingConfig
from dcae15.data.pixels import to_pixels
from tests.scripts import TINY, Done, Workplace, wait_until, workplace

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1200)]

KINDS = {
    "prepare_images": "images",
    "train_autoencoder": "autoencoder",
    "train_baseline": "autoencoder",
    "cache_latents": "latents",
    "train_diffusion": "denoiser",
    "sample": "images",
    "evaluate": "evaluation",
}
STAGES = tuple(KINDS)
"""Those of the default configuration, which trains no control with random masks."""
TRAINED = ("train_autoencoder", "train_baseline", "train_diffusion")


@dataclass(frozen=True)
class Pipeline:
    """A finished tiny run: what was planned before, what it did, and where everything is."""

    place: Workplace
    storage: Path
    planned: Done
    done: Done

    def run(self, script: str, *words: str) -> Done:
        return self.place.run(script, "--config", str(TINY), f"storage={self.storage}", *words)

    @property
    def artifacts(self) -> dict[str, Path]:
        """Where each stage said that its artifact is."""
        return artifacts_of(self.done)


def artifacts_of(done: Done) -> dict[str, Path]:
    found = re.findall(r"^(\w+): (?:done in \d+ s|reused \w+): (/\S+)$", done.out, re.MULTILINE)
    return {stage: Path(uri) for stage, uri in found}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    folder = tmp_path_factory.mktemp("pipeline")
    with workplace(folder / "cwd") as place:
        words = ("full", "--config", str(TINY), f"storage={folder / 'storage'}")
        planned = place.run(*words, "--dry-run")
        assert not (folder / "storage").exists(), "a dry run must not write"
        assert place.ray_sessions() == 0, "a dry run must not start Ray"
        done = place.run(*words)
        assert done.code == 0, done.out + done.err
        yield Pipeline(place, folder / "storage", planned, done)


@pytest.fixture(scope="module")
def repeated(pipeline: Pipeline) -> tuple[Done, int]:
    """The same command once more, and how often it started Ray."""
    before = pipeline.place.ray_sessions()
    again = pipeline.run("full")
    return again, pipeline.place.ray_sessions() - before


@pytest.fixture(scope="module")
def changed(pipeline: Pipeline) -> Done:
    """The same pipeline with another learning rate of the denoiser."""
    return pipeline.run("full", "diffusion.training.learning_rate=5e-4")


def test_the_plan_before_the_first_run_is_to_run_everything(pipeline: Pipeline) -> None:
    lines = pipeline.planned.out.splitlines()
    assert pipeline.planned.code == 0
    assert [line.split()[0] for line in lines if " to run " in line] == list(STAGES)
    assert "360" in pipeline.planned.out, "the number of images"
    assert "640 images in batches of 16" in pipeline.planned.out


def test_what_ran_is_what_was_planned(pipeline: Pipeline) -> None:
    assert list(pipeline.artifacts) == list(STAGES)
    for stage, path in pipeline.artifacts.items():
        assert f"{path.name}  {path}" in pipeline.planned.out, stage


def test_the_console_shows_progress_and_nothing_else(pipeline: Pipeline) -> None:
    lines = pipeline.done.out.splitlines()
    assert lines[-1].startswith("report: ")
    assert pipeline.done.stages("runs") == list(STAGES)
    for who in ("autoencoder", "denoiser"):
        assert any(re.match(rf"{who}: 320/640 images  loss \d+\.\d+ .* ETA \d+:\d\d$", line) for line in lines), who
    strangers = [
        line
        for line in lines
        if not re.match(rf"({'|'.join(STAGES)}|draw_shapes|source|autoencoder|denoiser|features|report): ", line)
    ]
    assert strangers == []
    assert "Traceback" not in pipeline.done.err


def test_the_report_is_one_file_that_needs_no_other(pipeline: Pipeline) -> None:
    page = Path(pipeline.done.out.splitlines()[-1].removeprefix("report: ")).read_text()
    sources = re.findall(r"src\s*=\s*[\"']?([^\"'\s>]+)", page)
    assert len(sources) >= 5 and all(source.startswith("data:image/") for source in sources)
    assert not re.search(r"<script|<link|@import|url\((?!data:)", page)
    for stage, path in pipeline.artifacts.items():
        assert path.name in page, stage
    assert "300 training and 60 validation images" in page


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_leaves_an_artifact_with_a_manifest(pipeline: Pipeline, stage: str) -> None:
    path = pipeline.artifacts[stage]
    manifest = read_manifest(str(path))
    assert manifest["kind"] == KINDS[stage]
    assert manifest["fingerprint"] == path.name
    for split in manifest.get("splits", {}).values():
        for shard in split["shards"]:
            assert (path / shard["path"]).stat().st_size == shard["bytes"]


def test_no_image_is_lost_on_the_way(pipeline: Pipeline) -> None:
    images = ImageSet.open(str(pipeline.artifacts["prepare_images"]))
    latents = LatentSet.open(str(pipeline.artifacts["cache_latents"]))
    assert {name: split.count for name, split in images.splits.items()} == {"train": 300, "val": 60}
    for split in ("train", "val"):
        ids = [
            [i for shard in s.splits[split].shards for i in pq.read_table(f"{s.uri}/{shard.path}")["id"].to_pylist()]
            for s in (images, latents)
        ]
        assert ids[0] == ids[1] and len(set(ids[0])) == images.splits[split].count
    assert ImageSet.open(str(pipeline.artifacts["sample"])).splits["generated"].count == 40


def test_nothing_unfinished_is_left(pipeline: Pipeline) -> None:
    left = [
        str(path.relative_to(pipeline.storage))
        for path in pipeline.storage.rglob("*")
        if path.name == "checkpoints" or path.name.startswith((".tmp", "tmp"))
    ]
    assert left == []
    ray = pipeline.storage / ".ray"
    assert not ray.exists() or not any(ray.rglob("*"))
    assert list(pipeline.place.folder.iterdir()) == [], "nothing is written to the working directory"


def test_no_process_of_ray_stays(pipeline: Pipeline) -> None:
    assert pipeline.place.ray_sessions() > 0, "Ray was looked for in the wrong place"
    wait_until(lambda: not pipeline.place.ray_processes(), 120, "Ray's processes end")


def test_a_second_run_reuses_everything_without_ray(pipeline: Pipeline, repeated: tuple[Done, int]) -> None:
    again, sessions = repeated
    assert again.code == 0
    assert again.stages("reused") == list(STAGES) and again.stages("runs") == []
    assert again.out.splitlines()[-1] == pipeline.done.out.splitlines()[-1]
    assert artifacts_of(again) == pipeline.artifacts
    assert sessions == 0
    assert again.seconds < pipeline.done.seconds / 4


def test_the_plan_afterwards_is_to_reuse_everything(pipeline: Pipeline) -> None:
    plan = pipeline.run("full", "--dry-run").out
    assert len(re.findall(" reused ", plan)) == len(STAGES) and " to run " not in plan


def test_a_changed_field_runs_only_what_depends_on_it(pipeline: Pipeline, changed: Done) -> None:
    assert changed.code == 0, changed.err
    assert changed.stages("reused") == ["prepare_images", "train_autoencoder", "train_baseline", "cache_latents"]
    assert changed.stages("runs") == ["train_diffusion", "sample", "evaluate"]
    assert changed.out.splitlines()[-1] != pipeline.done.out.splitlines()[-1], "each run has its own report"


def test_fields_that_cannot_change_a_result_do_not_run_anything(pipeline: Pipeline) -> None:
    words = ("scaling.num_workers=7", "autoencoder.training.log_images=32", "name=other", "tracking.enabled=false")
    plan = pipeline.run("full", "--dry-run", *words).out
    assert " to run " not in plan


@pytest.mark.parametrize(
    "script", ["prepare_images", "train_autoencoder", "cache_latents", "train_diffusion", "sample", "evaluate"]
)
def test_each_stage_script_finds_what_the_pipeline_made(pipeline: Pipeline, script: str) -> None:
    before = pipeline.place.ray_sessions()
    done = pipeline.run(script)
    assert done.code == 0, done.err
    assert f"artifact: {pipeline.artifacts[script]}" in done.out.splitlines()
    assert ("next: python pipelines/" in done.out) == (script != "evaluate")
    assert pipeline.place.ray_sessions() == before


@pytest.mark.parametrize(
    ("script", "maker"),
    [
        ("train_autoencoder", "prepare_images"),
        ("cache_latents", "prepare_images"),
        ("train_diffusion", "cache_latents"),
        ("sample", "train_diffusion"),
        ("evaluate", "prepare_images"),
    ],
)
def test_a_stage_without_its_input_names_the_script_that_makes_it(
    pipeline: Pipeline, tmp_path: Path, script: str, maker: str
) -> None:
    before = pipeline.place.ray_sessions()
    done = pipeline.run(script, f"storage={tmp_path}")
    assert done.code == 1
    assert re.search(rf"^error: {script} needs .* run `python pipelines/{maker}\.py`", done.err, re.MULTILINE)
    assert "Traceback" not in done.err and pipeline.place.ray_sessions() == before


def test_a_given_artifact_of_the_wrong_kind_is_refused(pipeline: Pipeline, tmp_path: Path) -> None:
    images = pipeline.artifacts["prepare_images"]
    autoencoder = pipeline.artifacts["train_autoencoder"]
    done = pipeline.run("sample", f"storage={tmp_path}", f"denoiser={images}", f"autoencoder={autoencoder}")
    assert done.code == 1
    assert "'images'" in done.err and "'denoiser' is needed" in done.err and "Traceback" not in done.err


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("autoencoder.training.lerning_rate=1", "learning_rate"),
        ("diffusion.training.batch_size=many", "diffusion.training.batch_size"),
        ("autoencoder.prefix.choices=[4,99]", "99"),
        ("data.resolution=33", "data.resolution"),
    ],
)
def test_a_wrong_configuration_ends_with_code_2_and_one_message(pipeline: Pipeline, word: str, said: str) -> None:
    before = pipeline.place.ray_sessions()
    done = pipeline.run("full", word)
    assert done.code == 2
    assert said in done.err and "Traceback" not in done.err and done.out == ""
    assert pipeline.place.ray_sessions() == before


@pytest.fixture(scope="module")
def runs(
    pipeline: Pipeline, repeated: tuple[Done, int], changed: Done, tmp_path_factory: pytest.TempPathFactory
) -> tuple[MlflowClient, list[Run]]:
    """What was tracked in three runs, oldest first."""
    from mlflow import MlflowClient

    copy = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    shutil.copy(pipeline.storage / "mlflow.db", copy)
    client = MlflowClient(f"sqlite:///{copy}")
    experiment = client.get_experiment_by_name("dcae15")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
    return client, list(found)


class TestTracking:
    """One run in MLflow per pipeline, and one below it per stage that ran."""

    def test_lies_beside_the_artifacts(self, pipeline: Pipeline) -> None:
        with sqlite3.connect(pipeline.storage / "mlflow.db") as database:
            assert database.execute("select count(*) from runs").fetchone()[0] > 0

    def test_one_parent_per_pipeline_and_one_child_per_stage_that_ran(
        self, runs: tuple[MlflowClient, list[Run]]
    ) -> None:
        _, found = runs
        parents = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
        assert len(parents) == 2, "the repeated run did nothing, so it is not tracked"
        children = [
            [r.info.run_name for r in found if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
            for parent in parents
        ]
        assert children == [list(STAGES), ["train_diffusion", "sample", "evaluate"]]
        assert {run.info.status for run in found} == {"FINISHED"}

    def test_parameters_are_the_configuration(self, runs: tuple[MlflowClient, list[Run]]) -> None:
        _, found = runs
        first, second = (run for run in found if "mlflow.parentRunId" not in run.data.tags)
        assert first.data.params["autoencoder.training.images"] == "640"
        changed = {k for k, v in first.data.params.items() if second.data.params[k] != v}
        assert changed == {"diffusion.training.learning_rate"}

    def test_metrics_have_images_as_steps(self, runs: tuple[MlflowClient, list[Run]]) -> None:
        client, found = runs
        for stage in TRAINED:
            run = next(run for run in found if run.info.run_name == stage)
            history = client.get_metric_history(run.info.run_id, "loss")
            assert [metric.step for metric in history] == [160, 320, 480, 640], stage
            assert all(np.isfinite(metric.value) for metric in history)
            assert {"learning_rate", "gradient_norm", "images_per_second"} <= set(run.data.metrics)

    def test_finished_sets_are_counted(self, runs: tuple[MlflowClient, list[Run]]) -> None:
        client, found = runs
        counted = {run.info.run_name: run for run in found if "shards" in run.data.metrics}
        metrics = {stage: run.data.metrics for stage, run in counted.items()}
        assert {stage: numbers["images"] for stage, numbers in metrics.items()} == {
            "prepare_images": 360,
            "cache_latents": 360,
            "sample": 40,
        }
        assert all(numbers["images_per_second"] > 0 and numbers["bytes"] > 0 for numbers in metrics.values())
        assert 0 < metrics["cache_latents"]["latent_rms_least"] <= metrics["cache_latents"]["latent_rms_most"]
        names = {item.path for item in client.list_artifacts(counted["cache_latents"].info.run_id)}
        assert "channels.json" in names

    def test_pictures_and_the_report_are_kept(self, runs: tuple[MlflowClient, list[Run]], pipeline: Pipeline) -> None:
        client, found = runs
        parent = found[0].info.run_id
        names = {item.path for item in client.list_artifacts(parent)}
        assert "report.html" in names and "images" in names
        assert any(item.path.endswith(".png") for item in client.list_artifacts(parent, "images"))
        assert str(found[0].info.artifact_uri).startswith(str(pipeline.storage))


class TestLibrary:
    """What the pipeline made, opened from Python."""

    def test_an_autoencoder_encodes_and_decodes_any_prefix(self, pipeline: Pipeline) -> None:
        network = dcae15.load_autoencoder(str(pipeline.artifacts["train_autoencoder"]))
        assert tuple(network.prefix_choices) == (4, 8)
        pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
        full = network.encode(pixels)
        assert full.shape == (2, 8, 4, 4)
        for prefix in (1, 4, 8):
            latents = network.encode(pixels, prefix=prefix)
            torch.testing.assert_close(latents, full[:, :prefix])
            image = network.decode(latents)
            assert image.shape == pixels.shape and bool(torch.isfinite(image).all())
        zeroed = torch.cat([full[:, :4], torch.zeros_like(full[:, 4:])], dim=1)
        torch.testing.assert_close(network.decode(full[:, :4]), network.decode(zeroed), atol=1e-5, rtol=1e-4)

    def test_a_denoiser_samples_latents_for_the_decoder(self, pipeline: Pipeline) -> None:
        denoiser = dcae15.load_denoiser(str(pipeline.artifacts["train_diffusion"]))
        settings = SamplingConfig(steps=2)
        latents = denoiser.sample([0, 1, 4], settings)
        assert latents.shape == (3, 8, 4, 4)
        torch.testing.assert_close(denoiser.sample([4], settings, first=2), latents[2:], atol=1e-4, rtol=1e-3)
        decoded = dcae15.load_autoencoder(denoiser.artifact.autoencoder_uri).decode(latents)
        assert decoded.shape == (3, 3, 32, 32)

    def test_the_generated_images_are_what_the_denoiser_samples(self, pipeline: Pipeline) -> None:
        denoiser = dcae15.load_denoiser(str(pipeline.artifacts["train_diffusion"]))
        autoencoder = dcae15.load_autoencoder(denoiser.artifact.autoencoder_uri)
        rows = pq.read_table(pipeline.artifacts["sample"] / "generated" / "000000.parquet").to_pylist()
        latents = denoiser.sample([row["label"] for row in rows[:4]], SamplingConfig(steps=2))
        expected = ((autoencoder.decode(latents).clamp(-1, 1) + 1) * 127.5).permute(0, 2, 3, 1).numpy()
        stored = np.stack([np.frombuffer(row["image"], np.uint8).reshape(32, 32, 3) for row in rows[:4]])
        assert np.abs(stored - expected).max() < 1.5

    def test_latents_are_a_dataset(self, pipeline: Pipeline) -> None:
        latents = dcae15.open_latents(str(pipeline.artifacts["cache_latents"]))
        value, label = latents[0]
        assert len(latents) == 300 and value.shape == (8, 4, 4) and 0 <= label < 5
        torch.testing.assert_close(latents[-1][0], latents[299][0])

    def test_plain_pyarrow_reads_latents(self, pipeline: Pipeline) -> None:
        uri = pipeline.artifacts["cache_latents"]
        table = pq.read_table(uri / "train" / "000001.parquet")
        latent = np.frombuffer(table["latent"][0].as_py(), np.float16).reshape(8, 4, 4)
        np.testing.assert_array_equal(latent.astype(np.float32), dcae15.open_latents(str(uri))[64][0].numpy())

    def test_latents_on_disk_are_those_of_the_images(self, pipeline: Pipeline) -> None:
        network = dcae15.load_autoencoder(str(pipeline.artifacts["train_autoencoder"]))
        rows = pq.read_table(pipeline.artifacts["prepare_images"] / "val" / "000000.parquet").to_pylist()
        images = np.stack([np.frombuffer(row["image"], np.uint8).reshape(32, 32, 3) for row in rows])
        direct = network.encode(to_pixels(torch.from_numpy(images)))
        latents = dcae15.open_latents(str(pipeline.artifacts["cache_latents"]), "val")
        stored = torch.stack([latents[i][0] for i in range(len(latents))])
        torch.testing.assert_close(stored, direct, atol=1e-3, rtol=2e-3)
        assert [latents[i][1] for i in range(len(latents))] == [row["label"] for row in rows]

    def test_what_must_agree_travels_inside(self, pipeline: Pipeline) -> None:
        denoiser = Denoiser.open(str(pipeline.artifacts["train_diffusion"]))
        latents = LatentSet.open(str(pipeline.artifacts["cache_latents"]))
        images = ImageSet.open(str(pipeline.artifacts["prepare_images"]))
        assert denoiser.latents == latents.spec and latents.spec.prefix_choices == (4, 8)
        assert denoiser.class_names == latents.class_names == images.class_names and len(images.class_names) == 5
        assert latents.spec.autoencoder == pipeline.artifacts["train_autoencoder"].name
