import numpy as np
import pytest
import torch

from dcae15.errors import DataError, WeightsError
from dcae15.evaluation import features as module
from dcae15.evaluation.distances import FeatureStatistics, frechet_distance
from dcae15.evaluation.features import FeatureNetwork, random_batches

SIDE = 32


def draw(count: int, seed: int, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """Discs, squares, crosses and upward triangles of any colour, place and size on noisy ground."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, count)
    y, x = (np.mgrid[:side, :side] + 0.5) / side
    size = rng.uniform(0.15, 0.3, (count, 1, 1))
    across, down = (p - rng.uniform(0.35, 0.65, (count, 1, 1)) for p in (x, y))
    reach = np.maximum(abs(across), abs(down))
    shapes = np.stack(
        [
            across**2 + down**2 < size**2,
            reach < size * 0.9,
            (np.minimum(abs(across), abs(down)) < size * 0.3) & (reach < size),
            (abs(across) < (down + size) / 2) & (down < size),
        ]
    )
    inside = shapes[labels, np.arange(count)][..., None]
    ground = rng.uniform(0, 110, (count, 1, 1, 3))
    paint = rng.uniform(145, 255, (count, 1, 1, 3))
    images = np.where(inside, paint, ground) + rng.normal(0, 8, (count, side, side, 3))
    return images.clip(0, 255).astype(np.uint8), labels


def train_features(images: np.ndarray, labels: np.ndarray, **settings) -> FeatureNetwork:
    return module.train_features(random_batches(images, labels), resolution=images.shape[1], **settings)


def predict(network: FeatureNetwork, images: np.ndarray) -> np.ndarray:
    return network.features_and_labels(images)[1]


@pytest.fixture(scope="module")
def trained() -> FeatureNetwork:
    images, labels = draw(2000, seed=0)
    return train_features(images, labels, num_classes=4, images_seen=12_000, seed=0)


def distance(network: FeatureNetwork, a: np.ndarray, b: np.ndarray) -> float:
    a_statistics, b_statistics = (FeatureStatistics.empty(64).update(network.features(x)) for x in (a, b))
    return frechet_distance(a_statistics, b_statistics)


def test_learns_the_classes(trained):
    images, labels = draw(500, seed=1)
    assert (predict(trained, images) == labels).mean() > 0.95


def test_distance_sees_broken_images_and_missing_classes(trained):
    reference, _ = draw(500, seed=1)
    fresh, labels = draw(500, seed=2)
    blurred = fresh.reshape(500, 8, 4, 8, 4, 3).mean(axis=(2, 4)).astype(np.uint8).repeat(4, axis=1).repeat(4, axis=2)
    same = distance(trained, reference, fresh)
    assert distance(trained, reference, blurred) > 3 * same
    few = fresh[labels < 2]
    assert distance(trained, reference, few) > 3 * same


def test_features_do_not_depend_on_the_batch(trained):
    images, _ = draw(70, seed=1)
    features = trained.features(images)
    assert features.shape == (70, 64)
    assert features.dtype == np.float64
    np.testing.assert_allclose(features[63:65], trained.features(images[63:65]), rtol=1e-4, atol=1e-5)


def test_bytes_bring_the_network_back(trained):
    images, _ = draw(20, seed=1)
    restored = FeatureNetwork.from_bytes(trained.to_bytes())
    assert restored.digest == trained.digest
    np.testing.assert_array_equal(restored.features(images), trained.features(images))
    np.testing.assert_array_equal(predict(restored, images), predict(trained, images))


@pytest.mark.parametrize("damage", [lambda b: b[:-10], lambda b: b"", lambda b: b"PK" + b])
def test_damaged_bytes_are_refused(trained, damage):
    with pytest.raises(WeightsError, match="not a feature network"):
        FeatureNetwork.from_bytes(damage(trained.to_bytes()))


def test_training_repeats_and_depends_on_the_seed():
    images, labels = draw(256, seed=0)
    digests = [train_features(images, labels, num_classes=4, images_seen=384, seed=seed).digest for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]


def test_training_leaves_the_global_generator_alone():
    images, labels = draw(128, seed=0)
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    train_features(images, labels, num_classes=4, images_seen=128, seed=0)
    assert torch.rand(1) == expected


def test_one_class_learns_from_rotations():
    images, labels = draw(4000, seed=0)
    triangles, others = images[labels == 3], images[labels == 1]
    network = train_features(triangles, np.zeros(len(triangles)), num_classes=1, images_seen=4_000, seed=0)
    half = len(triangles) // 2
    same = distance(network, triangles[:half], triangles[half:])
    assert distance(network, triangles[:half], triangles[half:, ::-1]) > 10 * same
    assert distance(network, triangles[:half], others) > 3 * same
    assert predict(network, triangles[:5]).tolist() == [0] * 5


@pytest.mark.parametrize("side", [16, 24, 64, 100])
def test_any_resolution_from_16_on(side):
    images, labels = draw(128, seed=0, side=side)
    network = train_features(images, labels, num_classes=4, images_seen=128, seed=0)
    assert network.features(images[:2]).shape == (2, 64)
    assert FeatureNetwork.from_bytes(network.to_bytes()).digest == network.digest


def test_tiny_images_are_refused():
    images, labels = draw(8, seed=0)
    with pytest.raises(DataError, match="at least 16"):
        train_features(images[:, :8, :8], labels, num_classes=4, images_seen=128, seed=0)
