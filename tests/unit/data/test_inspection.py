"""What a look at all images says."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from dcae15.config import DataConfig
from dcae15.data import inspection, sources
from dcae15.data.inspection import SourceFindings
from dcae15.data.sources.leaving import leave
from dcae15.stages.image_preparing import PrepareWriter
from dcae15.stages.shard_writing import ShardPlan
from tests import layouts
from tests.layouts import Picture, encoded


@pytest.fixture
def source(tmp_path):
    contents = {
        "train/a/1.png": encoded(1, (300, 400), "PNG"),
        "train/a/2.jpg": encoded(2, (100, 1500)),
        "train/a/3.jpg": encoded(2, (100, 1500)),
        "train/b/4.jpg": encoded(3, (512, 512)),
        "train/b/5.jpg": b"",
        "train/b/6.jpg": b"",
        "val/a/7.jpg": encoded(2, (100, 1500)),
        "val/b/8.jpg": encoded(3, (512, 512))[:2000],
    }
    for path, data in contents.items():
        layouts.write(tmp_path / path, data)
    (tmp_path / "train/b/9.jpg").symlink_to("5.jpg")
    return layouts.open_source(tmp_path)


def looked(source, **data):
    tables = [source.train, source.val]
    found = [inspection.inspect(table, source.kind, DataConfig(**data)) for table in tables]
    digests = np.frombuffer(b"".join(f.digests for f in found), np.uint8).reshape(-1, 16)
    total = SourceFindings()
    for part in found:
        total.add(part)
    return total, digests


def test_counts(source):
    found, _ = looked(source)
    assert found.formats == {"PNG": 1, "JPEG": 5}
    assert found.sides == {0: 3, 1: 1, 2: 1}
    assert found.bad == {"empty": 3, "truncated": 1}
    assert found.examples["empty"][0].startswith("train/b/5.jpg: empty")
    assert found.left_out == 0


def test_the_report_names_everything(source):
    found, digests = looked(source, upscale=False, resolution=256)
    text = inspection.report(source, found, digests)
    for line in (
        "train           7 images of 2 classes; least, median, most of a class: 3 / 3 / 4",
        f"bytes  {found.bytes:>10,}",
        "formats: 5 JPEG, 1 PNG",
        "below 256: 3, 256 to 511: 1, 512 to 1023: 1, 1024 and more: 0",
        "smaller than data.resolution: 3",
        "duplicates by content: 2, of which 1 are validation images",  # empty files are none
        "  train/a/3.jpg = train/a/2.jpg\n  val/a/7.jpg = train/a/2.jpg",
        "bad images: 4 (3 empty, 1 truncated)",
        "  val/b/8.jpg: truncated",
    ):
        assert line in text, text


@pytest.mark.parametrize(
    ("reasons", "share", "message"),
    [
        ({}, 0.0, ""),
        ({"empty": 4}, 0.5, ""),
        ({"too_small_to_fill": 8}, 0.0, ""),
        (
            {"empty": 3, "animated": 2, "too_small_to_fill": 1},
            0.5,
            r"5 of 9 images .* \(3 empty, 2 animated, 1 .*raise data.max",
        ),
        ({"too_small_to_fill": 9}, 0.0, r"none of the 9 images .* set data.upscale=true"),
        ({"too_small_to_fill": 5, "empty": 4}, 0.5, "none of the 9 images"),
    ],
)
def test_the_verdict(source, reasons, share, message):
    refusal = inspection.refusal(source, reasons, share)
    assert re.match(message, refusal) and bool(refusal) == bool(message), refusal


def test_what_the_source_leaves_out_counts_as_bad(source):
    lost = leave("in no folder of a class", ["cover.jpg"], "move them into one")
    source = replace(source, left_out=(*lost, *leave("hidden files", ["x"] * 9, expected=True)))
    assert inspection.refusal(source, source.lost, 0.1) == ""
    message = inspection.refusal(source, {**source.lost, "empty": 1}, 0.1, ["train/a/1.jpg: empty"])
    assert message == (
        f"2 of 10 images of {source.uri} cannot be used (1 empty, 1 in no folder of a class), more than data.max_bad_fraction=0.1 "
        "allows. First ones: cover.jpg: in no folder of a class; train/a/1.jpg: empty. Move them into one, or raise "
        "data.max_bad_fraction."
    )


@pytest.mark.parametrize("crop", ["center", "random"])
def test_small_images_are_left_out_before_they_are_decoded_as_prepare_images_does(tmp_path, crop):
    small, between, large = (encoded(i, (side, 400), "PNG") for i, side in enumerate((200, 260, 600)))
    contents = {"s.png": small, "cut.png": small[:2000], "b.png": between, "l.png": large, "bad.png": large[:2000]}
    for name, data in contents.items():
        layouts.write(tmp_path / "source" / name, data)
    uri = str(tmp_path / "source")
    source = layouts.open_source(uri)
    data = DataConfig(source=uri, resolution=256, upscale=False, crop=crop)
    found = inspection.inspect(source.train, source.kind, data)
    record = PrepareWriter(str(tmp_path / "out"), data).write(ShardPlan("0.parquet", 5, source.train))
    assert found.bad == Counter(line["reason"] for line in record.rejected) == {"truncated": 1}
    assert found.left_out == record.statistics["too_small_to_fill"] == (2 if crop == "center" else 3)
    assert found.sides == {0: 2, 1: 2}


def test_examples_are_few():
    found = SourceFindings()
    for i in range(9):
        found.add(SourceFindings(examples={"empty": [f"{i}a", f"{i}b"]}))
    assert found.examples == {"empty": ["0a", "0b", "1a"]}


def test_parquet_rows_are_read_in_the_order_of_the_file(tmp_path):
    items = [Picture("train", layouts.WNIDS[i % 3], f"{i}.JPEG", encoded(i)) for i in range(12)]
    layouts.write(tmp_path / "all.parquet", layouts.parquet_bytes(items, row_group=5))
    source = layouts.open_source(tmp_path)
    order = np.argsort(source.train["offset"].to_numpy())
    found = inspection.inspect(sources.take(source.train, order[2:]), "parquet", DataConfig())
    assert found.bytes == sum(len(item.data) for item in items[2:])
    assert found.formats == {"JPEG": 10}
