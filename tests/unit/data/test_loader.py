"""The promises of docs/loader.md about batches."""

from __future__ import annotations

import itertools
import threading
from contextlib import closing

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dcae15 import artifacts, storage
from dcae15.data import loader, order, shards
from dcae15.data.loader import image_batches, latent_batches
from dcae15.errors import ConfigError, DataError
from tests.unit.data.sets import image_set, latent_set

COUNTS = [7, 1, 30, 12, 5, 5, 19, 2, 40, 11, 3, 8, 6, 17, 9, 4, 21, 10, 13, 2]  # two windows; uneven shards


@pytest.fixture(scope="module")
def latents(tmp_path_factory) -> artifacts.LatentSet:
    return latent_set(str(tmp_path_factory.mktemp("latents")), COUNTS)


def global_batches(latents: artifacts.LatentSet, count: int, *, world: int, batch_size: int, start: int = 0):
    """The labels of global batches, put together from what all ranks get."""
    ranks = []
    for rank in range(world):
        batches = latent_batches(latents, seed=1, batch_size=batch_size, start=start, rank=rank, world=world)
        with closing(iter(batches)) as stream:
            taken = list(itertools.islice(stream, count))
        assert [batch.start for batch in taken] == [start + i * batch_size for i in range(count)]
        assert all(torch.equal(b.inputs.flatten(1)[:, 0].long(), b.labels) for b in taken), "rows keep their label"
        ranks.append([batch.labels for batch in taken])
    return torch.cat([torch.cat([rank[i] for rank in ranks]) for i in range(count)])


@given(
    worlds=st.tuples(st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4, 8])),
    batches=st.integers(1, 6),
    start=st.integers(0, 1_000),
)
@settings(max_examples=12, deadline=None)
def test_a_run_continues_with_the_next_image_on_any_number_of_workers(latents, worlds, batches, start):
    whole = global_batches(latents, 2 * batches, world=1, batch_size=16, start=start)
    before = global_batches(latents, batches, world=worlds[0], batch_size=16, start=start)
    after = global_batches(latents, batches, world=worlds[1], batch_size=16, start=start + 16 * batches)
    assert torch.equal(torch.cat([before, after]), whole)


