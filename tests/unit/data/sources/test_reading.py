"""Reading ahead: in order, so many at once and no more, and an end when one fails."""

from __future__ import annotations

import threading

import pytest

from dcae15 import storage
from dcae15.data import sources
from dcae15.data.sources import reading
from dcae15.errors import StorageError


def images(uris, offsets=None):
    count = len(uris)
    return sources.rows([str(i) for i in range(count)], [0] * count, uris, offsets or [-1] * count, [2] * count)


def test_remote_images_come_in_order_and_a_bounded_number_is_under_way(monkeypatch):
    """The first answer comes last; the others are asked for meanwhile, up to the bound."""
    asked, last, lock = [], threading.Event(), threading.Lock()

    def read(uri):
        with lock:
            asked.append(uri)
            if len(asked) == reading.IN_FLIGHT:
                last.set()
        if uri == "s3://bucket/0":
            assert last.wait(10)
        return uri.encode()

    monkeypatch.setattr(storage, "read_bytes", read)
    uris = [f"s3://bucket/{i}" for i in range(100)]
    stream = reading.read_images(images(uris))
    assert next(stream) == b"s3://bucket/0"
    assert len(asked) <= reading.IN_FLIGHT + 1
    assert list(stream) == [uri.encode() for uri in uris[1:]]


def test_an_error_ends_it_without_asking_for_the_rest(monkeypatch):
    asked = []

    def read(uri):
        asked.append(uri)
        raise StorageError("no")

    monkeypatch.setattr(storage, "read_bytes", read)
    with pytest.raises(StorageError, match="no"):
        list(reading.read_images(images([f"s3://bucket/{i}" for i in range(1000)])))
    assert len(asked) <= 2 * reading.IN_FLIGHT


def test_parts_of_files_whole_files_and_missing_ones(tmp_path):
    (tmp_path / "a").write_bytes(b"abcdef")
    uris = [f"{tmp_path}/a", f"{tmp_path}/a", f"{tmp_path}/none"]
    *found, missing = reading.read_images(images(uris, [3, -1, -1]))
    assert (found, missing.reason) == ([b"de", b"abcdef"], "missing")
    assert str(missing) == f"missing: Cannot read {tmp_path}/none: it does not exist."


def test_a_container_that_is_gone_is_no_missing_image(tmp_path):
    with pytest.raises(StorageError, match="does not exist"):
        list(reading.read_images(images([f"{tmp_path}/x.tar"], [0])))
