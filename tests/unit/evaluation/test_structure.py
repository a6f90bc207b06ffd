import numpy as np
import pytest

from dcae15.errors import DataError
from dcae15.evaluation.structure import structure_row


def waves(count: int = 40, side: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Images of a slow and a fast cosine of random sign and colour, and the slow parts alone."""
    rng = np.random.default_rng(0)
    places = (np.arange(side) + 0.5) / side
    slow = np.cos(2 * np.pi * places)[:, None] * np.ones(side)  # 1 / 32 cycles per pixel
    fast = np.cos(10 * np.pi * places)[None, :] * np.ones((side, 1))  # 5 / 32 cycles per pixel
    weights = rng.choice([-40.0, 40.0], size=(2, count, 1, 1, 3))
    slow_part = weights[0] * slow[None, :, :, None]
    both = slow_part + weights[1] * fast[None, :, :, None]
    return (128 + both).round().astype(np.uint8), (128 + slow_part).round().astype(np.uint8)


def test_perfect_reconstruction_has_shares_of_one():
    images, _ = waves()
    assert structure_row(4, images, images) == {"prefix": 4, "explained_share": 1, "share_low": 1, "share_high": 1}


def test_mean_image_has_shares_of_zero():
    images, _ = waves()
    mean = np.broadcast_to(images.mean(axis=0).round().astype(np.uint8), images.shape)
    row = structure_row(4, images, mean)
    assert [row[name] for name in ("explained_share", "share_low", "share_high")] == pytest.approx([0, 0, 0], abs=0.01)


def test_slow_part_carries_the_low_frequencies_only():
    row = structure_row(4, *waves())
    assert row["share_low"] == pytest.approx(1, abs=0.01)
    assert row["share_high"] == pytest.approx(0, abs=0.05)
    assert row["explained_share"] == pytest.approx(0.5, abs=0.05)


def test_cutoff_is_in_cycles_per_pixel():
    images, slow = waves()
    high_only = 128 + (images.astype(int) - slow)
    assert structure_row(4, images, high_only, cutoff=0.15)["share_high"] > 0.95
    assert structure_row(4, images, high_only, cutoff=0.15)["share_low"] < 0.05
    assert structure_row(4, images, high_only, cutoff=0.17)["share_low"] == pytest.approx(0.5, abs=0.05)


def test_explained_share_is_the_explained_variance_of_the_pixels():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (10, 16, 24, 3), dtype=np.uint8)
    guess = rng.integers(0, 256, (10, 16, 24, 3), dtype=np.uint8)
    mse = np.square(images.astype(float) - guess).mean()
    expected = 1 - mse / np.square(images - images.mean(axis=0)).mean()
    row = structure_row(1, images, guess, batch_size=3)
    assert row["explained_share"] == pytest.approx(expected)
    assert row["explained_share"] < 0


def test_a_band_without_energy_has_no_share():
    images = np.broadcast_to(np.array([50, 100, 200], np.uint8)[:, None, None, None], (3, 16, 16, 3))
    row = structure_row(1, images, images + 1)
    assert row["share_high"] == 0
    assert row["share_low"] > 0.99


def test_images_that_are_alike_or_of_other_shape_are_refused():
    with pytest.raises(DataError, match="alike"):
        structure_row(1, np.ones((4, 16, 16, 3), np.uint8), np.ones((4, 16, 16, 3), np.uint8))
    with pytest.raises(DataError, match="one shape"):
        structure_row(1, np.ones((4, 16, 16, 3), np.uint8), np.ones((4, 8, 8, 3), np.uint8))
