"""Hugging Face's Parquet layout: names, labels, what is read, and what is refused."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dcae15 import storage
from dcae15.data import sources
from dcae15.data.sources import parquet
from dcae15.data.sources.reading import read_images
from dcae15.errors import DataError
from tests import layouts
from tests.layouts import WNIDS, Picture
from tests.layouts import open_source as opened


def fails(uri, message):
    with pytest.raises(DataError, match=message):
        opened(uri)


@pytest.fixture
def items():
    return [item for item in layouts.pictures(broken=False) if item.split == "train"]


def table(path, **columns):
    pq.write_table(pa.table(columns), path)


def images(*contents, paths=None):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    names = paths or [None] * len(contents)
    return pa.array([{"bytes": c, "path": p} for c, p in zip(contents, names, strict=True)], kind)


def test_other_sets_keep_their_class_names(tmp_path, items):
    names = ["tench", "goldfish", "corgi"]
    layouts.write(tmp_path / "train.parquet", layouts.parquet_bytes(items, names, tagged=False))
    source = opened(tmp_path)
    assert source.class_names == ("tench", "goldfish", "corgi")
    assert source.train["id"][0].as_py() == "train/corgi/n02110185_1.JPEG"


@pytest.mark.parametrize("paths", [[None, "a.png", "b.png"], ["a.png", "x/a.png", "b.png"]])
def test_rows_are_numbered_where_names_are_missing_or_occur_twice(tmp_path, paths):
    table(tmp_path / "some.parquet", image=images(b"1", b"2", b"3", paths=paths), label=[1, 1, 0])
    source = opened(tmp_path)
    assert source.class_names == ("0", "1")
    assert source.train["id"].to_pylist() == ["0/some/00000002", "1/some/00000000", "1/some/00000001"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"pixels": ["x"], "label": [1]}, "has the columns pixels: string, label: int64; expected image: struct<bytes"),
        ({"image": [b"x"], "label": [1]}, "has the columns image: binary, label: int64; expected"),
        (
            {"image": images(b"x"), "label": [[1]]},
            "expected image: struct<bytes: binary, path: string>, and if you like label",
        ),
        ({"image": images(b"x"), "label": [0.5]}, "label: double; expected"),
        (
            {"image": images(b"x"), "label": pa.array([1 << 63], pa.uint64())},
            "is no Parquet file, damaged or cut off.*not in range",
        ),
        ({"image": images(b"x", b"x"), "label": [0, -1]}, r"row 1 has the label -1, but labels count from 0 on"),
    ],
)
def test_other_schemas(tmp_path, columns, message):
    table(tmp_path / "train-0.parquet", **columns)
    fails(tmp_path, f"train-0.parquet.*{message}")


def test_rows_without_labels(tmp_path):
    table(tmp_path / "train-0.parquet", image=images(b"1", b"2", b"3"), label=[4, None, 4])
    source = opened(tmp_path)
    assert (source.class_names, source.lost) == (("4",), {"without a label, beside others that have one": 1})
    assert source.train["id"].to_pylist() == ["train/4/train-0/00000000", "train/4/train-0/00000002"]
    assert str(source.left_out[0]).startswith("1 row: without a label")
    assert source.left_out[0].examples[0].endswith("train-0.parquet: row 1")
    table(tmp_path / "train-0.parquet", image=images(b"1", b"2"), text=["a cat", "a dog"])
    source = opened(tmp_path)
    assert (source.class_names, source.train["caption"].to_pylist()) == (("images",), ["a cat", "a dog"])
    table(tmp_path / "train-0.parquet", image=images(b"1", b"2"), label=["no", "001"])
    assert opened(tmp_path).class_names == ("001", "no")


def test_the_one_class_label_of_another_name_is_taken(tmp_path):
    features = {"image": {"_type": "Image"}, "labels": {"names": ["bean", "leaf"], "_type": "ClassLabel"}}
    rows = pa.table({"image": images(b"1", b"2", b"3"), "labels": [1, 0, -1], "extra": [1, 2, 3]})
    meta = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(rows.replace_schema_metadata(meta), tmp_path / "train-0.parquet")
    source = opened(tmp_path)
    assert (source.class_names, source.train["label"].to_pylist()) == (("bean", "leaf"), [0, 1])
    assert source.lost == {"without a label, beside others that have one": 1}, "-1 says that there is none"
    assert "columns that are not read: extra" in source.describe()


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_texts_of_every_type(tmp_path, kind):
    texts = pa.array(["10", "2", "2"], pa.string()).cast(kind)
    table(tmp_path / "train-0.parquet", image=images(b"1", b"2", b"3"), label=texts, caption=texts)
    source = opened(tmp_path)
    assert (source.class_names, source.captions) == (("2", "10"), 3)


def test_folders_of_configurations_are_asked_for(tmp_path, items):
    for name in ("full", "small"):
        layouts.write(tmp_path / name / "train-0.parquet", layouts.parquet_bytes(items[:3]))
    fails(tmp_path, "holds 2 sets side by side: 'full', 'small'.*data.source=.*/full, or .* data.join=true")
    assert opened(tmp_path, join=True).train.num_rows == 6
    assert opened(tmp_path / "full").train.num_rows == 3
    for name in ("full", "small"):
        (tmp_path / name).rename(tmp_path / f"part-{len(name)}")
    assert opened(tmp_path).train.num_rows == 6, "folders of numbers are parts"


def test_labels_out_of_range(tmp_path, items):
    layouts.write(tmp_path / "train-0.parquet", layouts.parquet_bytes(items[:3], WNIDS))
    layouts.write(tmp_path / "train-1.parquet", layouts.parquet_bytes(items[3:], WNIDS[:2]))
    fails(tmp_path, "train-1.parquet states other class names than .*train-0.parquet")
    layouts.write(tmp_path / "train-0.parquet", layouts.parquet_bytes(items[:3], WNIDS[:2]))
    fails(tmp_path, "train-1.parquet: row 29 has the label 2, but the 2 classes allow 0 to 1")
    layouts.write(tmp_path / "train-1.parquet", b"PAR1 and then nothing")
    fails(tmp_path, "train-1.parquet is no Parquet file, damaged or cut off")


def test_wordnet_ids_that_contradict_the_labels(tmp_path, items):
    wrong = [*items[:20], Picture("train", WNIDS[0], "n01440764_77.JPEG", b"x")]
    data = layouts.parquet_bytes(wrong, None)
    flawed = pq.read_table(pa.BufferReader(data))
    labels = flawed["label"].to_pylist()
    labels[20] = 1
    pq.write_table(flawed.set_column(1, "label", pa.array(labels)), tmp_path / "train.parquet")
    fails(tmp_path, r"train.parquet: row 20 has the label 1 and the class 'n01440764', others 'n01443537'")


def test_only_test_files(tmp_path):
    layouts.write(tmp_path / "test-0.parquet", b"x")
    fails(tmp_path, "files of test only, for example 'test-0.parquet'")


def test_half_of_the_names_say_their_split(tmp_path):
    layouts.write(tmp_path / "train-0.parquet", b"x")
    layouts.write(tmp_path / "more.parquet", b"x")
    fails(tmp_path, "names begin with train or val, and others, for example 'more.parquet'")


def test_unpacking_keeps_every_byte_in_parts_of_bounded_size(tmp_path, items, monkeypatch):
    monkeypatch.setattr(parquet, "PACK_BYTES", 9_000)
    layouts.write(tmp_path / "train.parquet", layouts.parquet_bytes(items, row_group=7))
    source = opened(tmp_path)
    order = np.argsort(source.train["offset"].to_numpy())[3:]  # not all images are wanted
    chosen = sources.take(source.train, order)
    moved = parquet.unpack(chosen, str(tmp_path / "packs"), "x")
    data = {i.path: i.data for i in items}
    assert [data[i] for i in chosen["id"].to_pylist()] == list(read_images(moved))
    assert moved["id"].to_pylist() == chosen["id"].to_pylist()
    sizes = [info.size for info in storage.list_files(str(tmp_path / "packs"))]
    assert sum(sizes) == sum(moved["size"].to_pylist())
    assert len(sizes) > 3 and max(sizes) <= 9_000


def test_memory_does_not_grow_with_the_row_group(tmp_path):
    generator = np.random.default_rng(0)
    content = [generator.bytes(200_000) for _ in range(300)]
    columns = pa.table({"image": images(*content), "label": [0] * 300})
    pq.write_table(columns, tmp_path / "all.parquet", write_batch_size=8)  # one row group of 60 MB in small pages
    assert pq.read_metadata(tmp_path / "all.parquet").num_row_groups == 1
    del content, columns
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    most, count = 0, 0
    for data in parquet.read_rows(str(tmp_path / "all.parquet"), np.arange(300)):
        count += len(data)
        most = max(most, pa.total_allocated_bytes() - before + tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert count == 60_000_000
    assert most < 30_000_000


def test_indexing_reads_a_small_part_of_the_file(tmp_path, monkeypatch):
    content = [np.random.default_rng(i).bytes(100_000) for i in range(40)]
    pq.write_table(pa.table({"image": images(*content), "label": [0] * 40}), tmp_path / "all.parquet", row_group_size=4)
    fetched = []
    real = storage.ranges.read_range
    monkeypatch.setattr(storage.ranges, "read_range", lambda *a: fetched.append(a[2]) or real(*a))
    opened(tmp_path)
    assert 0 < sum(fetched) < 1_500_000, "of 4 MB"


def test_damage_inside_of_a_file_is_named(tmp_path, items):
    path = tmp_path / "train.parquet"
    layouts.write(path, layouts.parquet_bytes(items, row_group=len(items)))
    data = bytearray(path.read_bytes())
    data[4:64] = b"\xff" * 60
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"train.parquet is no Parquet file, damaged or cut off"):
        list(parquet.read_rows(str(path), np.arange(len(items))))


def test_a_file_that_became_shorter(tmp_path, items):
    layouts.write(tmp_path / "train.parquet", layouts.parquet_bytes(items))
    source = opened(tmp_path)
    layouts.write(tmp_path / "train.parquet", layouts.parquet_bytes(items[:5]))
    order = np.argsort(source.train["offset"].to_numpy())
    with pytest.raises(DataError, match=r"train.parquet has 5 rows, fewer than when it was listed"):
        parquet.unpack(sources.take(source.train, order), str(tmp_path / "packs"), "x")
