"""The denoiser at its milestones: what is measured of it, once, and the same as of the finished one's samples."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dcae15 import artifacts
from dcae15.config import Config
from dcae15.errors import ArtifactError, ConfigError
from dcae15.evaluation.evaluate_run import evaluate
from dcae15.evaluation.milestones import commit_milestones, measure_milestone
from dcae15.runtime import LocalRuntime
from dcae15.stages.image_sampling import SPLIT, SampleWriter
from dcae15.stages.shard_writing import ShardPlan
from dcae15.tracking import Tracker
from dcae15.training.diffusion import train_diffusion
from tests.latent_sets import make_autoencoder, make_images, make_latents


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of which 5 validate, an autoencoder, and a denoiser that was kept after 32 and after 64, its last, images."""
    root = tmp_path_factory.mktemp("milestones")
    images, autoencoder = make_images(str(root / "images")), make_autoencoder(str(root / "autoencoder"))
    latents = make_latents(str(root / "latents"), images, autoencoder)
    train_diffusion(
        config(root),
        latents=latents,
        uri=str(root / "denoiser"),
        fingerprint="3" * 16,
        runtime=LocalRuntime(device=torch.device("cpu")),
        tracker=Tracker(),
    )
    return root


def config(root: Path, **evaluation: int) -> Config:
    config = Config(storage=str(root / "storage"))
    diffusion = config.diffusion
    diffusion.denoiser.depth, diffusion.denoiser.width, diffusion.denoiser.heads = 1, 16, 2
    diffusion.prefix.kind, diffusion.milestones = "none", [20, 64]
    diffusion.training = diffusion.training.changed(images=64, batch_size=16, warmup_images=16)
    config.sampling.images, config.sampling.steps = 5, 2
    settings = {
        "feature_images": 64,
        "neighbours": 2,
        "reconstruction_images": 4,
        "probe_images": 0,
        "grid_images": 1,
        "channel_images": 2,
        **evaluation,
    }
    config.evaluation = config.evaluation.changed(**settings)
    return config


def measured(place: Path, out: Path, seen: int, said: list[str] | None = None, **changes: str | Config) -> dict:
    inputs = {name: str(place / name) for name in ("images", "autoencoder")}
    arguments = {
        "config": config(place),
        **inputs,
        "denoiser": artifacts.snapshot_uri(str(place / "denoiser"), seen),
        "uri": str(out),
        "say": (said if said is not None else []).append,
        **changes,
    }
    return measure_milestone(**arguments)  # pyright: ignore[reportArgumentType]


def test_a_row_says_what_the_snapshot_generates_and_is_measured_once(place, tmp_path):
    row = measured(place, tmp_path, 32)
    names = ["frechet_distance", "precision", "recall", "class_accuracy"]
    assert list(row) == ["images", *(f"{name}.generated" for name in names)]
    assert row["images"] == 32
    assert row["frechet_distance.generated"] > 0
    assert measured(place, tmp_path, 64)["frechet_distance.generated"] != row["frechet_distance.generated"]
    assert measured(place, tmp_path, 32, autoencoder="nowhere") == row, "read, not made again"
    assert measured(place, tmp_path / "again", 32) == row


def test_rows_become_an_artifact_in_order(place, tmp_path):
    kept = config(place).diffusion.whole_milestones
    assert kept == [32, 64]
    rows = [measured(place, tmp_path, images) for images in reversed(kept)]
    assert not artifacts.finished(str(tmp_path))
    commit_milestones(str(tmp_path), "4" * 16, kept)
    assert artifacts.Milestones.open(str(tmp_path)).rows == tuple(reversed(rows))


def test_the_last_milestone_is_measured_as_the_evaluation_measures(place, tmp_path):
    settings, samples = config(place), str(tmp_path / "samples")
    writer = SampleWriter(samples, str(place / "denoiser"), str(place / "autoencoder"), settings.sampling, "cpu")
    record = writer.write(ShardPlan(f"{SPLIT}/0.parquet", 5, (0, 5)))
    splits = {SPLIT: artifacts.Split((record.shard,))}
    artifacts.ImageSet(samples, "5" * 16, ("a", "b", "c"), 16, "raw", "center", splits, {}, "test").commit()
    scalars = evaluate(
        settings,
        images=str(place / "images"),
        autoencoders={"structured": str(place / "autoencoder")},
        uri=str(tmp_path / "evaluation"),
        fingerprint="6" * 16,
        samples=samples,
        say=lambda line: None,
    )
    row = measured(place, tmp_path / "milestones", 64)
    assert {f"evaluation/{name}": value for name, value in row.items() if name != "images"}.items() <= scalars.items()


def test_the_number_of_generated_images_is_the_milestones_own_or_that_of_sampling(place, tmp_path):
    all_five = measured(place, tmp_path / "a", 32)
    assert measured(place, tmp_path / "b", 32, config=config(place, milestone_images=9)) == all_five, (
        "as many as validate"
    )
    assert measured(place, tmp_path / "c", 32, config=config(place, milestone_images=4)) != all_five


def test_what_needs_more_images_is_left_out_of_a_row(place, tmp_path):
    few = measured(place, tmp_path / "few", 32, config=config(place, milestone_images=3, neighbours=4))
    assert list(few) == ["images", "frechet_distance.generated", "class_accuracy.generated"]
    single = measured(place, tmp_path / "single", 32, config=config(place, milestone_images=1, neighbours=4))
    assert list(single) == ["images", "class_accuracy.generated"]
    without = artifacts.ImageSet.open(str(place / "images"))
    without = replace(without, uri=str(tmp_path / "none"), splits={**without.splits, "val": artifacts.Split(())})
    shutil.copytree(place / "images", without.uri)
    without.commit()
    assert measured(place, tmp_path / "none_at_all", 32, images=without.uri) == {"images": 32}


def test_the_feature_network_is_trained_once(place, tmp_path):
    settings = config(place).changed(storage=str(tmp_path / "storage"))
    said: list[str] = []
    for name in ("a", "b"):
        measured(place, tmp_path / name, 32, said, config=settings)
    assert said == ["features: training the network on 64 images"]


def test_artifacts_that_do_not_belong_together_are_refused(place, tmp_path):
    other = make_autoencoder(str(tmp_path / "other"), seed=1)
    with pytest.raises(ConfigError, match=r"milestones/0+32 generates latents of autoencoder 0+, but .*other is 1+;"):
        measured(place, tmp_path / "a", 32, autoencoder=other)
    larger = make_images(str(tmp_path / "larger"), side=32)
    with pytest.raises(ConfigError, match="images of 16 pixels cannot be compared with images of 32 pixels"):
        measured(place, tmp_path / "a", 32, images=larger)
    with pytest.raises(ArtifactError, match="0048 does not exist"):
        measured(place, tmp_path / "a", 48)
