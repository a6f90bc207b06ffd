import pytest
import torch

from dcae15.config import SamplingConfig
from dcae15.errors import ConfigError
from dcae15.sampling.sampler import initial_noise, sample_latents

SHAPE = (8, 4, 4)


def class_gaussians(x, t, labels):
    """The exact denoiser of data ~ N(label, 0.5^2) per class, and of N(0, 0.5^2) for the null label 3."""
    mean = torch.where(labels == 3, 0, labels).to(x.dtype)[:, None, None, None]
    t = t[:, None, None, None]
    return mean + (t * 0.25 - (1 - t)) / (t**2 * 0.25 + (1 - t) ** 2) * (x - t * mean)


def test_noise_of_an_image_does_not_depend_on_its_batch():
    together = initial_noise(range(20), SHAPE, seed=1)
    torch.testing.assert_close(initial_noise([13, 4], SHAPE, seed=1), together[[13, 4]], rtol=0, atol=0)


def test_noise_differs_between_images_and_seeds():
    rows = torch.cat([initial_noise(range(10), SHAPE, seed=seed) for seed in (0, 1)]).flatten(1)
    correlations = torch.corrcoef(rows) - torch.eye(20)
    assert correlations.abs().max() < 0.5


def test_noise_is_standard_normal_and_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    noise = initial_noise(range(500), SHAPE, seed=0)
    assert torch.rand(1) == expected
    assert noise.mean().abs() < 0.02
    assert noise.std() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("prefix", [8, 3])
def test_samples_reach_the_classes_asked_for(prefix):
    labels = torch.arange(60) % 3
    settings = SamplingConfig(solver="heun", steps=50, guidance=1.0)
    noise = initial_noise(range(60), SHAPE, seed=0)[:, :prefix]
    latents = sample_latents(class_gaussians, labels, noise, settings, null_label=3)
    expected = labels[:, None, None, None] + 0.5 * noise
    torch.testing.assert_close(latents, expected, rtol=0, atol=0.01)


def test_samples_do_not_depend_on_the_batch():
    labels, noise = torch.arange(6) % 3, initial_noise(range(6), SHAPE, seed=0)
    settings = SamplingConfig(solver="heun", steps=5, guidance=2.0)
    together = sample_latents(class_gaussians, labels, noise, settings, null_label=3)
    alone = sample_latents(class_gaussians, labels[4:5], noise[4:5], settings, null_label=3)
    torch.testing.assert_close(alone, together[4:5])


def test_settings_reach_solver_and_guidance():
    labels, noise = torch.tensor([2]), torch.zeros(1, *SHAPE)

    def mean_of(**settings):
        result = sample_latents(class_gaussians, labels, noise, SamplingConfig(steps=20, **settings), null_label=3)
        return result.mean().item()

    guided, late, plain = mean_of(guidance=2.0), mean_of(guidance=2.0, guidance_start=0.5), mean_of(guidance=1.0)
    assert plain == pytest.approx(2.0, abs=0.05)
    assert plain < late < guided
    with pytest.raises(ConfigError, match="dopri5"):
        mean_of(solver="dopri5")


def test_no_gradient_is_recorded():
    weight = torch.ones(1, requires_grad=True)
    settings = SamplingConfig(steps=2, guidance=1.5)
    latents = sample_latents(
        lambda x, t, y: weight * x, torch.tensor([0]), torch.zeros(1, *SHAPE), settings, null_label=3
    )
    assert not latents.requires_grad
