"""prepare_images from every kind of source: the same pictures become the same bytes."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from dcae15.artifacts import ImageSet
from dcae15.cluster import Cluster
from dcae15.config import Config
from dcae15.data.sources import KINDS
from dcae15.errors import DataError
from dcae15.stages.image_check import check_images
from tests import layouts
from tests.preparing import below, prepared, settings

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def cluster():
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        with Cluster(Config()) as cluster:
            yield cluster


def test_every_kind_makes_the_same_image_set(cluster, tmp_path, capsys):
    items, sets = layouts.pictures(), {}
    for kind in KINDS:
        config = settings(str(tmp_path / kind), layouts.LAYOUTS[kind](tmp_path / kind / "source", items))
        sets[kind] = prepared(config, cluster, "set")
        assert f"({kind}): 48 training and 12 validation images of 3 classes" in capsys.readouterr().out
    folder = sets["folder"]
    assert sorted(folder) == sorted(
        ["names", "rejected.jsonl"]
        + [
            f"{s}{end}"
            for s in ("train/000000", "train/000001", "train/000002", "val/000000")
            for end in (".parquet", ".parquet.json")
        ]
    )
    rejected = [json.loads(line) for line in folder["rejected.jsonl"].splitlines()]
    assert {(line["id"], line["reason"]) for line in rejected} == {
        (items[3].path, "truncated"),
        (items[17].path, "empty"),
        (items[30].path, "unreadable"),
        (items[50].path, "too_small"),
    }
    for kind, files in sets.items():
        assert files == folder, kind
    # What was unpacked is gone, what was indexed stays for the next time.
    assert not [path for path in below(f"{tmp_path}/parquet/out") if "unpacked" in path]
    assert len([path for path in below(f"{tmp_path}/imagenet_tars/out/sources") if "index" in path]) == 5


def test_small_images_are_left_out_and_missing_files_counted(cluster, tmp_path):
    items = [
        layouts.Picture("train", "a", f"{i}.jpg", layouts.encoded(i, (20, 20) if i < 6 else (40, 60)))
        for i in range(20)
    ]
    layouts.as_folder(tmp_path / "source", items)
    rows = "".join(f"{item.path},a\n" for item in items) + "train/a/nowhere.jpg,a\n"
    (tmp_path / "source" / "list.csv").write_text("uri,label\n" + rows)
    config = settings(
        str(tmp_path), str(tmp_path / "source" / "list.csv"), resolution=32, upscale=False, val_fraction=0.2
    )
    files = prepared(config, cluster, "set")
    assert ImageSet.open(f"{config.storage}/images/set").rejected == {"missing": 1, "too_small_to_fill": 6}
    assert b"nowhere" in files["rejected.jsonl"]
    strict = config.changed(data=config.data.changed(max_bad_fraction=0.0))
    message = r"1 of 21 images .*1 missing\), more than data.max_bad_fraction=0.0 allows.*nowhere.jpg: missing"
    with pytest.raises(DataError, match=message):
        prepared(strict, cluster, "strict")


def test_validation_reports_and_writes_nothing(cluster, tmp_path, capsys):
    items = layouts.pictures()
    items[40] = replace(items[40], data=items[5].data)
    items[55] = replace(items[55], data=items[5].data)
    source = layouts.as_parquet(tmp_path / "source", items)
    assert check_images(settings(str(tmp_path), source), cluster) == "prepare_images would succeed"
    text = capsys.readouterr().out
    for line in (
        "(parquet): 48 training and 12 validation images of 3 classes",
        "  other files: 1 (1 .md)",
        "of a class: 16 / 16 / 16",
        "duplicates by content: 2, of which 1 are validation images",
        f"  {items[55].path} = {items[5].path}",
        "bad images: 4 (1 empty, 1 too_small, 1 truncated, 1 unreadable)",
        f"  {items[30].path}: unreadable: no picture",
        "below 256: 56",
    ):
        assert line in text, text
    assert below(f"{tmp_path}/out") == []
    with pytest.raises(DataError, match=r"would fail: 4 of 60 images .*max_bad_fraction=0.05"):
        check_images(settings(str(tmp_path), source, max_bad_fraction=0.05), cluster)


def test_damage_is_named_by_the_task_that_finds_it(cluster, tmp_path):
    source = layouts.as_webdataset(tmp_path / "source", layouts.pictures())
    damaged = tmp_path / "source" / "train-0001.tar"
    damaged.write_bytes(damaged.read_bytes()[:5000])
    with pytest.raises(DataError, match=rf"^{damaged} is cut off: it ends after 5000 bytes"):
        prepared(settings(str(tmp_path), source), cluster, "set")
