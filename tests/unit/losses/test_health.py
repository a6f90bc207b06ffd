import pytest
import torch

from dcae15.losses import latent_health


def latents(channels=8, seed=0):
    return torch.randn(16, channels, 5, 5, generator=torch.Generator().manual_seed(seed))


def test_noise_is_healthy_and_flat():
    health = latent_health(latents())
    assert health["dead_channels"] == 0
    assert health["rear_energy"].item() == pytest.approx(1, abs=0.2)


def test_constant_channels_are_dead_whatever_their_constant():
    values = latents()
    values[:, 6] = 3.0
    values[:, 7] *= 1e-4
    assert latent_health(values)["dead_channels"] == 2
    assert latent_health(values * 1e-5)["dead_channels"] == 2, "the latent's scale does not matter"


def test_the_rear_quarter_is_compared_with_the_front_quarter():
    values = latents()
    values[:, :2] = 4.0
    values[:, 6:] = 1.0
    values[:, 2:6] = 100.0
    assert latent_health(values)["rear_energy"].item() == pytest.approx(0.25)
    assert latent_health(latents(channels=1))["rear_energy"].item() == pytest.approx(1)


def test_detached_float32_scalars_of_any_latent():
    half = latents().bfloat16().requires_grad_()
    for values in (half, torch.zeros(2, 8, 1, 1), torch.ones(1, 8, 1, 1)):
        health = latent_health(values)
        assert list(health) == ["dead_channels", "rear_energy"]
        for value in health.values():
            assert value.shape == () and value.dtype == torch.float32 and not value.requires_grad and value.isfinite()
    assert latent_health(torch.ones(1, 8, 1, 1))["dead_channels"] == 0, "one value per channel tells nothing"
