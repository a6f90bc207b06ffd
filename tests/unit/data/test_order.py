import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcae15.data.order import CACHE_BYTES, WINDOW, Order, window_of
from dcae15.errors import DataError

counts = st.lists(st.integers(1, 20), min_size=1, max_size=12)


@given(counts=counts, seed=st.integers(0, 2**31), window=st.integers(1, 5), epoch=st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_every_epoch_holds_each_row_exactly_once(counts, seed, window, epoch):
    total = sum(counts)
    taken = Order(counts, seed, window).take(epoch * total, total)
    assert sorted(map(tuple, taken.tolist())) == [(s, r) for s, n in enumerate(counts) for r in range(n)]


@given(counts=counts, seed=st.integers(0, 99), cuts=st.lists(st.integers(1, 30), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_any_cut_of_the_stream_gives_the_same_stream(counts, seed, cuts):
    whole = Order(counts, seed, window=3).take(0, sum(cuts))
    parts, start = [], 0
    for cut in cuts:
        parts.append(Order(counts, seed, window=3).take(start, cut))  # a fresh object: nothing was walked through
        start += cut
    assert np.array_equal(np.concatenate(parts), whole)


def test_epochs_and_seeds_differ():
    first, second = Order([50, 50], 0).take(0, 100), Order([50, 50], 0).take(100, 100)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, Order([50, 50], 1).take(0, 100))


def test_rows_are_mixed_within_a_window_and_need_only_its_shards():
    taken = Order([100] * 12, 0, window=3).take(0, 300)
    assert len(set(taken[:, 0].tolist())) == 3
    assert len(set(taken[:20, 0].tolist())) > 1, "the first rows come from several shards"


@given(
    counts=counts,
    seed=st.integers(0, 99),
    window=st.integers(1, 4),
    first=st.integers(0, 300),
    count=st.integers(1, 60),
)
@settings(max_examples=60, deadline=None)
def test_the_shards_of_a_stretch_are_those_of_its_windows(counts, seed, window, first, count):
    order = Order(counts, seed, window)
    named = order.shards_between(first, first + count - 1)
    assert len(named) == len(set(named))
    assert set(order.take(first, count)[:, 0].tolist()) <= set(named)
    _, _, end = order.locate(first)
    assert set(order.take(first, end - first)[:, 0].tolist()) <= set(order.shards_between(first, first))
    assert len(order.shards_between(first, first)) <= window


def test_any_position_is_found_in_the_same_time():
    def seconds(position: int) -> float:
        taken = []
        for _ in range(5):
            order = Order([1_000] * 200, 0)
            began = time.perf_counter()
            order.take(position, 64)
            taken.append(time.perf_counter() - began)
        return min(taken)

    near, far = seconds(0), seconds(10**12 + 123_456)  # in the middle of epoch five million
    assert far < 5 * near + 0.01


def test_neighbours_of_a_shard_end_up_a_third_of_the_window_apart():
    order = Order([1_024] * 48, 0)
    place = np.empty((48, 1_024), np.int64)
    taken = order.take(0, order.total)
    place[taken[:, 0], taken[:, 1]] = np.arange(order.total)
    apart = np.abs(np.diff(place, axis=1))
    assert apart.mean() == pytest.approx(16 * 1_024 / 3, rel=0.02)
    assert (np.diff(place // 128, axis=1) == 0).mean() == pytest.approx(127 / (16 * 1_024 - 1), rel=0.15)


@pytest.mark.parametrize(
    ("sizes", "window"),
    [
        ([], WINDOW),
        ([CACHE_BYTES * 9], 1),
        ([CACHE_BYTES // 32] * 100, WINDOW),
        ([CACHE_BYTES // 32 + 1] * 100, WINDOW - 1),
        ([CACHE_BYTES // 32 + 1] * 20, WINDOW),  # all of it fits
        ([1024 * 512 * 512 * 3] * 1_252, 2),  # ImageNet at 512 pixels, raw
        ([CACHE_BYTES] + [1] * 100, 1),
        ([CACHE_BYTES // 2] * 3, 1),
    ],
)
def test_the_window_is_as_large_as_two_fit_into_memory(sizes, window):
    assert window_of(sizes) == window


def test_nothing_to_train_on_is_an_error():
    with pytest.raises(DataError, match="no rows"):
        Order([], 0)
