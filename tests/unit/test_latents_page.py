"""docs/latents.md: its blocks read what cache_latents writes, in every stored type, and its numbers are right."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from dcae15 import storage
from dcae15.artifacts import LatentSet
from dcae15.data import shards
from dcae15.data.shard_check import latent_schema
from tests.latent_sets import make_autoencoder, make_images, make_latents
from tests.scripts import REPOSITORY
from tests.snippets import PLACE, blocks, run

PAGE = (REPOSITORY / "docs" / "latents.md").read_text()
EXPRESSIONS = dict(re.findall(r"^\| (\w+) \| 1, .*? \| `(.*)` \|$", PAGE, re.MULTILINE))
READERS = [title for title, code in blocks("latents.md") if re.search(r"^latents(, labels)? = ", code, re.MULTILINE)]


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sets")
    images, autoencoder = make_images(str(root / "images")), make_autoencoder(str(root / "autoencoder"))
    for dtype in shards.LATENT_BYTES:
        make_latents(str(root / dtype), images, autoencoder, dtype=dtype)
    return root


def stored(uri: str) -> tuple[np.ndarray, list[int]]:
    """The training latents (N, C, h, w) and labels."""
    latent_set = LatentSet.open(uri)
    tables = [shards.read_shard(uri, shard) for shard in latent_set.splits["train"].shards]
    values = [shards.decode_latents(table["latent"], (4, 4, 4), latent_set.dtype) for table in tables]
    return torch.cat(values).numpy(), [label for table in tables for label in table["label"].to_pylist()]


@pytest.mark.parametrize("dtype", list(shards.LATENT_BYTES))
def test_every_reader_decodes_every_type(sets, dtype, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    expected, labels = stored(str(sets / dtype))
    assert len(np.unique(expected)) > 500, "random weights make latents worth comparing"
    ran = []
    for title, code in blocks("latents.md"):
        if title in READERS:
            code = code.replace(EXPRESSIONS["float16"], EXPRESSIONS[dtype])
            names = run(code, str(sets / dtype))
            values = np.stack([np.asarray(latent, np.float32) for latent in names["latents"]])
            assert np.array_equal(values, expected), title
            assert [int(label) for label in names["labels"]] == labels, title
            ran.append(title)
    assert ran == ["pyarrow and numpy", "pandas", "Hugging Face datasets", "torch", "torch"]


@pytest.mark.s3
def test_the_first_reader_reads_buckets(sets, s3_root):
    for info in storage.list_files(str(sets / "float16")):
        storage.write_bytes(f"{s3_root}/{info.path}", storage.read_bytes(str(sets / "float16" / info.path)))
    expected, _ = stored(str(sets / "float16"))
    assert np.array_equal(run(dict(blocks("latents.md"))["pyarrow and numpy"], s3_root)["latents"], expected)


def test_normalised_latents_have_the_root_mean_square_of_one(sets):
    (code,) = [code for title, code in blocks("latents.md") if title.startswith("Raw")]
    values, _ = stored(str(sets / "float32"))
    names = run(code, str(sets / "float32"))
    normalised = names["normalised"](values.astype(np.float64))
    assert np.sqrt((normalised**2).mean()) == pytest.approx(1, abs=1e-5)
    assert np.abs(normalised.mean(axis=(0, 2, 3))).max() < 1e-5
    assert np.allclose(names["raw"](normalised), values)


def test_no_block_is_forgotten():
    others = [title for title, _ in blocks("latents.md") if title not in READERS]
    assert others == ["Raw, and normalised when read", "Ray Data"], (
        "the latter is run in tests/orchestration/test_verify.py"
    )
    assert all(PLACE in code for _, code in blocks("latents.md"))


def test_the_table_of_sizes_is_right():
    rows = re.findall(r"^\| dc-ae-f(\d+)c(\d+)-\S+ \| (\d+) \| (\S+) \| (\S+) \| (\S+) GiB \|$", PAGE, re.MULTILINE)
    assert len(rows) == 6
    for f, c, pixels, shape, each, gib in rows:
        side = int(pixels) // int(f)
        size = int(c) * side * side * 2
        assert (shape, each) == (f"{c}x{side}x{side}", f"{size:,}")
        assert float(gib) == round(size * (1_281_167 + 50_000) / 2**30, 1)


def test_the_columns_and_fields_that_exist_are_described(sets):
    body = LatentSet.open(str(sets / "float16"))
    for field in latent_schema(body.spec, body.dtype):
        assert f"| `{field.name}` | " in PAGE
    fields = set(re.findall(r"`(\w+)`", PAGE.split("### Manifest")[1].split("### Raw")[0]))
    assert {field.name for field in dataclasses.fields(LatentSet)} - {"uri"} <= fields
    assert {field.name for field in dataclasses.fields(body.spec)} <= fields
