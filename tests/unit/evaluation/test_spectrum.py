import math

import pytest
import torch

from dcae15.evaluation.spectrum import band_energies


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
