"""What the writer of image shards stores."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from dcae15 import artifacts
from dcae15.config import DataConfig, build, from_overrides
from dcae15.data import images, shards, sources
from dcae15.data.sources import Selection
from dcae15.stages import image_preparing as prepare
from dcae15.stages.image_preparing import PrepareWriter
from dcae15.stages.shard_writing import ShardPlan
from tests import layouts


def written(folder, uri, **data):
    source = sources.assemble(sources.find(uri), [], Selection())
    writer = PrepareWriter(str(folder), DataConfig(source=uri, resolution=16, shard_images=20, **data))
    plans = [ShardPlan(f"{i}.parquet", len(t), t) for i, t in enumerate(sources.deal(source.train, 20, seed=0))]
    return [(plan, writer.write(plan)) for plan in plans]


def test_pixels_of_every_shard_are_those_of_its_images(tmp_path):
    """The writer's memory is used again for each shard, also for a shorter one, and after a quarantined image."""
    items = layouts.pictures()
    uri = layouts.as_folder(tmp_path / "source", items)
    data = {item.path: item.data for item in items}
    count = 0
    for plan, record in written(tmp_path / "out", uri):
        table = shards.read_shard(str(tmp_path / "out"), record.shard)
        bad = {line["id"] for line in record.rejected}
        assert table["id"].to_pylist() == [i for i in plan.content["id"].to_pylist() if i not in bad]
        for name, stored in zip(table["id"].to_pylist(), table["image"].to_pylist(), strict=True):
            image = images.decode(data[name], min_side=8, max_pixels=10_000)
            assert stored == images.center_crop(image, 16).tobytes()
        count += len(table)
    assert count == 45


@pytest.mark.parametrize("raw", [True, False])
def test_shards_too_large_for_one_column_are_the_same(tmp_path, monkeypatch, raw):
    uri = layouts.as_folder(tmp_path / "source", layouts.pictures())
    options = {"encoding": "raw" if raw else "png"}
    first = [record for _, record in written(tmp_path / "a", uri, **options)]
    monkeypatch.setattr(prepare, "_MOST_RAW_BYTES", 100)
    assert [record for _, record in written(tmp_path / "b", uri, **options)] == first


@pytest.mark.parametrize(("upscale", "kept"), [(True, 2), (False, 1)])
def test_images_that_would_be_enlarged_may_be_left_out(tmp_path, upscale, kept):
    sizes = {"small": (12, 40), "large": (16, 40)}
    items = [layouts.Picture("train", "a", f"{n}.png", layouts.encoded(0, size, "PNG")) for n, size in sizes.items()]
    uri = layouts.as_folder(tmp_path / "source", items)
    [(_, record)] = written(tmp_path / "out", uri, upscale=upscale)
    assert (record.shard.count, record.rejected) == (kept, [])
    assert record.statistics == ({} if upscale else {"too_small_to_fill": 1})
    assert (
        np.frombuffer(shards.read_shard(str(tmp_path / "out"), record.shard)["image"][0].as_py(), np.uint8).size == 768
    )


@pytest.mark.parametrize(("store_side", "kept"), [(0, 2), (17, 3), (20, 1)])
def test_what_is_stored_whole_is_not_enlarged_either(tmp_path, store_side, kept):
    items = [
        layouts.Picture("train", "a", f"{side}.png", layouts.encoded(0, (side, 40), "PNG")) for side in (16, 17, 18, 20)
    ]
    uri = layouts.as_folder(tmp_path / "source", items)
    [(_, record)] = written(tmp_path / "out", uri, upscale=False, crop="random", store_side=store_side)
    assert (record.shard.count, record.statistics) == (kept, {"too_small_to_fill": 4 - kept})
    data = shards.read_shard(str(tmp_path / "out"), record.shard)["image"][0].as_py()
    assert min(images.decode_png(data).shape[:2]) == (store_side or 18)


@pytest.mark.parametrize("encoding", ["raw", "png"])
def test_a_shard_of_bad_images_is_empty(tmp_path, encoding):
    uri = layouts.as_folder(tmp_path / "source", [layouts.Picture("train", "a", f"{i}.png", b"no") for i in range(3)])
    [(_, record)] = written(tmp_path / "out", uri, encoding=encoding)
    assert (record.shard.count, len(record.rejected)) == (0, 3)
    assert len(shards.read_shard(str(tmp_path / "out"), record.shard)) == 0


