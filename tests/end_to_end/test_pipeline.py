"""The whole pipeline on one machine as a user sees it: what it prints, what it leaves, what it does when asked again."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import dcae15
from dcae15.artifacts import Denoiser, Evaluation, ImageSet, LatentSet, Milestones, read_manifest
from dcae15.config import SamplingConfig
from dcae15.data.pixels import to_pixels
from tests.conftest import Finished
from tests.scripts import TINY, Done, Workplace

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

KINDS = {
    "prepare_images": "images",
    "train_autoencoder": "autoencoder",
    "train_baseline": "autoencoder",
    "cache_latents": "latents",
    "train_diffusion": "denoiser",
    "sample": "images",
    "evaluate": "evaluation",
}
STAGES = list(KINDS)
"""Those of the default configuration, which trains no control with random masks."""
WORDS = ("--config", str(TINY))
MILESTONES = ("diffusion.milestones=[100,640]", "scaling.num_workers=2")


@pytest.fixture(scope="module")
def storage(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished.copy(tmp_path_factory.mktemp("changed") / "storage")


@pytest.fixture(scope="module")
def changed(place: Workplace, storage: Path) -> Done:
    done = place.run("full", *WORDS, f"storage={storage}", "tracking.enabled=false", *MILESTONES)
    assert done.code == 0, done.err
    return done


@pytest.fixture(scope="module")
def runs(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> tuple[MlflowClient, list[Run]]:
    """What was tracked, oldest first."""
    from mlflow import MlflowClient

    copy = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    shutil.copy(finished.storage / "mlflow.db", copy)
    client = MlflowClient(f"sqlite:///{copy}")
    experiment = client.get_experiment_by_name("dcae15")
    assert experiment is not None
    return client, list(client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"]))


class TestConsole:
    """What the first run printed."""

    def test_the_plan_before_is_to_run_everything(self, finished: Finished) -> None:
        assert finished.planned.code == 0
        assert [line.split()[0] for line in finished.planned.out.splitlines() if " to run " in line] == STAGES
        assert "360" in finished.planned.out, "the number of images"
        assert "640 images in batches of 16" in finished.planned.out

    def test_what_ran_is_what_was_planned(self, finished: Finished) -> None:
        assert list(finished.artifacts) == STAGES
        for stage, path in finished.artifacts.items():
            assert f"{path.name}  {path}" in finished.planned.out, stage

    def test_it_shows_progress_and_nothing_else(self, finished: Finished) -> None:
        lines = finished.done.out.splitlines()
        assert lines[-1].startswith("report: ")
        assert finished.done.stages("runs") == STAGES
        for who in ("autoencoder", "denoiser"):
            assert any(re.match(rf"{who}: 320/640 images  loss \d+\.\d+ .* ETA \d+:\d\d$", line) for line in lines), who
        known = rf"({'|'.join(STAGES)}|draw_shapes|source|autoencoder|denoiser|features|report): "
        assert [line for line in lines if not re.match(known, line)] == []
        assert "Traceback" not in finished.done.err


class TestArtifacts:
    """What the first run left."""

    def test_the_report_is_one_file_that_needs_no_other(self, finished: Finished) -> None:
        page = Path(finished.done.out.splitlines()[-1].removeprefix("report: ")).read_text()
        sources = re.findall(r"src\s*=\s*[\"']?([^\"'\s>]+)", page)
        assert len(sources) >= 5 and all(source.startswith("data:image/") for source in sources)
        assert not re.search(r"<script|<link|@import|url\((?!data:)", page)
        assert [stage for stage, path in finished.artifacts.items() if path.name not in page] == []
        assert "300 training and 60 validation images" in page

    def test_every_stage_leaves_an_artifact_with_a_manifest(self, finished: Finished) -> None:
        for stage, path in finished.artifacts.items():
            manifest = read_manifest(str(path))
            assert (manifest["kind"], manifest["fingerprint"]) == (KINDS[stage], path.name)
            for split in manifest.get("splits", {}).values():
                for shard in split["shards"]:
                    assert (path / shard["path"]).stat().st_size == shard["bytes"]

    def test_no_image_is_lost_on_the_way(self, finished: Finished) -> None:
        images = ImageSet.open(str(finished.artifacts["prepare_images"]))
        latents = LatentSet.open(str(finished.artifacts["cache_latents"]))
        assert {name: split.count for name, split in images.splits.items()} == {"train": 300, "val": 60}
        for split in ("train", "val"):
            ids = [
                [
                    i
                    for shard in s.splits[split].shards
                    for i in pq.read_table(f"{s.uri}/{shard.path}")["id"].to_pylist()
                ]
                for s in (images, latents)
            ]
            assert ids[0] == ids[1] and len(set(ids[0])) == images.splits[split].count
        assert ImageSet.open(str(finished.artifacts["sample"])).splits["generated"].count == 40

    def test_nothing_unfinished_is_left(self, finished: Finished) -> None:
        left = [
            str(path.relative_to(finished.storage))
            for path in finished.storage.rglob("*")
            if path.name == "checkpoints" or path.name.startswith((".tmp", "tmp"))
        ]
        assert left == []
        assert not any((finished.storage / ".ray").rglob("*"))

    def test_what_must_agree_travels_inside(self, finished: Finished) -> None:
        denoiser = Denoiser.open(str(finished.artifacts["train_diffusion"]))
        latents = LatentSet.open(str(finished.artifacts["cache_latents"]))
        images = ImageSet.open(str(finished.artifacts["prepare_images"]))
        assert denoiser.latents == latents.spec and latents.spec.prefix_choices == (4, 8)
        assert denoiser.class_names == latents.class_names == images.class_names and len(images.class_names) == 5
        assert latents.spec.autoencoder == finished.artifacts["train_autoencoder"].name


class TestAskedAgain:
    """The same storage, and other commands; none of them starts Ray."""

    def run(self, place: Workplace, finished: Finished, script: str, *words: str) -> Done:
        return place.run_here(script, *WORDS, f"storage={finished.storage}", *words)

    def test_the_same_command_reuses_everything(self, finished: Finished, place: Workplace) -> None:
        again = self.run(place, finished, "full")
        assert (again.code, again.stages("reused"), again.stages("runs")) == (0, STAGES, [])
        assert again.out.splitlines()[-1] == finished.done.out.splitlines()[-1]
        assert again.artifacts == finished.artifacts

    def test_fields_that_cannot_change_a_result_do_not_run_anything(self, finished: Finished, place: Workplace) -> None:
        words = ("scaling.num_workers=7", "autoencoder.training.log_images=32", "name=other", "tracking.enabled=false")
        plan = self.run(place, finished, "full", "--dry-run", *words).out
        assert plan.count(" reused ") == len(STAGES) and " to run " not in plan

    @pytest.mark.parametrize(
        "script", ["prepare_images", "train_autoencoder", "cache_latents", "train_diffusion", "sample", "evaluate"]
    )
    def test_each_stage_script_finds_what_the_pipeline_made(
        self, finished: Finished, place: Workplace, script: str
    ) -> None:
        done = self.run(place, finished, script)
        assert done.code == 0, done.err
        assert f"artifact: {finished.artifacts[script]}" in done.out.splitlines()
        assert ("next: python pipelines/" in done.out) == (script != "evaluate")

    @pytest.mark.parametrize(
        ("script", "maker"),
        [
            ("cache_latents", "prepare_images"),
            ("train_diffusion", "cache_latents"),
            ("sample", "train_diffusion"),
            ("evaluate", "prepare_images"),
        ],
    )
    def test_a_stage_without_its_input_names_the_script_that_makes_it(
        self, finished: Finished, place: Workplace, tmp_path: Path, script: str, maker: str
    ) -> None:
        done = self.run(place, finished, script, f"storage={tmp_path}")
        assert done.code == 1
        assert re.search(rf"^error: {script} needs .* run `python pipelines/{maker}\.py`", done.err, re.MULTILINE)


class TestChanged:
    """The same pipeline with milestones, and on two of Ray's workers."""

    def test_only_what_depends_on_the_fields_is_run(self, finished: Finished, changed: Done) -> None:
        assert changed.stages("reused") == ["prepare_images", "train_autoencoder", "train_baseline", "cache_latents"]
        assert changed.stages("runs") == ["train_diffusion", "measure_milestones", "sample", "evaluate"]
        report = finished.done.out.splitlines()[-1].rsplit("/", 2)[1]
        assert report not in changed.out.splitlines()[-1], "each run has its own report"

    def test_milestones_are_measured_between_the_parts_of_the_training(self, changed: Done) -> None:
        lines = changed.out.splitlines()
        assert any(line.startswith("denoiser: continues at 112 images") for line in lines)
        rows = Milestones.open(str(changed.artifacts["measure_milestones"])).rows
        assert [row["images"] for row in rows] == [112, 640]
        generated = Evaluation.open(str(changed.artifacts["evaluate"])).generation
        last = {name.removesuffix(".generated"): value for name, value in rows[-1].items() if name != "images"}
        assert last == {name: pytest.approx(generated[name], rel=1e-3, abs=1e-6) for name in last}
        assert lines.count("features: training the network on 640 images") <= 1, "milestones and evaluation share it"

    def test_the_script_measures_what_is_not_measured_yet(self, place: Workplace, storage: Path, changed: Done) -> None:
        words = (*WORDS, f"storage={storage}", "tracking.enabled=false", MILESTONES[0], "sampling.seed=1")
        measured = place.run("measure_milestones", *words)
        assert measured.code == 0, measured.err
        assert measured.stages("runs") == ["measure_milestones"]
        assert [row["images"] for row in Milestones.open(measured.artifact).rows] == [112, 640]
        assert Path(measured.artifact) != changed.artifacts["measure_milestones"]
        assert "next: python pipelines/sample.py" in measured.out
        assert place.run_here("train_diffusion", *words).out.count("measure_milestones.py") == 1


