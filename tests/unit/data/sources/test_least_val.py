"""What a source holds out at least, so that small ones can be measured, and that larger ones hold out what they always did."""

from collections import Counter

import pyarrow as pa
import pytest

from dcae15.data.sources import Selection
from dcae15.data.sources.common import Listing, rows, select


def chosen(sizes, least=4, fraction=0.1, classes=(), limit=0):
    """Classes ``a``, ``b``, ... of so many images each."""
    names = [chr(ord("a") + label) for label in range(len(sizes))]
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    ids = [f"{names[label]}/{i}" for i, label in enumerate(labels)]
    table = rows(pa.array(ids, pa.string()), labels, ids, [-1] * len(ids), [1] * len(ids))
    return select(
        Listing("root", "folder", ()), names, {"train": table}, Selection(fraction, limit, classes, 0, least_val=least)
    )


def held_out(*args, **kwargs):
    source = chosen(*args, **kwargs)
    found = Counter(source.val.column("label").to_pylist())
    return [found[label] for label in range(len(source.class_names))]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([24], [4]),
        ([8, 8, 8], [2, 1, 1]),
        ([6], [3]),
        ([3], [1]),
        ([2, 2, 2], [1, 1, 1]),
        ([1] * 8, [0] * 8),
        ([1], [0]),
        ([30, 5], [3, 1]),
        ([20, 2], [4, 0]),
    ],
)
def test_as_many_as_measures_need_as_far_as_half_of_each_class(sizes, expected):
    assert held_out(sizes) == expected
    assert held_out(sizes)[0] <= max(sizes[0] // 2, 0)


def test_those_that_are_held_out_anyway_are_among_them():
    few, more = (chosen([24], least).val.column("id").to_pylist() for least in (0, 4))
    assert len(few) == 2 and set(few) < set(more)


@pytest.mark.parametrize("sizes", [[40], [100, 3], [10, 10, 10, 10], [5, 5, 5, 5, 1]])
def test_a_source_with_enough_holds_out_what_it_always_did(sizes):
    before, now = chosen(sizes, least=0), chosen(sizes, least=4)
    assert before.val == now.val and before.train == now.train


def test_only_the_classes_asked_for_count():
    assert held_out([100, 8], classes=("b",)) == [4]
    assert held_out([100, 8]) == [10, 1]


def test_a_limit_is_kept():
    assert held_out([24], limit=3) == [3]
