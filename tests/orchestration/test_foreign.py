"""Foreign autoencoders in the place of trained ones: in the plan, the latent cache, the evaluation, and as exports."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import dcae15
from dcae15.artifacts import Evaluation, ImageSet, LatentSet
from dcae15.data import shards
from dcae15.data.pixels import to_pixels
from dcae15.export.foreign_config import official_dotlist, spec_from_official
from dcae15.export.layouts import build_autoencoder, from_official
from dcae15.models.presets import GRAPH_FIELDS
from dcae15.models.spec import AutoencoderSpec
from tests.conftest import Finished
from tests.scripts import TINY, Workplace

GOLDEN = Path(__file__).parents[1] / "parity" / "golden"
NAMES = ("dcae15_f8c16", "dcae11_f8c16", "dcae10_f8c16")


def golden(name: str) -> tuple[AutoencoderSpec, dict[str, torch.Tensor]]:
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
        keys = [key for key in file.keys() if key.startswith("state_dict.")]  # noqa: SIM118
        weights = {key.removeprefix("state_dict."): file.get_tensor(key) for key in keys}
        return spec_from_official(file.metadata()["config"]), weights


def official_file(folder: Path, name: str) -> Path:
    path = folder / f"{name}.pt"
    torch.save({"state_dict": golden(name)[1]}, path)
    return path


def words(name: str, storage: Path) -> list[str]:
    """Words that ask for the graph of golden weights."""
    values = {field: getattr(golden(name)[0], field) for field in GRAPH_FIELDS}
    texts = {k: f"[{','.join(map(str, v))}]" if isinstance(v, tuple) else str(v) for k, v in values.items()}
    return ["--config", str(TINY), f"storage={storage}", *(f"autoencoder.{k}={text}" for k, text in texts.items())]


def planned(place: Workplace, script: str, *words: str) -> dict[str, str]:
    """The fingerprint of each stage that would run."""
    done = place.run_here(script, *words, "--dry-run")
    assert done.code == 0, done.err
    return dict(re.findall(r"^(\w+) +to run +(\w+) ", done.out, re.MULTILINE))


@pytest.mark.parametrize("name", NAMES)
def test_official_weights_compute_the_same_and_are_exported_without_a_stage_before(place, tmp_path, name):
    spec, weights = golden(name)
    export = [*words(name, tmp_path / "storage"), f"autoencoder={official_file(tmp_path, name)}"]
    export += [f"to={tmp_path / 'to'}", "format=official"]
    assert place.run_here("export", *export, "--dry-run").code == 0
    assert not (tmp_path / "storage").exists() and not (tmp_path / "to").exists()
    done = place.run_here("export", *export)
    assert done.code == 0, done.err
    assert f"exported: {tmp_path / 'to'} (official)" in done.out
    with safe_open(tmp_path / "to" / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(weights)
        assert all(torch.equal(file.get_tensor(key), value) for key, value in weights.items())
    (imported,) = (tmp_path / "storage" / "autoencoder").iterdir()
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    ours, theirs = dcae15.load_autoencoder(str(imported)), build_autoencoder(from_official(weights, spec), spec)
    with torch.no_grad():
        latents = theirs.encode(pixels)
        assert torch.equal(ours.encode(pixels), latents) and torch.equal(ours.decode(latents), theirs.decode(latents))


def test_the_plan_names_imports_by_their_content_and_graph(place, tmp_path):
    base = words("dcae10_f8c16", tmp_path / "storage")
    file = official_file(tmp_path, "dcae10_f8c16")
    stages = planned(place, "cache_latents", *base, f"autoencoder={file}")
    assert list(stages) == ["import_autoencoder", "cache_latents"]
    (tmp_path / "elsewhere").mkdir()
    moved = file.rename(tmp_path / "elsewhere" / "renamed.pt")
    assert planned(place, "cache_latents", *base, f"autoencoder={moved}") == stages
    other = planned(place, "cache_latents", *base, f"autoencoder={official_file(tmp_path, 'dcae15_f8c16')}")
    assert other["import_autoencoder"] != stages["import_autoencoder"]


def test_a_folder_says_its_graph_to_the_plan_and_a_baseline_may_be_foreign_too(place, tmp_path):
    spec, weights = golden("dcae10_f8c16")
    save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"dotlist": official_dotlist(spec)}))
    base = ["--config", str(TINY), f"storage={tmp_path / 'storage'}", f"autoencoder={tmp_path}"]
    plan = place.run_here("cache_latents", *base, "--dry-run").out
    assert "import_autoencoder" in plan and "16x4x4" in plan
    evaluated = planned(place, "evaluate", *base, f"baseline={tmp_path}")
    assert list(evaluated) == ["import_autoencoder", "import_baseline", "evaluate"]


def test_a_moving_average_is_asked_for_on_the_command_line(place, tmp_path):
    weights = golden("dcae10_f8c16")[1]
    average = {name: value + 1 if value.is_floating_point() else value for name, value in weights.items()}
    file = tmp_path / "last.ckpt"
    torch.save({"state_dict": weights, "ema_state_dict": average, "epoch": 3}, file)
    base = [*words("dcae10_f8c16", tmp_path / "storage"), "format=official"]
    names = []
    for asked, expected in (("", weights), ("#ema", average)):
        names += planned(place, "cache_latents", *base[:-1], f"autoencoder={file}{asked}").values()
        done = place.run_here("export", *base, f"autoencoder={file}{asked}", f"to={tmp_path / 'to'}")
        assert done.code == 0, done.err
        with safe_open(tmp_path / "to" / "model.safetensors", "pt") as written:
            assert all(torch.equal(written.get_tensor(key), value) for key, value in expected.items())
    assert len(set(names)) == 4, "they are imported and cached apart"


def test_weights_of_another_graph_are_refused(place, tmp_path):
    file = official_file(tmp_path, "dcae10_f8c16")
    base = ["--config", str(TINY), f"storage={tmp_path / 'storage'}", f"autoencoder={file}"]
    done = place.run_here("export", *base, f"to={tmp_path / 'to'}")
    assert done.code == 1
    assert re.search(r"dcae10_f8c16\.pt: .*autoencoder\.preset=NAME", done.err)


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_the_scripts_take_foreign_weights(finished: Finished, place, tmp_path):
    diffusers = pytest.importorskip("diffusers", reason="diffusers is a test dependency only")
    name = "dcae10_f8c16"
    spec, weights = golden(name)
    reference = build_autoencoder(from_official(weights, spec), spec)
    images = ImageSet.open(str(finished.artifacts["prepare_images"]))
    base = [*words(name, tmp_path / "storage"), f"images={images.uri}", "tracking.enabled=false"]
    base += ["latents.dtype=float32", f"autoencoder={official_file(tmp_path, name)}"]
    done = place.run("cache_latents", *base)
    assert done.code == 0, done.err
    assert done.stages("runs") == ["import_autoencoder", "cache_latents"]
    latent_set = LatentSet.open(done.artifact)
    assert (latent_set.spec.channels, latent_set.spec.height, latent_set.spec.prefix_choices) == (16, 4, ())
    shard = images.splits["val"].shards[0]
    rows = shards.read_shard(images.uri, shard).column("image").to_pylist()
    pixels = to_pixels(torch.from_numpy(np.stack([np.frombuffer(r, np.uint8).reshape(32, 32, 3) for r in rows])))
    stored = torch.stack([dcae15.open_latents(latent_set.uri, "val")[i][0] for i in range(len(rows))])
    with torch.no_grad():
        torch.testing.assert_close(stored, reference.encode(pixels), rtol=1e-4, atol=1e-4)
    assert place.run_here("cache_latents", *base, "--dry-run").out.count(" reused ") == 2

    done = place.run("evaluate", *base)
    assert done.code == 0, done.err
    assert "without baseline, denoiser, samples, which are not there" in done.out
    assert done.stages("reused") == ["import_autoencoder"] and done.stages("runs") == ["evaluate"]
    evaluation = Evaluation.open(done.artifact)
    assert [row["prefix"] for row in evaluation.reconstruction["structured"]] == [2, 4, 8, 16]
    assert len(evaluation.channels["structured"]) == 16

    given = [word for word in base if not word.startswith("images=")]
    done = place.run_here("export", *given, f"latents={latent_set.uri}", f"to={tmp_path / 'to'}")
    assert done.code == 0, done.err
    theirs = diffusers.AutoencoderDC.from_pretrained(tmp_path / "to")
    assert theirs.config.scaling_factor == pytest.approx(1 / np.sqrt(np.mean(np.square(latent_set.statistics.rms))))
    with torch.no_grad():
        torch.testing.assert_close(theirs.encode(pixels).latent, reference.encode(pixels), rtol=1e-5, atol=1e-5)