@pytest.mark.parametrize(("batch_size", "world"), [(32, 4), (512, 2), (7, 7), (225, 1)])
def test_epochs_hold_every_image_once_whatever_the_batch(latents, batch_size, world):
    total = sum(COUNTS)
    seen = global_batches(latents, -(-2 * total // batch_size), world=world, batch_size=batch_size)
    for epoch in range(2):
        assert sorted(seen[epoch * total : (epoch + 1) * total].tolist()) == list(range(total))


def test_the_set_may_be_smaller_than_a_batch(tmp_path):
    seen = global_batches(latent_set(str(tmp_path), [2, 1]), 3, world=2, batch_size=8)
    assert all(sorted(seen[i : i + 3].tolist()) == [0, 1, 2] for i in range(0, 24, 3))


def test_a_batch_that_cannot_be_shared_is_refused(latents):
    with pytest.raises(ConfigError, match="batch_size 10 cannot be shared evenly by 4"):
        latent_batches(latents, seed=0, batch_size=10, start=0, rank=0, world=4)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_latents_are_held_as_stored_and_come_as_float32(tmp_path, dtype):
    stored = latent_set(str(tmp_path), [9, 4], dtype)
    cache = loader.latent_cache(stored, stored.splits["train"])
    assert cache.get(0)["values"].dtype.itemsize == shards.LATENT_BYTES[dtype]
    batch = next(iter(latent_batches(stored, seed=0, batch_size=13, start=0, rank=0, world=1)))
    assert batch.inputs.dtype == torch.float32
    assert torch.equal(batch.inputs[:, 0, 0, 0], batch.labels.float())


def test_large_batches_are_converted_in_pieces():
    values = np.random.default_rng(0).normal(size=(9, 5, 31, 29)).astype(np.float16)
    assert torch.equal(shards.float_latents(values, "float16"), torch.from_numpy(values).float())


@pytest.mark.parametrize("encoding", ["raw", "png"])
def test_images_are_mirrored_by_their_position_alone(tmp_path, encoding):
    images = image_set(str(tmp_path), [40, 24], encoding)

    def take(start: int, count: int, **options) -> torch.Tensor:
        batches = image_batches(images, seed=0, batch_size=16, start=start, rank=0, world=1, **options)
        with closing(iter(batches)) as stream:
            return torch.cat([batch.inputs for batch in itertools.islice(stream, count)])

    plain, mirrored = take(0, 8), take(0, 8, flip=True)
    assert torch.equal(plain, mirrored), "each image is of one grey"
    assert torch.equal(take(48, 5, flip=True), mirrored[48:])


def test_mirroring_draws_half_of_the_images(tmp_path, monkeypatch):
    images = image_set(str(tmp_path), [64])
    ramp = np.arange(64 * 3 * 64, dtype=np.uint64).astype(np.uint8).reshape(64, 8, 8, 3)
    monkeypatch.setattr(loader, "decode_images", lambda table, _: {"values": ramp, "labels": shards.labels_of(table)})
    batch = next(iter(image_batches(images, seed=0, batch_size=64, start=0, rank=0, world=1, flip=True)))
    rows = batch.labels.numpy()
    plain = (batch.inputs.numpy() == ramp[rows]).all(axis=(1, 2, 3))
    mirrored = (batch.inputs.numpy() == ramp[rows][:, :, ::-1]).all(axis=(1, 2, 3))
    assert (plain | mirrored).all() and 20 < mirrored.sum() < 44


class Reads:
    """Counts reads of shards, and can hold them back until they are let through."""

    def __init__(self, monkeypatch):
        self.paths: list[str] = []
        self.let = threading.Event()
        self.let.set()
        self.arrived: dict[str, threading.Event] = {}
        whole = storage.read_bytes

        def read(uri: str) -> bytes:
            self.paths.append(uri)
            self.arrived.setdefault(uri, threading.Event()).set()
            assert self.let.wait(20)
            return whole(uri)

        monkeypatch.setattr(storage, "read_bytes", read)


def test_each_shard_is_read_once_where_the_set_fits(latents, monkeypatch):
    reads = Reads(monkeypatch)
    batches = latent_batches(latents, seed=0, batch_size=32, start=0, rank=0, world=1)
    with closing(iter(batches)) as stream:
        list(itertools.islice(stream, 30))  # more than four epochs
    assert len(reads.paths) == len(set(reads.paths)) == len(COUNTS)


def test_where_only_two_windows_fit_each_shard_is_read_once_an_epoch(tmp_path, monkeypatch):
    reads = Reads(monkeypatch)
    stored = latent_set(str(tmp_path), [20] * 60)
    sizes = [shard.bytes for shard in stored.splits["train"].shards]
    monkeypatch.setattr(order, "CACHE_BYTES", 6 * max(sizes))
    assert order.window_of(sizes) == 3
    batches = latent_batches(stored, seed=0, batch_size=16, start=0, rank=0, world=1)
    batches.cache.limit = order.CACHE_BYTES
    with closing(iter(batches)) as stream:
        list(itertools.islice(stream, 75))  # one epoch; a few batches more are prepared ahead, and a window more read
    assert len(reads.paths) <= 60 + 3 * 3, "no shard is read again within its window"
    assert set(reads.paths) == {storage.join(stored.uri, s.path) for s in stored.splits["train"].shards}


def test_shards_beyond_the_memory_bound_still_work(tmp_path):
    stored = latent_set(str(tmp_path), [9] * 5)
    batches = latent_batches(stored, seed=0, batch_size=9, start=0, rank=0, world=1)
    batches.cache.limit = 1
    with closing(iter(batches)) as stream:
        labels = torch.cat([batch.labels for batch in itertools.islice(stream, 5)])
    assert sorted(labels.tolist()) == list(range(45))
    assert len(batches.cache._held) <= 1


def test_the_next_windows_shards_are_read_while_this_one_is_used(tmp_path, monkeypatch):
    stored = latent_set(str(tmp_path), [20] * 40)
    reads = Reads(monkeypatch)
    batches = latent_batches(stored, seed=0, batch_size=16, start=0, rank=0, world=1)
    coming = batches.order.shards_between(320, 320)
    assert set(coming).isdisjoint(batches.order.shards_between(0, 0))
    with closing(iter(batches)) as stream:
        next(stream)  # one of the 20 batches of the first window
        for shard in coming:
            uri = storage.join(stored.uri, stored.splits["train"].shards[shard].path)
            assert reads.arrived.setdefault(uri, threading.Event()).wait(20)


def test_a_damaged_shard_ahead_is_an_error_of_the_batch_that_needs_it(tmp_path):
    stored = latent_set(str(tmp_path), [16] * 40)
    batches = latent_batches(stored, seed=0, batch_size=16, start=0, rank=0, world=1)
    damaged = stored.splits["train"].shards[batches.order.shards_between(16 * 16, 16 * 16)[0]]
    (tmp_path / damaged.path).write_bytes(b"damaged")
    with closing(iter(batches)) as stream:
        assert len(list(itertools.islice(stream, 16))) == 16, "the first window is whole"
        with pytest.raises(DataError, match="is damaged"):
            list(itertools.islice(stream, 16))


def test_closing_stops_the_threads(tmp_path):
    stored = latent_set(str(tmp_path), [16] * 40)
    batches = latent_batches(stored, seed=0, batch_size=16, start=0, rank=0, world=1)
    with closing(iter(batches)) as stream:
        next(stream)
    assert not batches._thread.is_alive()
