"""Damaged latent sets of every kind, and what the checks say about them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dcae15.artifacts import ImageSet, LatentSet
from dcae15.data.findings import ADVICE, SHOWN, LatentFindings
from dcae15.data.latent_set_check import check_whole, plan_checks
from dcae15.data.shard_check import TOLERANCE, ShardChecker
from dcae15.errors import DataError
from dcae15.library import load_autoencoder
from dcae15.storage import sha256, xxh3
from tests.latent_sets import make_autoencoder, make_images, make_latents

FIRST, SECOND, VAL = "train/000000.parquet", "train/000001.parquet", "val/000000.parquet"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    images, autoencoder = make_images(str(root / "images")), make_autoencoder(str(root / "autoencoder"))
    make_autoencoder(str(root / "other"), seed=1)
    for dtype in ("float16", "bfloat16", "float32"):
        make_latents(str(root / dtype), images, autoencoder, dtype=dtype, mirror=True)
    make_latents(str(root / "small"), images, autoencoder, resolution=8)
    return root


@pytest.fixture
def latents(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "float16", tmp_path / "latents"))


def found(latents: Path, images: Path | None = None, autoencoder: Path | None = None) -> LatentFindings:
    """All findings, as the pipeline puts them together."""
    latent_set, findings = LatentSet.open(str(latents)), LatentFindings()
    image_set = ImageSet.open(str(images)) if images else None
    network = load_autoencoder(str(autoencoder)) if autoencoder else None
    tasks = plan_checks(latent_set, image_set, network is not None, findings)
    checker = ShardChecker(str(latents), str(images or ""), network)
    results = {task.shard.path: checker.check(task) for task in tasks}
    for result in results.values():
        findings.merge(result.findings)
    check_whole(latent_set, results, findings)
    assert set(findings.counts) <= set(ADVICE)
    return findings


def manifest(latents: Path, change: Callable[[dict], object]) -> None:
    body = json.loads((latents / "manifest.json").read_text())
    change(body)
    (latents / "manifest.json").write_text(json.dumps(body))


def rewrite(latents: Path, path: str, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change a shard as somebody would who knows the format: checksums and side file follow, statistics do not."""
    table = pq.read_table(latents / path)
    pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), latents / path, compression="none")
    data, count = (latents / path).read_bytes(), pq.read_metadata(latents / path).num_rows
    change_shard(latents, path, {"count": count, "bytes": len(data), "sha256": sha256(data), "xxh3": xxh3(data)})


def change_shard(latents: Path, path: str, facts: dict) -> None:
    """Let the side file and the manifest say something else about a shard."""
    side = json.loads((latents / f"{path}.json").read_text())
    side["shard"].update(facts)
    (latents / f"{path}.json").write_text(json.dumps(side))
    manifest(latents, lambda body: shard_of(body, path).update(facts))


def shard_of(body: dict, path: str) -> dict:
    return next(shard for shard in body["splits"][path.split("/")[0]]["shards"] if shard["path"] == path)


def column(table: pa.Table, name: str, change: Callable[[list], list]) -> pa.Table:
    place = table.schema.get_field_index(name)
    return table.set_column(place, name, pa.array(change(table[name].to_pylist()), table.schema.field(name).type))


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "small"])
def test_a_good_set_has_no_findings(made, name):
    assert found(made / name, made / "images", made / "autoencoder").counts == {}


def test_every_shard_has_latents_encoded_again(made):
    image_set, latent_set = ImageSet.open(str(made / "images")), LatentSet.open(str(made / "float16"))
    checker = ShardChecker(latent_set.uri, image_set.uri, load_autoencoder(str(made / "autoencoder")))
    tasks = plan_checks(latent_set, image_set, True, LatentFindings())
    results = [checker.check(task) for task in tasks]
    assert [result.encoded_again for result in results] == [8, 8, 6, 5]
    assert 0 < max(result.deviation for result in results) < TOLERANCE["float16"]


