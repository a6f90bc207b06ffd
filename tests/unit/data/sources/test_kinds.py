"""Every kind finds the same pictures under the same names, and picks its kind by itself."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from dcae15.data import sources
from dcae15.data.sources import parquet
from dcae15.data.sources.reading import read_images
from dcae15.errors import ConfigError, DataError
from tests import layouts
from tests.layouts import WNIDS, Picture
from tests.layouts import open_source as opened


def contents(source, table):
    if source.kind != "parquet":
        return list(read_images(table))
    return [
        next(parquet.read_rows(uri, np.array([row])))
        for uri, row in zip(table["uri"].to_pylist(), table["offset"].to_pylist(), strict=True)
    ]


@pytest.mark.parametrize("name", layouts.LAYOUTS)
def test_the_same_pictures(tmp_path, name):
    items = layouts.pictures()
    source = opened(layouts.LAYOUTS[name](tmp_path, items))
    assert (source.kind, source.class_names) == (name.partition(" ")[0], WNIDS)
    for split in ("train", "val"):
        table = getattr(source, split)
        expected = sorted((i.path, WNIDS.index(i.wnid), i.data) for i in items if i.split == split)
        found = list(zip(table["id"].to_pylist(), table["label"].to_pylist(), contents(source, table), strict=True))
        assert found == expected


@pytest.mark.parametrize("name", layouts.LAYOUTS)
def test_limits_and_class_subsets(tmp_path, name):
    items = layouts.pictures(broken=False)
    uri = layouts.LAYOUTS[name](tmp_path / "source", items)
    folder = opened(layouts.as_folder(tmp_path / "folder", items), limit=8, classes=(WNIDS[2], WNIDS[1]))
    source = opened(uri, limit=8, classes=(WNIDS[2], WNIDS[1], WNIDS[1]))
    assert source.class_names == WNIDS[1:]
    assert source.train["label"].to_pylist() == [0] * 4 + [1] * 4
    for split in ("train", "val"):
        for column in ("id", "label"):
            assert getattr(source, split)[column].to_pylist() == getattr(folder, split)[column].to_pylist()


def test_a_share_is_held_out_where_a_source_has_no_val(tmp_path):
    """The same pictures validate in every kind, because their names are the same."""
    items = [i for i in layouts.pictures(broken=False) if i.split == "train"]
    folder = opened(layouts.as_folder(tmp_path / "folder", items), val_fraction=0.3, seed=3)
    assert (folder.train.num_rows, folder.val.num_rows) == (33, 15)
    layouts.write(
        tmp_path / "tars" / layouts.TRAIN_TAR,
        layouts.tar_bytes(
            [(f"{w}.tar", layouts.tar_bytes([(i.name, i.data) for i in items if i.wnid == w])) for w in WNIDS]
        ),
    )
    layouts.write(tmp_path / "web" / "train-0.tar", layouts.tar_bytes(layouts.samples(items)))
    layouts.write(tmp_path / "web" / "classes.txt", "\n".join(WNIDS).encode())
    layouts.write(tmp_path / "parquet" / "train-0.parquet", layouts.parquet_bytes(items))
    for kind in ("tars", "web", "parquet"):
        assert opened(tmp_path / kind, val_fraction=0.3, seed=3).val["id"].to_pylist() == folder.val["id"].to_pylist()


def test_an_unknown_class_is_named_with_the_nearest(tmp_path):
    uri = layouts.as_folder(tmp_path, layouts.pictures(broken=False))
    with pytest.raises(ConfigError, match=r"data.classes has 'n01440765', .* 3 classes .*did you mean 'n01440764'\?"):
        opened(uri, classes=("n01440765",))
    with pytest.raises(ConfigError, match="they are n01440764, n01443537"):
        opened(uri, classes=("zebra",))


def test_dealing_is_complete_and_a_share_is_small_when_it_is_pickled(tmp_path):
    source = opened(layouts.as_folder(tmp_path, layouts.pictures(broken=False)))
    dealt = sources.deal(source.train, 20, seed=1)
    assert [t.num_rows for t in dealt] == [20, 20, 8]
    ids = [i for t in dealt for i in t["id"].to_pylist()]
    assert sorted(ids) == source.train["id"].to_pylist() != ids
    assert ids == [i for t in sources.deal(source.train, 7, seed=1) for i in t["id"].to_pylist()]
    assert ids != [i for t in sources.deal(source.train, 20, seed=2) for i in t["id"].to_pylist()]
    assert len(pickle.dumps(dealt[2])) < len(pickle.dumps(source.train)) / 3


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["a/1.jpg", "x.tar"], r"could be folder \('a/1.jpg'\), webdataset \('x.tar'\): say which .* data.kind"),
        (["a.parquet", "x.tar"], "parquet .*webdataset"),
        (["list.csv"], "data.source=.*/list.csv"),
    ],
)
def test_what_could_be_two_kinds_is_asked(tmp_path, files, message):
    for name in files:
        layouts.write(tmp_path / name, b"x")
    with pytest.raises(ConfigError, match=message):
        sources.find(str(tmp_path))


def test_the_kind_may_be_said(tmp_path):
    layouts.write(tmp_path / "cat" / "1.jpg", b"x")
    layouts.write(tmp_path / "left.tar", b"x")
    assert sources.find(str(tmp_path), "folder").kind == "folder"
    with pytest.raises(DataError, match=r"no \.parquet files, which data.kind=parquet needs: 2 files"):
        sources.find(str(tmp_path), "parquet")
    with pytest.raises(ConfigError, match="name the list itself"):
        sources.find(str(tmp_path), "list")
    with pytest.raises(ConfigError, match=r"'list', but data.source .*left.tar is a file for 'webdataset'"):
        sources.find(str(tmp_path / "left.tar"), "list")
    with pytest.raises(ConfigError, match=r"data.kind is 'tar'; use auto, folder"):
        sources.find(str(tmp_path), "tar")
    with pytest.raises(ConfigError, match="name the folder that holds them"):
        sources.find(str(tmp_path / layouts.VAL_TAR))


def test_an_id_that_occurs_twice_is_an_error(tmp_path):
    layouts.write(tmp_path / "list.csv", b"uri,label,id\na.jpg,x,one\nb.jpg,x,two\nc.jpg,x,one\n")
    with pytest.raises(DataError, match=r"list.csv' has 1 ids more than once, for example 'one'"):
        opened(tmp_path / "list.csv")


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("train-00001-of-00294.parquet", "train"),
        ("imagenet1k-validation-12.tar", "val"),
        ("val_0.tar", "val"),
        ("train/0000.tar", "train"),
        ("test/0000.parquet", "test"),
        ("a.train.parquet", "train"),
        ("trainer.tar", ""),
        ("values.tar", ""),
        ("Validation-0.tar", "val"),
        ("train2.tar", "train"),
        ("test/train-0.tar", "train"),
        ("train/latest-test-1.tar", "train"),
        ("Validation/train/test-1.tar", "val"),
        ("train-and-val/val-0.tar", "val"),
        ("train-and-val/0.tar", "train"),
    ],
)
def test_names_say_the_split(path, split):
    assert sources.splits.of_file(path) == split


def test_containers_of_test_are_named(tmp_path):
    items = [Picture("train", WNIDS[0], f"{i}.JPEG", b"x") for i in range(2)]
    layouts.write(tmp_path / "train-0.tar", layouts.tar_bytes(layouts.samples(items)))
    assert not any("test" in note for note in opened(tmp_path).notes)
    for i in range(5):
        layouts.write(tmp_path / "more" / f"test-{i}.tar", b"never opened")
    text = opened(tmp_path).describe()
    assert "\n  left out as files of test: more/test-0.tar, more/test-1.tar, more/test-2.tar and 2 more" in text


@pytest.mark.parametrize("kind", ["parquet", "webdataset"])
def test_images_to_validate_only_make_no_source(tmp_path, kind):
    items = [Picture("val", WNIDS[0], f"{i}.JPEG", b"x") for i in range(2)]
    if kind == "parquet":
        layouts.write(tmp_path / "validation-0.parquet", layouts.parquet_bytes(items))
    else:
        layouts.write(tmp_path / "val-0.tar", layouts.tar_bytes(layouts.samples(items)))
    with pytest.raises(DataError, match=rf"\({kind}\) has 2 validation images, but none to train on"):
        opened(tmp_path)


def test_classes_to_validate_only_make_no_source(tmp_path):
    for split, labels in (("train", (0, 1)), ("val", (1, 2))):
        members = [m for i in labels for m in ((f"{i}.jpg", b"x"), (f"{i}.cls", b"%d" % i))]
        layouts.write(tmp_path / f"{split}-0.tar", layouts.tar_bytes(members))
    with pytest.raises(DataError, match=r"has no training images of the 1 classes in data\.classes"):
        opened(tmp_path, classes=("2",))
    source = opened(tmp_path, classes=("1", "2"))
    assert (source.class_names, source.val.num_rows) == (("1",), 1)
    assert source.lost == {"validation images of classes without training images": 1}


def test_single_files_are_sources(tmp_path):
    items = [Picture("train", w, f"{w}_{i}.JPEG", layouts.encoded(i)) for w in WNIDS for i in range(3)]
    layouts.write(tmp_path / "all.tar", layouts.tar_bytes(layouts.samples(items)))
    layouts.write(tmp_path / "all.parquet", layouts.parquet_bytes(items))
    tar, table = opened(tmp_path / "all.tar"), opened(tmp_path / "all.parquet")
    assert tar.class_names == ("0", "1", "2")
    assert table.class_names == WNIDS
    assert tar.train["id"].to_pylist()[0] == "0/n01440764_0.JPEG"
    assert table.train["id"].to_pylist()[0] == "n01440764/n01440764_0.JPEG"
