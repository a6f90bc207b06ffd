import numpy as np
import pytest

from dcae15.errors import DataError
from dcae15.evaluation import distances
from dcae15.evaluation.distances import precision_recall


def by_hand(real, generated, k):
    """The definition, point by point."""

    def distance(a, b):
        return np.sqrt(((a - b) ** 2).sum())

    def share(points, centres):
        radii = [
            sorted(distance(c, other) for j, other in enumerate(centres) if j != i)[k - 1]
            for i, c in enumerate(centres)
        ]
        inside = [any(distance(p, c) <= r for c, r in zip(centres, radii, strict=True)) for p in points]
        return sum(inside) / len(points)

    return share(generated, real), share(real, generated)


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("chunk", [7, 1000])
def test_agrees_with_the_definition(k, chunk, monkeypatch):
    monkeypatch.setattr(distances, "CHUNK", chunk)
    rng = np.random.default_rng(k)
    real, generated = rng.normal(size=(40, 2)), rng.normal(1.0, 0.7, size=(30, 2))
    result = precision_recall(real, generated, neighbours=k)
    assert result == by_hand(real, generated, k)
    assert 0 < min(result) < 1


def test_same_images_are_precise_and_complete_and_strangers_are_neither():
    real = np.random.default_rng(0).normal(size=(50, 4))
    assert precision_recall(real, real[::-1]) == (1.0, 1.0)
    assert precision_recall(real, real + 100) == (0.0, 0.0)


def test_a_lost_mode_costs_recall_and_junk_costs_precision():
    rng = np.random.default_rng(0)
    mode_a, mode_b, junk = (rng.normal(at, 0.1, size=(50, 4)) for at in (0, 10, 20))
    both = np.concatenate([mode_a, mode_b])
    precision, recall = precision_recall(both, rng.permutation(mode_a))
    assert (precision, recall) == (1.0, 0.5)
    precision, recall = precision_recall(mode_a, np.concatenate([mode_a, junk]))
    assert (precision, recall) == (0.5, 1.0)


def test_duplicates_have_a_radius_of_zero():
    real = np.zeros((10, 3))
    assert precision_recall(real, np.full((10, 3), 1e-6)) == (0.0, 0.0)
    assert precision_recall(real, real) == (1.0, 1.0)


def test_too_few_images_are_refused():
    with pytest.raises(DataError, match="3 real and 9 generated"):
        precision_recall(np.zeros((3, 2)), np.zeros((9, 2)), neighbours=3)