@pytest.mark.parametrize("encoding", ["raw", "png"])
def test_captions_go_with_their_images(tmp_path, encoding):
    write = layouts.write
    for i in range(3):
        write(tmp_path / "source" / f"{i}.png", layouts.encoded(i, kind="PNG") if i != 1 else b"bad")
    write(tmp_path / "source" / "list.csv", b"uri,caption\n0.png,zero\n1.png,one\n2.png,\n")
    [(plan, record)] = written(tmp_path / "out", str(tmp_path / "source" / "list.csv"), encoding=encoding)
    table = shards.read_shard(str(tmp_path / "out"), record.shard)
    found = dict(zip(table["id"].to_pylist(), table["caption"].to_pylist(), strict=True))
    assert (found, plan.count) == ({"0.png": "zero", "2.png": None}, 3)
    [(_, record)] = written(tmp_path / "plain", layouts.as_folder(tmp_path / "folder", layouts.pictures()[:2]))
    assert "caption" not in shards.read_shard(str(tmp_path / "plain"), record.shard).column_names


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_run_that_failed_by_unread_images_reads_them_again(tmp_path, share, capsys):
    """Where rights or a server were mended, no listing shows it; within the share the shards stay."""
    items = [layouts.Picture("train", "a", f"{i}.png", layouts.encoded(i, kind="PNG")) for i in range(60)]
    uri = layouts.as_folder(tmp_path / "source", items)
    source = sources.assemble(sources.find(uri), [], Selection())
    (tmp_path / "source/train/a/3.png").unlink()
    layouts.write(tmp_path / "source/train/a/4.png", b"")
    out, data = str(tmp_path / "out"), DataConfig(source=uri, resolution=16, shard_images=1)
    writer = PrepareWriter(out, data)
    for plan in (ShardPlan(f"{i}.parquet", 1, t) for i, t in enumerate(sources.deal(source.train, 1, seed=0))):
        writer.write(plan)
    losses = prepare._Losses(out, source, share)
    prepare._forget_losses(out, losses)
    assert len(shards.read_records(out)) == 60, "the earlier run did not fail"
    layouts.write(tmp_path / "out/rejected.jsonl", b"")
    prepare._forget_losses(out, losses)
    records = shards.read_records(out)
    left = {line["reason"] for record in records.values() for line in record.rejected}
    assert left == ({"empty"} if share == 0 else {"empty", "missing"})
    assert len(records) == (59 if share == 0 else 60)
    assert ("1 shards are made again" in capsys.readouterr().out) == (share == 0)


@pytest.mark.parametrize(
    ("splits", "bad", "said", "later"),
    [
        ({"": 24}, 0, [], []),
        ({"": 6}, 0, ["source: precision and recall of generated images are left out"], []),
        ({"": 1}, 0, ["source: every measure is left out"], []),
        ({"train": 9, "val": 4}, 0, [], []),
        ({"train": 9, "val": 4}, 1, [], ["prepare_images: without the bad images precision and recall"]),
        ({"train": 9, "val": 2}, 0, ["source: precision and recall"], []),
        (
            {"train": 9, "val": 2},
            2,
            ["source: precision and recall"],
            ["prepare_images: without the bad images every measure"],
        ),
    ],
)
def test_measures_that_will_want_for_images_are_named_when_the_source_is_opened_and_after_quarantine(
    tmp_path, monkeypatch, capsys, splits, bad, said, later
):
    for split, count in splits.items():
        for i in range(count):
            path = tmp_path / "source" / split / "cat" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"no" if split == "val" and i < bad else layouts.encoded(i, (32, 32), "PNG"))
    words = (f"data.source={tmp_path / 'source'}", f"storage={tmp_path}", "data.max_bad_fraction=1")
    cluster = SimpleNamespace(resources=SimpleNamespace(decoders=lambda: None))

    def here(cluster, name, uri, plans, make, pool, each):
        return [make().write(plan) for plan in plans]

    monkeypatch.setattr(prepare, "write_shards", here)
    monkeypatch.setattr(prepare._Losses, "check", lambda self: None)
    config = build([from_overrides(words)])[0]
    prepare.prepare_images(config, cluster, uri=str(tmp_path / "made"), fingerprint="f" * 16)
    lines = [line for line in capsys.readouterr().out.splitlines() if "left out" in line]
    assert [line[: len(start)] for line, start in zip(lines, said + later, strict=True)] == said + later
    assert artifacts.finished(str(tmp_path / "made"))
