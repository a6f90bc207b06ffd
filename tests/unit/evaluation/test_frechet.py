import numpy as np
import pytest
import scipy.linalg

from dcae15.errors import DataError
from dcae15.evaluation.distances import FeatureStatistics, frechet_distance


def statistics_of(features: np.ndarray) -> FeatureStatistics:
    return FeatureStatistics.empty(features.shape[1]).update(features)


def gaussian(mean: np.ndarray, covariance: np.ndarray, count: int = 100) -> FeatureStatistics:
    return FeatureStatistics(count, np.asarray(mean, float), np.asarray(covariance, float) * (count - 1))


def random_spd(rng: np.random.Generator, size: int, rank: int) -> np.ndarray:
    factor = rng.normal(size=(size, rank))
    return factor @ factor.T / rank


def test_statistics_match_numpy():
    features = np.random.default_rng(0).normal(3, 2, size=(50, 6)).astype(np.float32)
    statistics = statistics_of(features)
    assert statistics.count == 50
    np.testing.assert_allclose(statistics.mean, features.mean(axis=0, dtype=np.float64))
    np.testing.assert_allclose(statistics.covariance(), np.cov(features.astype(np.float64), rowvar=False))


@pytest.mark.parametrize("cuts", [[1, 2, 40], [0, 25], [10, 10]])
def test_parts_merge_into_the_whole(cuts):
    features = 1e6 + np.random.default_rng(0).normal(size=(60, 5))
    result = FeatureStatistics.empty(5)
    for part in np.split(features, cuts):
        result = result.update(part)
    assert result.count == 60
    np.testing.assert_allclose(result.covariance(), np.cov(features, rowvar=False), rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(result.mean, features.mean(axis=0), rtol=1e-14)


def test_closed_form_of_diagonal_gaussians():
    a, b = gaussian([1, 2, 3], np.diag([1, 4, 9])), gaussian([1, 0, 4], np.diag([4, 4, 1]))
    expected = (0 + 4 + 1) + (1 - 2) ** 2 + 0 + (3 - 1) ** 2
    assert frechet_distance(a, b) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("size", "rank"), [(4, 4), (32, 64), (16, 16)])
def test_agrees_with_the_matrix_square_root(size, rank):
    rng = np.random.default_rng(size)
    a, b = random_spd(rng, size, rank), random_spd(rng, size, rank)
    mean_a, mean_b = rng.normal(size=(2, size))
    root = scipy.linalg.sqrtm(a @ b).real
    expected = np.sum((mean_a - mean_b) ** 2) + np.trace(a + b - 2 * root)
    assert frechet_distance(gaussian(mean_a, a), gaussian(mean_b, b)) == pytest.approx(expected, rel=1e-6)


def test_rank_deficient_features_are_no_distance_from_themselves():
    features = np.random.default_rng(0).normal(size=(10, 64))
    distance = frechet_distance(statistics_of(features), statistics_of(features[::-1]))
    assert 0 <= distance < 1e-10


def test_is_symmetric_and_grows_with_the_gap():
    rng = np.random.default_rng(0)
    base = statistics_of(rng.normal(size=(200, 8)))
    near, far = (statistics_of(rng.normal(gap, 1 + gap, size=(200, 8))) for gap in (0.1, 1.0))
    assert frechet_distance(base, far) == pytest.approx(frechet_distance(far, base))
    assert frechet_distance(base, near) < frechet_distance(base, far)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_images_are_refused(count):
    few = statistics_of(np.ones((count, 3)))
    with pytest.raises(DataError, match=f"hold {count} feature vectors"):
        frechet_distance(few, gaussian(np.zeros(3), np.eye(3)))


def test_features_that_are_not_finite_are_refused():
    features = np.ones((4, 3))
    features[2, 1] = np.nan
    with pytest.raises(DataError, match="1 of 4 feature vectors"):
        statistics_of(features)
