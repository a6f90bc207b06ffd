import math

import numpy as np
import pytest
import torch

from dcae15.evaluation.frequencies import BandShares, band_energies


def shares(images: np.ndarray, reconstructions: np.ndarray) -> dict[str, float]:
    """Measure in two parts."""
    found = BandShares(images.mean(axis=0, dtype=np.float64))
    for part in (slice(None, 3), slice(3, None)):
        found.update(images[part], reconstructions[part])
    return found.row()


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
    assert shares(images, images) == {"explained_share": 1, "low_frequency_share": 1, "high_frequency_share": 1}


def test_mean_image_has_shares_of_zero():
    images, _ = waves()
    mean = np.broadcast_to(images.mean(axis=0).round().astype(np.uint8), images.shape)
    row = shares(images, mean)
    assert [row[name] for name in ("explained_share", "low_frequency_share", "high_frequency_share")] == pytest.approx(
        [0, 0, 0], abs=0.01
    )


def test_slow_part_carries_the_low_frequencies_only():
    row = shares(*waves())
    assert row["low_frequency_share"] == pytest.approx(1, abs=0.01)
    assert row["high_frequency_share"] == pytest.approx(0, abs=0.05)
    assert row["explained_share"] == pytest.approx(0.5, abs=0.05)


def test_explained_share_is_the_explained_variance_of_the_pixels():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (10, 16, 24, 3), dtype=np.uint8)
    guess = rng.integers(0, 256, (10, 16, 24, 3), dtype=np.uint8)
    mse = np.square(images.astype(float) - guess).mean()
    expected = 1 - mse / np.square(images - images.mean(axis=0)).mean()
    row = shares(images, guess)
    assert row["explained_share"] == pytest.approx(expected)
    assert row["explained_share"] < 0


def test_a_band_without_energy_has_no_share():
    images = np.broadcast_to(np.array([50, 100, 200], np.uint8)[:, None, None, None], (3, 16, 16, 3))
    row = shares(images, images + 1)
    assert row["high_frequency_share"] == 0
    assert row["low_frequency_share"] > 0.99


@pytest.mark.parametrize("count", [1, 4])
def test_images_that_are_alike_have_no_shares(count):
    assert shares(np.ones((count, 16, 16, 3), np.uint8), np.ones((count, 16, 16, 3), np.uint8)) == {}


def cosine(n: int, k: int) -> torch.Tensor:
    return torch.cos(math.pi * k * (torch.arange(n, dtype=torch.float64) + 0.5) / n)


@pytest.mark.parametrize(
    ("ky", "kx", "is_low"), [(0, 0, True), (3, 0, True), (0, 4, False), (3, 3, False), (2, 2, True)]
)
def test_a_cosine_lies_wholly_in_its_band(ky, kx, is_low):
    plane = cosine(16, ky)[:, None] * cosine(24, kx * 24 // 16)[None, :]  # k / 32 cycles per place in both directions
    low, high = band_energies(plane[None], cutoff=1 / 8)
    energy = plane.square().sum().item()
    assert low.item() == pytest.approx(energy if is_low else 0.0, abs=1e-9)
    assert high.item() == pytest.approx(0.0 if is_low else energy, abs=1e-9)


def test_bands_add_up_to_the_sum_of_squares_and_scale_with_it():
    maps = torch.randn(5, 7, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    low, high = band_energies(maps, cutoff=0.2)
    torch.testing.assert_close(low + high, maps.square().sum(dim=(1, 2)))
    low_of_triple, _ = band_energies(3 * maps, cutoff=0.2)
    torch.testing.assert_close(low_of_triple, 9 * low)


def test_without_a_band_everything_is_high():
    low, high = band_energies(torch.ones(1, 4, 4), cutoff=0.0)
    assert (low.item(), high.item()) == (0.0, 16.0)
