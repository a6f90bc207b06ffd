"""Copies of remote shards: kept once, checked, bounded, and never in the way."""

from __future__ import annotations

import itertools
import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from dcae15 import storage
from dcae15.config import ScalingConfig
from dcae15.data import shards
from dcae15.data.disk_cache import DiskCache, disk_cache
from dcae15.data.loader import latent_batches
from tests.unit.data.sets import latent_set


def contents(count: int, size: int = 100) -> dict[str, bytes]:
    return {storage.sha256(data): data for data in (bytes([i]) * size for i in range(count))}


class Source:
    """Where files come from; counts how often each is fetched."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.fetched = files, list[str]()

    def read(self, cache: DiskCache, name: str) -> bytes:
        def fetch() -> bytes:
            self.fetched.append(name)
            return self.files[name]

        return cache.read(name, fetch, lambda data: storage.sha256(data) == name)


def kept(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def test_a_file_is_fetched_once_and_by_another_process_not_again(tmp_path):
    source = Source(contents(3))
    for _ in range(2):
        cache = DiskCache(tmp_path / "cache", 10_000)
        assert all(source.read(cache, name) == data for name, data in source.files.items())
    assert source.fetched == list(source.files)
    assert kept(tmp_path / "cache") == set(source.files)


def test_threads_that_miss_the_same_file_fetch_it_once(tmp_path):
    name, data = next(iter(contents(1).items()))
    began, fetched = threading.Barrier(4), []

    def read(_: int) -> bytes:
        began.wait(20)
        return DiskCache(tmp_path, 10_000).read(name, lambda: fetched.append(name) or data, data.__eq__)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(read, range(4))) == [data] * 4
    assert fetched == [name]


@pytest.mark.parametrize("damage", [b"", b"other bytes"])
def test_a_damaged_copy_is_fetched_again(tmp_path, damage):
    source, cache = Source(contents(1)), DiskCache(tmp_path, 10_000)
    (name,) = source.files
    source.read(cache, name)
    (tmp_path / name).write_bytes(damage)
    assert source.read(cache, name) == source.files[name] == (tmp_path / name).read_bytes()
    assert source.fetched == [name, name]


def test_the_least_recently_read_go_beyond_the_bound(tmp_path):
    source, cache = Source(contents(4)), DiskCache(tmp_path, 300)
    a, b, c, d = source.files
    for age, name in enumerate((a, b, c)):
        source.read(cache, name)
        os.utime(tmp_path / name, (age, age))
    source.read(cache, a)  # now the newest
    source.read(cache, d)
    assert kept(tmp_path) == {a, c, d}
    assert sum((tmp_path / name).stat().st_size for name in kept(tmp_path)) <= 300


def test_what_is_larger_than_the_bound_is_not_kept(tmp_path):
    source, cache = Source(contents(1)), DiskCache(tmp_path, 99)
    (name,) = source.files
    assert source.read(cache, name) == source.files[name]
    assert kept(tmp_path) == set()


def test_what_killed_writers_left_is_removed(tmp_path):
    source, cache = Source(contents(1)), DiskCache(tmp_path, 10_000)
    old, new = tmp_path / f".tmp-{'0' * 32}", tmp_path / f".tmp-{'1' * 32}"
    old.write_bytes(b"old")
    new.write_bytes(b"somebody writes this now")
    os.utime(old, (0, 0))
    source.read(cache, *source.files)
    assert new.exists() and not old.exists()


def test_a_full_disk_means_no_cache_and_one_warning(tmp_path, monkeypatch, caplog):
    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    source, cache = Source(contents(3)), DiskCache(tmp_path, 10_000)
    with caplog.at_level(logging.WARNING):
        assert all(source.read(cache, name) == data for name, data in source.files.items())
    (record,) = caplog.records
    assert "No space left on device" in record.getMessage() and "scaling.cache_folder" in record.getMessage()
    assert kept(tmp_path) == set()


def test_a_folder_that_cannot_be_made_means_no_cache_and_one_warning(tmp_path, caplog):
    (tmp_path / "file").write_bytes(b"")
    source, cache = Source(contents(2)), DiskCache(tmp_path / "file" / "cache", 10_000)
    assert all(source.read(cache, name) == data for name, data in source.files.items())
    assert len(caplog.records) == 1


def test_an_error_of_the_source_is_the_callers_and_the_next_try_works(tmp_path):
    (name,), (data,) = contents(1).keys(), contents(1).values()
    cache = DiskCache(tmp_path, 10_000)

    def fail() -> bytes:
        raise ValueError("no network")

    with pytest.raises(ValueError, match="no network"):
        cache.read(name, fail, data.__eq__)
    assert cache.read(name, lambda: data, data.__eq__) == data


def test_only_remote_sets_are_cached_and_only_where_asked_for(tmp_path):
    scaling = ScalingConfig(cache_folder=str(tmp_path), cache_gib=0.5)
    assert disk_cache(scaling, "/data/images") is None
    assert disk_cache(ScalingConfig(cache_gib=0), "s3://bucket/images") is None
    found = disk_cache(scaling, "s3://bucket/images")
    assert found is not None and (found.folder, found.limit) == (tmp_path, 2**29)
    default = disk_cache(ScalingConfig(), "s3://bucket/images")
    assert default is not None and default.limit == 64 * 2**30


def test_a_second_run_over_a_remote_set_reads_nothing_from_it(tmp_path, monkeypatch):
    uri = "memory://disk-cache-test/latents"
    stored = latent_set(uri, [20] * 5)
    paths: list[str] = []
    whole = storage.read_bytes
    monkeypatch.setattr(storage, "read_bytes", lambda uri: paths.append(uri) or whole(uri))
    seen = []
    try:
        for _ in range(2):
            disk = disk_cache(ScalingConfig(cache_folder=str(tmp_path)), uri)
            batches = latent_batches(stored, seed=0, batch_size=50, start=0, rank=0, world=1, disk=disk)
            with closing(iter(batches)) as stream:
                seen.append([batch.labels.tolist() for batch in itertools.islice(stream, 4)])
    finally:
        fsspec.filesystem("memory").rm("/disk-cache-test", recursive=True)
    assert seen[0] == seen[1]
    assert len(paths) == len(set(paths)) == 5


@pytest.mark.parametrize("written_with", ["xxh3", "sha256 alone"])
def test_a_copy_of_a_shard_with_one_other_byte_is_fetched_again(tmp_path, written_with):
    root, cache = str(tmp_path / "set"), DiskCache(tmp_path / "cache", 10_000)
    (shard,) = latent_set(root, [20]).splits["train"].shards
    shard = shard if written_with == "xxh3" else replace(shard, xxh3="")
    table = shards.read_shard(root, shard, disk=cache)
    copy = tmp_path / "cache" / shard.sha256
    data = bytearray(copy.read_bytes())
    data[len(data) // 2] ^= 1
    copy.write_bytes(data)
    assert shards.read_shard(root, shard, disk=cache).equals(table)
    assert storage.sha256(copy.read_bytes()) == shard.sha256
    (tmp_path / "set" / shard.path).unlink()
    assert shards.read_shard(root, shard, disk=cache).equals(table)
