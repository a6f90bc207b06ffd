import pytest
import torch

from dcae15.sampling.guidance import guided_velocity
from dcae15.sampling.solvers import initial_noise, integrate

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
def test_samples_reach_the_classes_asked_for_and_do_not_depend_on_the_batch(prefix):
    labels, noise = torch.arange(60) % 3, initial_noise(range(60), SHAPE, seed=0)[:, :prefix]

    def sample(rows, **guidance):
        velocity = guided_velocity(class_gaussians, labels[rows], null_label=3, **guidance)
        return integrate(velocity, noise[rows], solver="heun", steps=50)

    together = sample(slice(None), scale=1.0)
    torch.testing.assert_close(together, labels[:, None, None, None] + 0.5 * noise, rtol=0, atol=0.01)
    torch.testing.assert_close(sample(slice(4, 5), scale=1.0), together[4:5])
    rows = torch.nonzero(labels == 2)[:, 0]
    plain, late, guided = (
        sample(rows, **guidance).mean() for guidance in ({"scale": 1.0}, {"scale": 2.0, "start": 0.5}, {"scale": 2.0})
    )
    assert plain < late < guided
