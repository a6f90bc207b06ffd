from collections import Counter

import pytest

from dcae15 import storage
from dcae15.data import sources
from dcae15.errors import DataError


@pytest.fixture
def folder(monkeypatch):
    """Serve a listing from memory: set the paths, then list "root"."""
    paths: list[str] = []
    monkeypatch.setattr(storage, "list_files", lambda uri: [storage.FileInfo(p, 1) for p in sorted(paths)])
    monkeypatch.setattr(storage, "resolve", lambda uri: uri)
    monkeypatch.setattr(storage, "join", lambda uri, *parts: "/".join((uri, *parts)))
    return paths


def listed(val_fraction=0.25, limit=0, seed=0, classes=()):
    listing = sources.find("root", "folder")
    return sources.assemble(listing, [], sources.Selection(val_fraction, limit, classes, seed))


def ids(images):
    return images.column("id").to_pylist()


def labels(images):
    return images.column("label").to_pylist()


def test_imagenets_layout(folder):
    folder += ["train/n02/b.JPEG", "train/n01/a.JPEG", "train/n01/deep/c.png", "val/n02/d.JPEG"]
    source = listed()
    assert source.class_names == ("n01", "n02")
    paths = ["train/n01/a.JPEG", "train/n01/deep/c.png", "train/n02/b.JPEG"]
    whole = {"offset": -1, "size": 1}
    assert source.train.drop_columns(["state", "caption"]).to_pylist() == [
        {"id": path, "label": label, "uri": f"root/{path}", **whole}
        for path, label in zip(paths, (0, 0, 1), strict=True)
    ]
    [val] = source.val.drop_columns(["state", "caption"]).to_pylist()
    assert val == {"id": "val/n02/d.JPEG", "label": 1, "uri": "root/val/n02/d.JPEG", **whole}
    assert source.ignored == 0


def test_a_share_of_every_class_is_held_out_without_val(folder):
    folder += [f"{name}/{i}.png" for name, count in (("cat", 40), ("dog", 8), ("tiny", 2)) for i in range(count)]
    source = listed()
    assert Counter(labels(source.val)) == {0: 10, 1: 2}
    assert Counter(labels(source.train)) == {0: 30, 1: 6, 2: 2}
    assert sorted(ids(source.train) + ids(source.val)) == sorted(folder)
    assert source == listed()
    assert ids(source.val) != ids(listed(seed=1).val)


@pytest.mark.parametrize(("images", "expected"), [(1, 0), (4, 0), (5, 1), (30, 1), (60, 2)])
def test_small_shares_still_hold_out_one_image_of_a_class(folder, images, expected):
    folder += [f"cat/{i}.png" for i in range(images)]
    assert listed(val_fraction=0.03).val.num_rows == expected


def test_large_shares_leave_an_image_to_train_on(folder):
    folder += [f"cat/{i}.png" for i in range(6)]
    source = listed(val_fraction=0.99)
    assert (len(source.train), len(source.val)) == (1, 5)


def test_no_share_holds_out_nothing(folder):
    folder += [f"cat/{i}.png" for i in range(20)]
    assert listed(val_fraction=0).val.num_rows == 0


def test_train_without_val_gives_the_held_out_share(folder):
    folder += [f"train/cat/{i}.png" for i in range(20)]
    source = listed()
    assert (len(source.train), len(source.val), source.class_names) == (15, 5, ("cat",))


def left(source):
    return {part.reason: part.count for part in source.left_out}


def test_suffixes_and_hidden_files_are_counted(folder, monkeypatch):
    monkeypatch.setattr(storage, "read_range", lambda uri, offset, size: b"no")
    taken = [f"cat/{i}{suffix}" for i, suffix in enumerate((*sources.SUFFIXES, ".JPG", ".Png"))]
    folder += [*taken, "cat/notes.txt", "cat/.thumb.jpg", ".cache/x.jpg", "cat/noend", "readme.md", "cover.jpg"]
    source = listed(val_fraction=0)
    assert ids(source.train) == sorted(taken)
    assert (source.class_names, source.others) == (("cat",), {".txt": 1, ".md": 1, "without suffix": 1})
    assert left(source) == {
        "hidden files": 1,
        "in folders that a system keeps for itself": 1,
        "in no folder of a class": 1,
    }
    assert source.lost == {"in no folder of a class": 1}


def test_other_folders_beside_train_and_val_are_named(folder):
    folder += ["train/a/1.png", "val/a/2.png", "test/3.png", "docs/4.png"]
    source = listed()
    assert (ids(source.train), ids(source.val)) == (["train/a/1.png"], ["val/a/2.png"])
    assert left(source) == {
        "images of test, which have no use here": 1,
        "outside of the folders of the splits": 1,
    }
    assert source.lost == {"outside of the folders of the splits": 1}


def test_a_class_may_be_called_train(folder):
    folder += ["train/1.png", "plane/2.png"]
    assert listed(val_fraction=0).class_names == ("plane", "train")


@pytest.mark.parametrize("paths", [["b.png", "a.png"], ["train/a.png", "train/b.png"]])
def test_unlabelled_images_are_one_class(folder, paths):
    folder += paths
    source = listed(val_fraction=0)
    assert (source.class_names, ids(source.train)) == (("images",), sorted(paths))
    assert set(labels(source.train)) == {0}


def test_unlabelled_images_with_splits(folder):
    folder += ["train/a.png", "val/b.png"]
    source = listed()
    assert (source.class_names, ids(source.train), ids(source.val)) == (("images",), ["train/a.png"], ["val/b.png"])


def test_the_limit_spreads_over_the_classes(folder):
    folder += [f"train/{name}/{i}.png" for name, n in (("a", 50), ("b", 50), ("c", 1)) for i in range(n)]
    folder += [f"val/a/{i}.png" for i in range(9)]
    source = listed(limit=7)
    assert Counter(labels(source.train)) == {0: 3, 1: 3, 2: 1}
    assert len(source.val) == 7
    assert ids(source.train) == sorted(ids(source.train))
    assert listed(limit=2).class_names == ("a", "b"), "classes have images"
    assert set(ids(listed(limit=5).train)) < set(ids(source.train))


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([], "data.source root does not exist: there is no such file or folder"),
        (["a.txt", "b.csv"], r"2 files are there \(1 \.csv, 1 \.txt\).*train/<class>"),
        (["val/cat/1.png"], "no train/"),
        (["train/cat/1.png", "val/cat/1.png", "val/dog/2.png"], "'dog'"),
        (["train/cat/1.png", "val/2.png"], "val/2.png.*move them"),
    ],
)
def test_other_layouts_are_explained(folder, paths, message):
    folder += paths
    with pytest.raises(DataError, match=message):
        listed()
