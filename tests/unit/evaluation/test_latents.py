import math

import numpy as np
import pytest
import torch

from dcae15.evaluation.latents import LatentSums, channel_means, dead_channels


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def sums(latents: torch.Tensor) -> LatentSums:
    """Take latents in, in two parts."""
    found = LatentSums()
    for part in (latents[:2], latents[2:]):
        if len(part):
            found.update(part)
    return found


def test_channel_rows_measure_each_channel():
    scales, means = torch.tensor([3.0, 1.0, 0.1]), torch.tensor([5.0, 0.0, -1.0])
    rows = sums((noise(200, 3, 8, 8) * scales[:, None, None] + means[:, None, None]).half()).rows()
    assert [row["channel"] for row in rows] == [0, 1, 2]
    assert [row["std"] for row in rows] == pytest.approx(scales.tolist(), rel=0.05)
    assert [row["mean"] for row in rows] == pytest.approx(means.tolist(), abs=0.1)
    for row in rows:
        assert row["latent_low"] + row["latent_high"] == pytest.approx(row["std"] ** 2)


def test_slow_and_fast_maps_have_their_energy_in_their_band():
    k = torch.arange(8) + 0.5
    slow, fast = torch.cos(math.pi * k / 8), torch.cos(6 * math.pi * k / 8)
    signs = torch.tensor([1.0, -1.0])[:, None, None]
    latents = torch.stack([signs * slow.expand(8, 8), signs * fast.expand(8, 8)], dim=1)
    a, b = sums(latents).rows()
    assert a["latent_low"] == pytest.approx(0.5) and a["latent_high"] == pytest.approx(0, abs=1e-9)
    assert b["latent_low"] == pytest.approx(0, abs=1e-9) and b["latent_high"] == pytest.approx(0.5)


def test_a_single_place_has_no_bands():
    assert set(sums(noise(5, 2, 1, 1)).rows()[0]) == {"channel", "mean", "std"}


def test_channels_that_hardly_change_are_dead_whatever_their_mean():
    scale = torch.tensor([1.0, 1e-5, 0.5, 0.0])[None, :, None, None]
    offset = torch.tensor([0.0, 0.0, 0.0, 3.0])[None, :, None, None]
    latents = noise(50, 4, 4, 4) * scale + offset
    assert dead_channels(sums(latents).rows()) == [2, 4]
    assert dead_channels(sums(1e-6 * latents).rows()) == [2, 4]
    assert dead_channels(sums(noise(50, 4, 4, 4)).rows()) == []


def test_effective_rank_counts_equal_directions():
    orthogonal = torch.eye(4).repeat(3, 1)[:, :, None, None] * 2.0
    centred = torch.cat([orthogonal, -orthogonal])
    assert sums(centred).ranks([1, 2, 4]) == pytest.approx([1, 2, 4])
    same = centred[:, :1].expand(-1, 4, -1, -1)
    assert sums(same).ranks([1, 4]) == pytest.approx([1, 1])


def test_effective_rank_of_known_variances_is_the_exponential_of_their_entropy():
    values = torch.tensor([[2.0, 0], [-2, 0], [0, 1], [0, -1]])[:, :, None, None]  # variances 2 and 1/2
    entropy = -(0.8 * math.log(0.8) + 0.2 * math.log(0.2))
    assert sums(values).ranks([2]) == pytest.approx([math.exp(entropy)])
    assert sums(100 * values + 7).ranks([2]) == pytest.approx([math.exp(entropy)])


def test_channels_that_never_change_have_no_rank():
    assert sums(torch.ones(5, 3, 2, 2)).ranks([1, 3]) == [0.0, 0.0]


def test_channel_means_average_the_first_channels_and_stretch_each_map():
    latents = torch.zeros(2, 2, 2, 2)
    latents[0, 0] = torch.tensor([[0.0, 1.0], [2.0, 4.0]])
    latents[0, 1] = -latents[0, 0] + torch.tensor([[0.0, 0.0], [0.0, 2.0]])
    maps = channel_means(latents, [1, 2])
    assert maps.shape == (2, 2, 2, 2) and maps.dtype == np.uint8
    assert maps[0, 0].tolist() == [[0, 64], [128, 255]]
    assert maps[1, 0].tolist() == [[0, 0], [0, 255]]
    assert (maps[:, 1] == 128).all(), "a flat map is grey"
    np.testing.assert_array_equal(channel_means(5 * latents + 3, [1, 2]), maps)