class TestTracking:
    """One run in MLflow for the pipeline, and one below it per stage that ran."""

    def test_one_parent_and_one_child_per_stage(self, runs: tuple[MlflowClient, list[Run]]) -> None:
        parent, *children = runs[1]
        assert parent.data.params["autoencoder.training.images"] == "640"
        assert [run.info.run_name for run in children] == STAGES
        assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
        assert {run.info.status for run in runs[1]} == {"FINISHED"}

    def test_metrics_have_images_as_steps(self, runs: tuple[MlflowClient, list[Run]]) -> None:
        client, found = runs
        for stage in ("train_autoencoder", "train_baseline", "train_diffusion"):
            run = next(run for run in found if run.info.run_name == stage)
            history = client.get_metric_history(run.info.run_id, "loss")
            assert [metric.step for metric in history] == [160, 320, 480, 640], stage
            assert all(np.isfinite(metric.value) for metric in history)
            assert {"learning_rate", "gradient_norm", "images_per_second"} <= set(run.data.metrics)

    def test_finished_sets_are_counted(self, runs: tuple[MlflowClient, list[Run]]) -> None:
        client, found = runs
        counted = {run.info.run_name: run for run in found if "shards" in run.data.metrics}
        metrics = {stage: run.data.metrics for stage, run in counted.items()}
        images = {"prepare_images": 360, "cache_latents": 360, "sample": 40}
        assert {stage: numbers["images"] for stage, numbers in metrics.items()} == images
        assert all(numbers["images_per_second"] > 0 and numbers["bytes"] > 0 for numbers in metrics.values())
        assert 0 < metrics["cache_latents"]["latent_rms_least"] <= metrics["cache_latents"]["latent_rms_most"]
        names = {item.path for item in client.list_artifacts(counted["cache_latents"].info.run_id)}
        assert "channels.json" in names

    def test_pictures_and_the_report_are_kept(self, runs: tuple[MlflowClient, list[Run]], finished: Finished) -> None:
        client, found = runs
        parent = found[0].info.run_id
        assert {"report.html", "images"} <= {item.path for item in client.list_artifacts(parent)}
        assert any(item.path.endswith(".png") for item in client.list_artifacts(parent, "images"))
        assert str(found[0].info.artifact_uri).startswith(str(finished.storage))