@pytest.mark.parametrize("damage", ["flip", "cut"])
def test_damaged_bytes(latents, damage):
    data = bytearray((latents / SECOND).read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    else:
        del data[-50:]
    (latents / SECOND).write_bytes(data)
    findings = found(latents)
    assert findings.counts == {"damaged": 1}
    assert findings.examples["damaged"][0].startswith(f"{SECOND}: {len(data):,} bytes")


def test_checksums_that_contradict_each_other(latents):
    change_shard(latents, FIRST, {"xxh3": "0" * 32})
    change_shard(latents, SECOND, {"sha256": "0" * 64})
    findings = found(latents)
    assert findings.counts == {"damaged": 2}
    assert [text.partition("not as it says: ")[2] for text in findings.examples["damaged"]] == ["xxh3", "sha256"]


def test_a_set_that_was_written_without_xxh3(latents):
    for path in (FIRST, SECOND):
        change_shard(latents, path, {"xxh3": ""})
    assert found(latents).counts == {}
    data = bytearray((latents / SECOND).read_bytes())
    data[len(data) // 2] ^= 1
    (latents / SECOND).write_bytes(data)
    findings = found(latents)
    assert findings.counts == {"damaged": 1}
    assert findings.examples["damaged"][0].endswith("not as it says: sha256")


def test_a_side_file_with_another_xxh3(latents):
    manifest(latents, lambda body: shard_of(body, FIRST).update(xxh3=""))
    findings = found(latents)
    assert findings.counts == {"side file": 1}
    assert "'xxh3': ''" in findings.examples["side file"][0]


def test_swapped_shards(latents):
    for ending in ("", ".json"):
        (latents / (FIRST + ending)).rename(latents / "kept")
        (latents / (SECOND + ending)).rename(latents / (FIRST + ending))
        (latents / "kept").rename(latents / (SECOND + ending))
    assert found(latents).counts == {"damaged": 2}


def test_swapped_shards_whose_manifest_follows_show_against_the_images(made, latents):
    def swap(body: dict) -> None:
        first, second = shard_of(body, FIRST), shard_of(body, SECOND)
        first["path"], second["path"] = SECOND, FIRST

    test_swapped_shards(latents)
    manifest(latents, swap)
    findings = found(latents, made / "images")
    assert findings.counts["not encoded"] == findings.counts["not an image"] == 16
    assert findings.counts["side file"] == 2


def test_a_missing_shard_and_a_missing_side_file(made, latents):
    (latents / FIRST).unlink()
    (latents / f"{VAL}.json").unlink()
    findings = found(latents, made / "images")
    assert findings.counts == {"missing": 1, "side file": 1}
    assert findings.examples["missing"] == [f"{FIRST} of 8 latents"]


def test_a_stray_shard_is_named_and_other_files_are_not(latents):
    shutil.copy(latents / FIRST, latents / "train/000009.parquet")
    (latents / "README.md").write_text("mine")
    assert found(latents).examples == {"stray": ["train/000009.parquet is not in the manifest"]}


def test_an_id_twice_in_two_shards(latents):
    twin = pq.read_table(latents / FIRST)["id"][2].as_py()
    rewrite(latents, VAL, lambda table: column(table, "id", lambda ids: [*ids[:3], twin, *ids[4:]]))
    findings = found(latents)
    assert findings.counts == {"id twice": 1}
    assert findings.examples["id twice"] == [f"{twin} in {FIRST} and {VAL}"]


def test_a_changed_label_whose_checksum_follows_shows_against_the_images(made, latents):
    name = pq.read_table(latents / FIRST)["id"][1].as_py()
    rewrite(latents, FIRST, lambda table: column(table, "label", lambda old: [old[0], 2, *old[2:]]))
    assert found(latents).counts == {}
    assert found(latents, made / "images").examples == {"label": [f"{FIRST}: {name} has label 2, in the image set 1"]}


def test_a_label_without_a_class(latents):
    rewrite(latents, FIRST, lambda table: column(table, "label", lambda old: [3, -1, *old[2:]]))
    assert found(latents).counts == {"label": 2}


def test_mirrored_rows_are_those_that_say_so(latents):
    rewrite(latents, FIRST, lambda table: column(table, "flipped", lambda old: [True, *old[1:]]))
    assert found(latents).counts == {"mirror": 1}
    manifest(latents, lambda body: body.update(mirror=False))
    assert found(latents).counts == {"mirror": 4 + 1 + 4 + 3}


def test_pixels_that_were_others(made, latents):
    rewrite(latents, FIRST, lambda table: column(table, "source_digest", lambda old: [b"x" * 16, *old[1:]]))
    assert found(latents, made / "images").counts == {"pixels": 1}


def test_another_image_set(made, latents, tmp_path):
    other = Path(make_images(str(tmp_path / "other"), side=12, fingerprint="9" * 16))
    findings = found(latents, other)
    assert findings.counts["image set"] == 2, "another fingerprint, and too small"
    assert findings.counts["pixels"] == 0


def test_a_value_that_is_not_finite(latents):
    infinite = b"\x00\x7c"

    def spoil(rows: list[bytes]) -> list[bytes]:
        return [rows[0], infinite + rows[1][2:], *rows[2:]]

    rewrite(latents, FIRST, lambda table: column(table, "latent", spoil))
    findings = found(latents)
    assert findings.counts == {"not finite": 1}
    assert findings.examples["not finite"][0].endswith(pq.read_table(latents / FIRST)["id"][1].as_py())


def test_changed_values_show_in_the_statistics_and_against_the_autoencoder(made, latents):
    rewrite(latents, FIRST, lambda table: column(table, "latent", lambda rows: [rows[1], *rows[:1], *rows[2:]]))
    assert found(latents).counts == {}, "the same values at other images"
    findings = found(latents, made / "images", made / "autoencoder")
    assert findings.counts == {"autoencoder": 2}
    rewrite(latents, FIRST, lambda table: column(table, "latent", lambda rows: [rows[2], *rows[1:]]))
    assert found(latents).counts == {"statistics": 2}, "of the side file and of the manifest"


def test_wrong_statistics_in_the_manifest(latents):
    manifest(latents, lambda body: body["statistics"]["std"].__setitem__(1, body["statistics"]["std"][1] * 1.001))
    findings = found(latents)
    assert findings.counts == {"statistics": 1}
    assert "manifest.json" in findings.examples["statistics"][0]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_latents_of_another_autoencoder(made, dtype):
    findings = found(made / dtype, made / "images", made / "other")
    assert findings.counts == {"autoencoder": 8 + 8 + 6 + 5}
    assert "encoded again differs" in findings.examples["autoencoder"][0]


def test_metadata_of_another_set(latents):
    manifest(latents, lambda body: body["spec"].update(autoencoder="other"))
    findings = found(latents)
    assert findings.counts == {"metadata": 4}
    assert "autoencoder is 0000000000000000, the manifest says other" in findings.examples["metadata"][0]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda table: table.drop_columns(["flipped"]), "flipped is None, not bool"),
        (lambda table: table.append_column("more", table["label"]), "more does not belong here"),
        (lambda table: table.set_column(1, "label", table["label"].cast(pa.int64())), "label is int64, not int32"),
        (lambda table: column(table, "label", lambda old: [None, *old[1:]]), "label has gaps"),
    ],
)
def test_columns_of_another_type(latents, change, text):
    rewrite(latents, FIRST, change)
    assert found(latents).examples == {"schema": [f"{FIRST}: {text}"]}


