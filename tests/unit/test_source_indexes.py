"""Indexes that are kept, and how rows are shared out by file."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from dcae15 import storage
from dcae15.data import sources
from dcae15.data.sources import Selection, imagenet_tars
from dcae15.errors import StorageError
from dcae15.stages import source_opening as opening
from tests import layouts


@pytest.fixture
def listing(tmp_path):
    return sources.find(layouts.as_webdataset(tmp_path / "tars", layouts.pictures()))


def test_an_index_is_made_once_and_read_from_then_on(tmp_path, listing):
    container, root = listing.containers[0], str(tmp_path / "index")
    first = opening._index(root, container)
    Path(container.uri).unlink()
    assert opening._index(root, container).equals(first)
    with pytest.raises(StorageError, match="does not exist"):
        opening._index(root, replace(container, stem="other"))
    with pytest.raises(StorageError, match="does not exist"):
        opening._index("", container)


def test_a_damaged_index_is_made_anew(tmp_path, listing):
    root = str(tmp_path / "index")
    first = opening._index(root, listing.containers[0])
    [kept] = storage.list_files(root)
    storage.write_bytes(f"{root}/{kept.path}", b"damaged")
    assert opening._index(root, listing.containers[0]).equals(first)


def test_containers_have_indexes_of_their_own(tmp_path, listing):
    root = str(tmp_path / "index")
    for container in listing.containers:
        opening._index(root, replace(container, stem=container.stem.replace("-", "/")))
    assert len(storage.list_files(root)) == len(listing.containers)


def test_indexes_are_named_by_what_they_were_made_of(listing):
    first, *rest = listing.containers
    others = [replace(first, size=1), replace(first, offset=1), replace(first, name="x"), replace(first, state=1)]
    names = {opening._index_root("/s", listing.kind, listing.uri, [c, *rest]) for c in [first, *others]}
    assert len(names) == 5
    assert opening._index_root("/s", listing.kind, listing.uri, listing.containers) in names


def opened(root, uri):
    """What the driver does, without Ray."""
    listing = sources.find(uri, remember=partial(opening._remember, root))
    place = opening._index_root(root, listing.kind, listing.uri, listing.containers)
    return sources.assemble(listing, [opening._index(place, c) for c in listing.containers], Selection())


def test_a_tar_that_was_mended_is_indexed_anew(tmp_path):
    labels = []
    for label in (b"0", b"1"):  # the tars are of the same size
        layouts.write(tmp_path / "tars" / "train-0.tar", layouts.tar_bytes([("a.jpg", b"x"), ("a.cls", label)]))
        labels += opened(str(tmp_path), str(tmp_path / "tars")).class_names
    assert labels == ["0", "1"]


def test_a_tar_of_tars_is_read_once(tmp_path, monkeypatch):
    uri = layouts.as_imagenet_tars(tmp_path / "tars", layouts.pictures(broken=False))
    first = opened(str(tmp_path), uri)
    monkeypatch.setattr(imagenet_tars, "open_tar", None)
    assert opened(str(tmp_path), uri) == first
    with pytest.raises(TypeError):
        opened(str(tmp_path / "other"), uri)


@pytest.mark.parametrize("kind", ["folder", "webdataset", "parquet"])
def test_a_file_that_was_mended_changes_the_plan_of_its_shard(tmp_path, kind):
    """Only that of its shard where each image is a file."""
    items = layouts.pictures(broken=False)
    uri = layouts.LAYOUTS[kind](tmp_path / "source", items)

    def dealt():
        source = opened(str(tmp_path), uri)
        return source, sources.deal(source.train, 12, seed=0)

    before, plans = dealt()
    same, again = dealt()
    assert again == plans and opening._digest(same.train) == opening._digest(before.train)
    path = Path(plans[1]["uri"][0].as_py())
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))  # written anew, with as many bytes
    after, changed = dealt()
    assert after.train.drop_columns(["state"]) == before.train.drop_columns(["state"])
    assert opening._digest(after.train) != opening._digest(before.train)
    assert [a == b for a, b in zip(plans, changed, strict=True)] == (
        [True, False, True, True] if kind == "folder" else [False] * 4
    )


def test_rows_by_file_are_in_the_order_of_the_file():
    uris, offsets = ["/b", "/a", "/b", "/a", "/c"], [5, 9, 2, 1, 0]
    table = sources.rows(list("vwxyz"), [0] * 5, uris, offsets, [-1] * 5)
    found = [(uri, rows.tolist()) for uri, rows in opening.by_file(table)]
    assert found == [("/a", [3, 1]), ("/b", [2, 0]), ("/c", [4])]
    assert opening.by_file(table.slice(0, 0)) == []
    assert [rows.tolist() for _, rows in opening.by_file(sources.take(table, np.array([0, 2])))] == [[1, 0]]
