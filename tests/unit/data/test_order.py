import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcae15.data.order import Order
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


@given(world=st.sampled_from([1, 2, 4, 8]), steps=st.integers(1, 10))
@settings(max_examples=30, deadline=None)
def test_workers_together_see_the_same_global_batches(world, steps):
    batch, order = 16, Order([7, 13, 9, 20], 5, window=2)
    for step in range(steps):
        whole = order.take(step * batch, batch)
        part = batch // world
        ranks = [order.take(step * batch + rank * part, part) for rank in range(world)]
        assert np.array_equal(np.concatenate(ranks), whole)


def test_epochs_and_seeds_differ():
    first, second = Order([50, 50], 0).take(0, 100), Order([50, 50], 0).take(100, 100)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, Order([50, 50], 1).take(0, 100))


def test_rows_are_mixed_within_a_window_and_need_only_its_shards():
    taken = Order([100] * 12, 0, window=3).take(0, 300)
    assert len(set(taken[:, 0].tolist())) == 3
    assert len(set(taken[:20, 0].tolist())) > 1, "the first rows come from several shards"


def test_nothing_to_train_on_is_an_error():
    with pytest.raises(DataError, match="no rows"):
        Order([], 0)