def test_a_count_that_is_not_the_manifests(latents):
    rewrite(latents, FIRST, lambda table: table.slice(0, 7))
    manifest(latents, lambda body: shard_of(body, FIRST).update(count=8))
    findings = found(latents)
    assert findings.counts == {"count": 1, "side file": 1, "statistics": 2}


def test_a_manifest_that_contradicts_itself(latents):
    def change(body: dict) -> None:
        body["statistics"]["mean"].append(0.0)
        body["splits"]["val"]["shards"].append(shard_of(body, FIRST))

    manifest(latents, change)
    texts = found(latents).examples["manifest"]
    assert len(texts) == 3 and "statistics of 5 channels" in texts[0]


@pytest.mark.parametrize("change", [{"dtype": "int8"}, {"spec": {"channels": 0}}])
def test_a_manifest_that_cannot_be_understood_stops_the_check(latents, change):
    manifest(latents, lambda body: body.update({**change, "spec": body["spec"] | change.get("spec", {})}))
    with pytest.raises(DataError, match=str(latents)):
        found(latents)


def test_the_report_shows_the_first_of_each_kind_and_what_to_do():
    findings, more = LatentFindings(), LatentFindings()
    for i in range(8):
        findings.add("label", f"a: {i}")
        more.add("label", f"b: {i}")
    more.add("stray", "x.parquet")
    findings.merge(more)
    text = findings.report("/set")
    assert "label (16)" in text and "b: 1\n" in text and "b: 2\n" not in text and "and 6 more" in text
    assert text.count("to do: ") == 2 and ADVICE["stray"] in text and "17 findings" in text
    assert len(findings.examples["label"]) == SHOWN
