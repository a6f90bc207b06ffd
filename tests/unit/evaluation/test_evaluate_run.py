"""evaluate from artifact to artifact, on random weights: what is written, and what is left out."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from dcae15 import artifacts, storage
from dcae15.config import build, from_overrides
from dcae15.data import shards
from dcae15.errors import ConfigError
from dcae15.evaluation import evaluate_run
from dcae15.evaluation.evaluate_run import evaluate, features_of
from dcae15.models.autoencoder import Autoencoder
from dcae15.models.spec import AutoencoderSpec
from tests.unit.evaluation.codecs import scenes

CONFIG = build(
    [
        from_overrides(
            [
                "evaluation.feature_images=64",
                "evaluation.grid_images=2",
                "evaluation.channel_images=4",
                "evaluation.probe_images=24",
                "evaluation.reconstruction_images=20",
            ]
        )
    ]
)[0]


def image_set(root: Path, splits: dict[str, int], side: int = 32) -> str:
    written = {}
    for seed, (split, count) in enumerate(splits.items()):
        images, labels = scenes(count, side=side, seed=seed)
        metadata = {"encoding": "raw", "crop": "center", "resolution": side}
        rows = [f"{i}" for i in range(count)], labels.tolist(), [image.tobytes() for image in images]
        record = shards.write_shard(str(root), f"{split}/0.parquet", shards.image_table(*rows, metadata))
        written[split] = artifacts.Split((record.shard,))
    artifacts.ImageSet(str(root), root.name, ("above", "left"), side, "raw", "center", written, {}, "test").commit()
    return str(root)


def autoencoder(root: Path, channels: int, choices: tuple[int, ...], stages: int = 4) -> str:
    widths, depths = [8] * stages, [0] + [1] * (stages - 1)
    spec = AutoencoderSpec(channels, widths, depths, widths, depths)
    network = Autoencoder(spec, torch.Generator().manual_seed(channels))
    storage.write_bytes(storage.join(str(root), "weights.safetensors"), save(network.state_dict()))
    artifacts.Autoencoder(str(root), root.name, spec.to_dict(), 32, choices, "prefix", 0, "").commit()
    return str(root)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("evaluation")
    image_set(root / "images", {"train": 40, "val": 24})
    image_set(root / "samples", {"generated": 12})
    autoencoder(root / "structured", 8, (2, 4, 8))
    autoencoder(root / "theirs", 4, ())
    autoencoder(root / "coarse", 4, (), stages=7)
    return root


def run(place: Path, name: str, arms: list[str], **options) -> tuple[artifacts.Evaluation, dict[str, float], list[str]]:
    config = build([from_overrides([f"storage={place / 'storage'}"])])[0]
    config.evaluation = CONFIG.evaluation
    said: list[str] = []
    scalars = evaluate(
        config,
        images=str(place / "images"),
        autoencoders={arm: str(place / arm) for arm in arms},
        uri=str(place / name),
        fingerprint=name,
        say=said.append,
        **options,
    )
    return artifacts.Evaluation.open(str(place / name)), scalars, said


@pytest.fixture(scope="module")
def without_samples(place: Path):
    return run(place, "without", ["structured", "theirs"])


def test_arms_of_other_sizes_are_measured_side_by_side(without_samples):
    evaluation, _, _ = without_samples
    assert evaluation.prefixes == {"structured": [1, 2, 4, 8], "theirs": [1, 2, 4]}
    assert {arm: len(rows) for arm, rows in evaluation.channels.items()} == {"structured": 8, "theirs": 4}
    assert evaluation.summary["theirs"]["channels"] == 4
    assert [row["prefix"] for row in evaluation.structure["theirs"]] == [1, 2, 4]


def test_without_generated_images_there_is_no_generation(without_samples):
    evaluation, scalars, _ = without_samples
    assert evaluation.generation == {}
    assert "solver" not in evaluation.protocol
    assert evaluation.protocol["reference_count"] == "20"
    assert "samples" not in artifacts.read_pictures(evaluation.uri)
    assert not any("generated" in name for name in scalars)


def test_pictures_hold_reconstructions_and_channel_means(without_samples):
    pictures = artifacts.read_pictures(without_samples[0].uri)
    assert set(pictures) == {"inputs"} | {
        f"{what}.{arm}" for what in ("reconstructions", "channel_means") for arm in ("structured", "theirs")
    }
    assert pictures["reconstructions.structured"].shape == (4, 2, 32, 32, 3)
    assert pictures["channel_means.theirs"].shape == (3, 2, 4, 4)
    assert all(picture.dtype == np.uint8 for picture in pictures.values())


def test_the_manifest_is_plain_json_and_the_scalars_are_in_it(without_samples):
    evaluation, scalars, _ = without_samples
    manifest = json.loads(Path(evaluation.uri, "manifest.json").read_text(), parse_constant=pytest.fail)
    row = manifest["reconstruction"]["structured"][-1]
    assert scalars["evaluation/psnr.structured.c8"] == row["psnr"]
    assert np.isfinite(list(scalars.values())).all()


def test_warnings_are_kept_and_said(place: Path):
    weights = Autoencoder(
        AutoencoderSpec(8, [8] * 4, [0, 1, 1, 1], [8] * 4, [0, 1, 1, 1]), torch.Generator().manual_seed(8)
    )
    with torch.no_grad():
        weights.encoder.conv_out.weight[5:] = 0
    autoencoder(place / "numb", 8, (2, 4, 8))
    storage.write_bytes(str(place / "numb" / "weights.safetensors"), save(weights.state_dict()))
    evaluation, _, said = run(place, "warned", ["numb"])
    (warning,) = evaluation.warnings
    assert warning.startswith("dead channels: 3 of 8 latent channels of the numb autoencoder")
    assert f"evaluate: warning: {warning}" in said


def test_generated_images_and_lpips_are_measured_where_given(place: Path):
    evaluation, scalars, _ = run(
        place,
        "with",
        ["theirs"],
        samples=str(place / "samples"),
        perceptual=lambda a, b: (a - b).abs().mean(dim=(1, 2, 3)),
    )
    assert evaluation.prefixes == {"theirs": [1, 2, 4]}, "nothing is known about its training: the default ladder"
    assert evaluation.generation["images"] == 12
    assert scalars["evaluation/frechet_distance.generated"] == evaluation.generation["frechet_distance"]
    assert evaluation.protocol["count"] == "12" and evaluation.protocol["solver"] == "heun"
    assert artifacts.read_pictures(evaluation.uri)["samples"].shape == (2, 2, 32, 32, 3)
    assert all(row["lpips"] > 0 for row in evaluation.reconstruction["theirs"])


@pytest.mark.parametrize(
    ("val", "train", "left", "curves", "generation"),
    [
        (
            3,
            40,
            ["precision and recall of generated images"],
            {"psnr", "ssim", "frechet_distance", "class_accuracy"},
            {"frechet_distance", "class_accuracy", "frechet_distance_of_training_images", "images"},
        ),
        (
            3,
            1,
            ["precision and recall of generated images", "the Fréchet distance of training images"],
            {"psnr", "ssim", "frechet_distance", "class_accuracy"},
            {"frechet_distance", "class_accuracy", "images"},
        ),
        (
            1,
            2,
            [
                "the Fréchet distance of reconstructions and the shares of frequencies",
                "the Fréchet distance of generated images",
                "precision and recall of generated images",
            ],
            {"psnr", "ssim", "class_accuracy"},
            {"class_accuracy", "images"},
        ),
        (0, 40, ["every measure"], set(), set()),
    ],
)
def test_of_few_images_is_measured_what_they_allow(place: Path, tmp_path, val, train, left, curves, generation):
    images = image_set(tmp_path / "images", {"train": train, "val": val})
    config = build([from_overrides([f"storage={tmp_path}"])])[0]
    config.evaluation = CONFIG.evaluation
    said: list[str] = []
    arms = {"structured": str(place / "structured"), "baseline": str(place / "theirs")}
    uri, samples = str(tmp_path / "made"), str(place / "samples")
    scalars = evaluate(
        config, images=images, autoencoders=arms, uri=uri, fingerprint="x", samples=samples, say=said.append
    )
    made = artifacts.Evaluation.open(uri)
    assert [
        warning.split(" is left")[0].split(" are left")[0] for warning in made.warnings if "left out" in warning
    ] == left
    assert all(f"evaluate: warning: {warning}" in said for warning in made.warnings)
    assert {name for rows in made.reconstruction.values() for row in rows for name in row} - {"prefix"} == curves
    assert set(made.generation) == generation
    assert np.isfinite(list(scalars.values())).all()
    pictures = artifacts.read_pictures(uri)
    assert pictures["samples"].shape[0] == 2 and pictures["samples"].shape[1] >= 1, "shown whatever is measured"
    assert ("inputs" in pictures) == bool(val)


def test_images_that_do_not_fit_the_autoencoder_are_refused(place: Path):
    with pytest.raises(ConfigError, match=r"the coarse autoencoder .* compresses by 64"):
        run(place, "refused", ["coarse"])
    with pytest.raises(ConfigError, match="no autoencoder"):
        run(place, "refused", [])
    assert not artifacts.finished(str(place / "refused"))


def test_the_feature_network_trains_from_the_loader_where_the_images_do_not_fit(place: Path, monkeypatch):
    def network(name: str):
        config = build([from_overrides([f"storage={place / name}", "evaluation.feature_images=128"])])[0]
        return features_of(config, artifacts.ImageSet.open(str(place / "images")), "cpu", lambda line: None)

    held = network("held")
    monkeypatch.setattr(evaluate_run, "MOST_FEATURE_BYTES", 40 * 32 * 32 * 3 - 1)
    monkeypatch.setattr(evaluate_run, "load_images", lambda *_: pytest.fail("images are held"))
    streamed, again = network("streamed"), network("again")
    assert streamed.digest == again.digest != held.digest, "as reproducible, in another order"
