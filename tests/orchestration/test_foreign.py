"""Foreign autoencoders in the place of trained ones: in the plan, in the latent cache, in the evaluation, in the scripts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from dcae15 import artifacts
from dcae15.config import Config
from dcae15.data import shards
from dcae15.data.pixels import to_pixels
from dcae15.data.stream import load_images
from dcae15.errors import ArtifactError, WeightsError
from dcae15.export.foreign_config import official_dotlist, spec_from_official
from dcae15.export.foreign_weights import import_autoencoder
from dcae15.export.layouts import build_autoencoder, from_official
from dcae15.models.presets import GRAPH_FIELDS
from dcae15.models.spec import AutoencoderSpec
from dcae15.orchestration import export
from dcae15.orchestration.cache import EncodeWriter, latent_spec, plan_latents
from dcae15.orchestration.plan import STAGES, plan
from tests.scripts import TINY, workplace

GOLDEN = Path(__file__).parents[1] / "parity" / "golden"
NAMES = ("dcae15_f8c16", "dcae11_f8c16", "dcae10_f8c16")


def golden(name: str) -> tuple[AutoencoderSpec, dict[str, torch.Tensor]]:
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
        keys = [key for key in file.keys() if key.startswith("state_dict.")]  # noqa: SIM118
        weights = {key.removeprefix("state_dict."): file.get_tensor(key) for key in keys}
        return spec_from_official(file.metadata()["config"]), weights


def official_file(folder: Path, name: str) -> str:
    path = folder / f"{name}.pt"
    torch.save({"state_dict": golden(name)[1]}, path)
    return str(path)


def asking_for(spec: AutoencoderSpec, root: Path) -> Config:
    config = Config(storage=str(root))
    for name in GRAPH_FIELDS:
        value = getattr(spec, name)
        setattr(config.autoencoder, name, list(value) if isinstance(value, tuple) else value)
    return config


def words(spec: AutoencoderSpec) -> list[str]:
    values = {name: getattr(spec, name) for name in GRAPH_FIELDS}
    texts = {k: f"[{','.join(map(str, v))}]" if isinstance(v, tuple) else str(v) for k, v in values.items()}
    return [f"autoencoder.{name}={text}" for name, text in texts.items()]


@pytest.fixture(scope="module")
def image_set(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = str(tmp_path_factory.mktemp("images"))
    generator = np.random.default_rng(0)
    splits = {}
    for split in ("train", "val"):
        images = [generator.integers(0, 255, (32, 32, 3), np.uint8).tobytes() for _ in range(6)]
        table = shards.image_table([f"{split}/{i}" for i in range(6)], [i % 2 for i in range(6)], images, {})
        splits[split] = artifacts.Split((shards.write_shard(root, f"{split}/0.parquet", table).shard,))
    artifacts.ImageSet(root, "images", ("a", "b"), 32, "raw", "center", splits, {}, "test").commit()
    return root


@pytest.mark.parametrize("name", NAMES)
def test_official_weights_go_through_the_latent_cache_and_the_evaluation(image_set, tmp_path, name):
    spec, weights = golden(name)
    config = asking_for(spec, tmp_path)
    given = {"images": image_set, "autoencoder": official_file(tmp_path, name)}
    first, cache = [stage for stage in plan(config, given) if stage.name in ("import_autoencoder", "cache_latents")]
    import_autoencoder(first.inputs["weights"], spec, uri=first.uri, fingerprint=first.fingerprint)
    assert cache.inputs == {"images": image_set, "autoencoder": first.uri}
    images = artifacts.ImageSet.open(image_set)
    latents = latent_spec(images, first.uri)
    assert (latents.channels, latents.height, latents.prefix_choices) == (16, 4, ())
    config.latents.dtype = "float32"
    writer = EncodeWriter(str(tmp_path / "latents"), image_set, first.uri, latents, config.latents, "cpu")
    reference = build_autoencoder(from_official(weights, spec), spec)
    for shard_plan in plan_latents(images, config.latents):
        table = shards.read_shard(str(tmp_path / "latents"), writer.write(shard_plan).shard)
        stored = shards.decode_latents(table.column("latent"), (16, 4, 4), "float32")
        pixels, _ = load_images(images, shard_plan.path.split("/")[0], 6)
        with torch.no_grad():
            torch.testing.assert_close(stored, reference.encode(to_pixels(torch.from_numpy(pixels))))


def test_the_plan_names_imports_by_their_content_and_graph(tmp_path):
    spec, _ = golden("dcae10_f8c16")
    config = asking_for(spec, tmp_path)
    file = official_file(tmp_path, "dcae10_f8c16")
    stages = {stage.name: stage for stage in plan(config, {"autoencoder": file})}
    assert next(iter(stages)) == "import_autoencoder" and "train_autoencoder" not in stages
    assert "16x4x4" in stages["cache_latents"].facts["each"]
    (tmp_path / "elsewhere").mkdir()
    moved = Path(file).rename(tmp_path / "elsewhere" / "renamed.pt")
    again = {stage.name: stage.fingerprint for stage in plan(config, {"autoencoder": str(moved)})}
    assert again == {name: stage.fingerprint for name, stage in stages.items()}
    official_file(tmp_path / "elsewhere", "dcae15_f8c16")
    other = plan(config, {"autoencoder": str(tmp_path / "elsewhere" / "dcae15_f8c16.pt")})[0]
    assert other.fingerprint != again["import_autoencoder"]


def test_a_folder_says_its_graph_to_the_plan_and_a_baseline_may_be_foreign_too(tmp_path):
    spec, weights = golden("dcae10_f8c16")
    save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"dotlist": official_dotlist(spec)}))
    given = {"autoencoder": str(tmp_path), "baseline": str(tmp_path)}
    stages = {stage.name: stage for stage in plan(Config(storage=str(tmp_path / "storage")), given)}
    assert list(stages)[:2] == ["import_autoencoder", "import_baseline"]
    assert "16x4x4" in stages["cache_latents"].facts["each"]
    assert stages["evaluate"].inputs["baseline"] == stages["import_baseline"].uri


def test_without_foreign_weights_nothing_is_imported(tmp_path):
    assert {stage.name for stage in plan(Config(storage=str(tmp_path)))} <= set(STAGES)


def test_export_of_foreign_weights_needs_no_stage_before(tmp_path, capsys):
    spec, weights = golden("dcae10_f8c16")
    config = asking_for(spec, tmp_path / "storage")
    inputs = {"autoencoder": official_file(tmp_path, "dcae10_f8c16"), "to": str(tmp_path / "to"), "format": "official"}
    export.export(config, inputs, dry_run=True)
    assert not (tmp_path / "storage").exists() and not (tmp_path / "to").exists()
    export.export(config, inputs)
    assert f"exported: {tmp_path / 'to'} (official)" in capsys.readouterr().out
    with safe_open(tmp_path / "to" / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(weights)
        assert all(torch.equal(file.get_tensor(key), value) for key, value in weights.items())


def test_export_says_what_is_missing(tmp_path):
    config = Config(storage=str(tmp_path / "storage"))
    with pytest.raises(
        ArtifactError, match=r"no autoencoder of this configuration.*train_autoencoder\.py.*autoencoder=URI"
    ):
        export.export(config, {"to": str(tmp_path / "to")})
    with pytest.raises(WeightsError, match=r"dcae10_f8c16\.pt: .*autoencoder\.preset=NAME"):
        export.export(config, {"to": str(tmp_path / "to"), "autoencoder": official_file(tmp_path, "dcae10_f8c16")})


@pytest.mark.ray
@pytest.mark.timeout(1200)
def test_the_scripts_take_foreign_weights(tmp_path):
    diffusers = pytest.importorskip("diffusers", reason="diffusers is a test dependency only")
    spec, weights = golden("dcae10_f8c16")
    file = official_file(tmp_path, "dcae10_f8c16")
    base = ["--config", str(TINY), f"storage={tmp_path / 'storage'}", "data.shapes.images=80", *words(spec)]
    with workplace(tmp_path / "cwd") as place:
        done = place.run("prepare_images", *base)
        assert done.code == 0, done.err
        done = place.run("cache_latents", *base, f"autoencoder={file}")
        assert done.code == 0, done.err
        assert done.stages("runs") == ["import_autoencoder", "cache_latents"]
        _, latents = (
            line.removeprefix("artifact: ") for line in done.out.splitlines() if line.startswith("artifact: ")
        )
        latent_set = artifacts.LatentSet.open(latents)
        assert (latent_set.spec.channels, latent_set.spec.prefix_choices) == (16, ())
        again = place.run("cache_latents", *base, f"autoencoder={file}", "--dry-run")
        assert again.out.count(" reused ") == 2, again.out
        done = place.run("export", *base, f"autoencoder={file}", f"latents={latents}", f"to={tmp_path / 'to'}")
        assert done.code == 0, done.err
        done = place.run("evaluate", *base, f"autoencoder={file}")
        assert done.code == 0, done.err
        assert "without its baseline, generated images, which are not there" in done.out
        assert done.stages("reused") == ["import_autoencoder"] and done.stages("runs") == ["evaluate"]
        evaluation = artifacts.Evaluation.open(done.out.rsplit("artifact: ", 1)[1].splitlines()[0])
        assert [row["prefix"] for row in evaluation.reconstruction["structured"]] == [2, 4, 8, 16]
        wrong = place.run("cache_latents", *base, f"autoencoder={file}", "autoencoder.latent_channels=8")
        assert wrong.code == 1 and "error: import_autoencoder: " in wrong.err and "mis-shaped" in wrong.err
        assert "Traceback" not in wrong.err
    theirs = diffusers.AutoencoderDC.from_pretrained(tmp_path / "to")
    assert theirs.config.scaling_factor == pytest.approx(1 / np.sqrt(np.mean(np.square(latent_set.statistics.rms))))
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        expected = build_autoencoder(from_official(weights, spec), spec).encode(image)
        torch.testing.assert_close(theirs.encode(image).latent, expected, rtol=1e-5, atol=1e-5)
