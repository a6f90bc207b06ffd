"""Copies of Parquet sources: when they go, and that nothing half-removed is taken for whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from dcae15 import artifacts, storage
from dcae15.config import Config, DataConfig
from dcae15.data import shards
from dcae15.data.sources import Selection, assemble, find, index
from dcae15.data.sources.reading import read_images
from dcae15.errors import StorageError
from dcae15.stages import image_preparing as prepare
from dcae15.stages import source_opening as opening
from tests import layouts
from tests.here import Here

CLUSTER = Here()


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "open_source", opened)
    uri = layouts.as_parquet(tmp_path / "source", layouts.pictures(broken=False))
    return Config(storage=str(tmp_path / "out"), data=DataConfig(source=uri, resolution=16, shard_images=20))


def opened(config, cluster, uri, kind):
    listing = find(uri)
    return assemble(listing, [index(c) for c in listing.containers], Selection())


def images_of(config):
    return f"{config.storage}/images/set"


def make(config):
    prepare.prepare_images(config, CLUSTER, uri=images_of(config), fingerprint="set")


def copied(config):
    source = opened(config, CLUSTER, config.data.source, "")
    copy = opening.copy_of(config, source, "set")
    return copy, opening.unpack(copy, CLUSTER, source, images_of(config))


def left(config):
    return [info.path for info in storage.list_files(f"{config.storage}/sources")]


def test_a_copy_is_as_its_source_and_goes_when_the_images_are_made(config):
    _, moved = copied(config)
    items = {item.path: item.data for item in layouts.pictures(broken=False)}
    assert list(read_images(moved.train)) == [items[name] for name in moved.train["id"].to_pylist()]
    make(config)
    assert artifacts.finished(images_of(config)) and left(config) == []


def test_a_copy_that_outlived_its_job_goes_with_the_next_one(config):
    copied(config)
    opening.remove_copies(config.storage)
    assert left(config), "its images are not made yet"
    storage.write_json(f"{images_of(config)}/manifest.json", {})
    opening.remove_copies(config.storage)
    assert left(config) == []


def test_a_copy_of_a_source_that_was_mended_goes_with_its_images(config):
    first, _ = copied(config)
    damaged = next(Path(config.data.source).glob("data/train-*"))
    damaged.write_bytes(damaged.read_bytes())
    assert copied(config)[0] != first
    make(config)
    assert left(config) == []


def test_a_removal_that_is_cut_off_leaves_nothing_that_seems_complete(config, monkeypatch):
    copy, _ = copied(config)
    remove, removed = storage.remove, []

    def remove_side_files(uri):
        if not uri.endswith(".json"):
            raise StorageError("cut off")
        removed.append(uri)
        remove(uri)

    monkeypatch.setattr(storage, "remove", remove_side_files)
    with pytest.raises(StorageError, match="cut off"):
        opening.discard(copy)
    assert len(removed) == 4 and shards.read_records(copy) == {}
    assert storage.exists(copy + ".json"), "the next job knows of it"


@pytest.mark.parametrize("finished", [True, False])
def test_a_job_whose_copy_was_removed_by_a_faster_one_ends_well(config, monkeypatch, capsys, finished):
    write_shards = prepare.write_shards

    def faster(cluster, name, root, *rest):
        storage.remove(opening.copy_of(config, opened(config, CLUSTER, config.data.source, ""), "set"))
        if finished:
            storage.write_json(f"{root}/manifest.json", {})
        return write_shards(cluster, name, root, *rest)

    monkeypatch.setattr(prepare, "write_shards", faster)
    if finished:
        make(config)
        assert "another job has made" in capsys.readouterr().out and left(config) == []
    else:
        with pytest.raises(StorageError, match="does not exist"):
            make(config)