class TestLibrary:
    """What the pipeline made, opened from Python."""

    def test_an_autoencoder_encodes_and_decodes_any_prefix(self, finished: Finished) -> None:
        network = dcae15.load_autoencoder(str(finished.artifacts["train_autoencoder"]))
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

    def test_the_generated_images_are_what_the_denoiser_samples(self, finished: Finished) -> None:
        denoiser = dcae15.load_denoiser(str(finished.artifacts["train_diffusion"]))
        autoencoder = dcae15.load_autoencoder(denoiser.artifact.autoencoder_uri)
        rows = pq.read_table(finished.artifacts["sample"] / "generated" / "000000.parquet").to_pylist()
        settings, labels = SamplingConfig(steps=2), [row["label"] for row in rows[:4]]
        latents = denoiser.sample(labels, settings)
        assert latents.shape == (4, 8, 4, 4)
        torch.testing.assert_close(denoiser.sample(labels[3:], settings, first=3), latents[3:], atol=1e-4, rtol=1e-3)
        expected = ((autoencoder.decode(latents).clamp(-1, 1) + 1) * 127.5).permute(0, 2, 3, 1).numpy()
        stored = np.stack([np.frombuffer(row["image"], np.uint8).reshape(32, 32, 3) for row in rows[:4]])
        assert np.abs(stored - expected).max() < 1.5

    def test_latents_are_a_dataset_and_plain_pyarrow_reads_them(self, finished: Finished) -> None:
        uri = finished.artifacts["cache_latents"]
        latents = dcae15.open_latents(str(uri))
        value, label = latents[12]
        assert len(latents) == 300 and value.shape == (8, 4, 4) and 0 <= label < 5
        torch.testing.assert_close(latents[-1][0], latents[299][0])
        table = pq.read_table(uri / "train" / "000001.parquet")
        latent = np.frombuffer(table["latent"][0].as_py(), np.float16).reshape(8, 4, 4)
        np.testing.assert_array_equal(latent.astype(np.float32), value.numpy())

    def test_latents_on_disk_are_those_of_the_images(self, finished: Finished) -> None:
        network = dcae15.load_autoencoder(str(finished.artifacts["train_autoencoder"]))
        rows = pq.read_table(finished.artifacts["prepare_images"] / "val" / "000000.parquet").to_pylist()
        images = np.stack([np.frombuffer(row["image"], np.uint8).reshape(32, 32, 3) for row in rows])
        direct = network.encode(to_pixels(torch.from_numpy(images)))
        latents = dcae15.open_latents(str(finished.artifacts["cache_latents"]), "val")
        stored = torch.stack([latents[i][0] for i in range(len(rows))])
        torch.testing.assert_close(stored, direct, atol=1e-3, rtol=2e-3)
        assert [latents[i][1] for i in range(len(rows))] == [row["label"] for row in rows]
