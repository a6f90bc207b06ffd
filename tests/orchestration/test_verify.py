"""cache_latents and --verify on a real Ray: a good set, a damaged one, its repair, and what readers of Ray Data see."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from dcae15 import artifacts, open_latents
from dcae15.cluster import Cluster
from dcae15.config import Config, LatentsConfig
from dcae15.errors import ArtifactError, DataError
from dcae15.pipeline import find
from dcae15.plan import plan
from dcae15.stages.latent_caching import cache_latents
from dcae15.stages.latent_check import check_latents
from dcae15.stages.latents import verify
from tests.latent_sets import make_autoencoder, make_images, make_latents
from tests.snippets import blocks, run

pytestmark = [pytest.mark.timeout(900)]


@pytest.mark.ray
def test_a_set_is_cached_verified_damaged_found_and_mended(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_DATA_USE_DATASOURCE_V2", "0")  # the second version starts 32 actors for the snippet
    images, autoencoder = make_images(str(tmp_path / "images")), make_autoencoder(str(tmp_path / "autoencoder"))
    uri, fingerprint = str(tmp_path / "set"), "2" * 16
    config = Config(storage=str(tmp_path), latents=LatentsConfig(mirror=True, resolution=8))
    inputs = {"images": images, "autoencoder": autoencoder}
    with Cluster(config) as cluster:
        cache_latents(config, cluster, **inputs, uri=uri, fingerprint=fingerprint)
        spec = artifacts.LatentSet.open(uri).spec
        assert (spec.height, spec.width, spec.compression) == (2, 2, 4)
        summary = check_latents(config, cluster, latents=uri, **inputs)
        assert "train 22, val 5 latents of 4x2x2 float16 in 4 shards" in summary
        assert "27 latents encoded again" in summary
        before = (tmp_path / "set/manifest.json").read_text()

        shard = tmp_path / "set/train/000001.parquet"
        shard.write_bytes(shard.read_bytes()[:-1])
        (tmp_path / "set/val/000000.parquet").unlink()
        with pytest.raises(DataError) as caught:
            check_latents(config, cluster, latents=uri, **inputs)
        assert "missing (1):\n  val/000000.parquet of 5 latents" in str(caught.value)
        assert "damaged (1):\n  train/000001.parquet: " in str(caught.value)

        for path in (shard, shard.with_suffix(".parquet.json"), tmp_path / "set/manifest.json"):
            path.unlink()  # as the report says
        cache_latents(config, cluster, **inputs, uri=uri, fingerprint=fingerprint)
        check_latents(config, cluster, latents=uri, **inputs)
        after = (tmp_path / "set/manifest.json").read_text()
        assert {**json.loads(before), "created": ""} == {**json.loads(after), "created": ""}

        other = make_autoencoder(str(tmp_path / "other"), seed=1)
        with pytest.raises(DataError) as caught:
            check_latents(config, cluster, latents=uri, autoencoder=other)
        assert f"autoencoder (1):\n  {other} is {'1' * 16}, the latents were made with {'0' * 16}" in str(caught.value)

        (snippet,) = [code for title, code in blocks("latents.md") if title == "Ray Data"]
        names = run(snippet, make_latents(str(tmp_path / "plain"), images, autoencoder))
        batch = names["dataset"].take_batch(11)
        latents = open_latents(str(tmp_path / "plain"))
        place = {f"train/n{i % 3}/{i}.png": i for i in range(11)}
        assert sorted(batch["id"]) == sorted(place) and batch["latent"].dtype == np.float16
        for name, value in zip(batch["id"], batch["latent"], strict=True):
            assert np.array_equal(value.astype(np.float32), latents[place[name]][0].numpy())


def would_verify(config: Config, **given: str) -> str:
    return verify(config, given, dry_run=True, find=lambda role: find(config, role, given))


def test_a_dry_run_says_what_would_be_checked_and_what_is_not_there(tmp_path):
    images, autoencoder = make_images(str(tmp_path / "images")), make_autoencoder(str(tmp_path / "autoencoder"))
    latents = make_latents(str(tmp_path / "set"), images, autoencoder)
    config = Config(storage=str(tmp_path))
    text = would_verify(config, latents=latents, images=images)
    assert text.startswith(f"would verify {latents}, train 11, val 5 latents of 4x4x4 float16 in 4 shards")
    assert text.endswith("against images")
    with pytest.raises(ArtifactError, match=r"no latents of this configuration.*latents=URI"):
        would_verify(config)
    (step,) = [step for step in plan(config).steps if step.name == "cache_latents"]
    shutil.copytree(latents, step.output.uri)
    assert step.output.uri in would_verify(config)


def test_the_plan_of_a_resolution_is_that_of_the_images_where_it_is_the_same(tmp_path):
    images = make_images(str(tmp_path / "images"))
    config = Config(storage=str(tmp_path))

    def step(resolution: int):
        given = {"images": images, "autoencoder": make_autoencoder(str(tmp_path / "autoencoder"))}
        steps = plan(config.changed(latents=LatentsConfig(resolution=resolution)), given).steps
        return next(step for step in steps if step.name == "cache_latents")

    assert step(0).output.fingerprint == step(16).output.fingerprint != step(8).output.fingerprint
    assert step(0).facts["each"] == "4x4x4 float16, 128 bytes"
    assert step(8).facts == {
        "images": "every image once, reduced from 16 to 8 pixels",
        "each": "4x2x2 float16, 32 bytes",
    }
