"""The loss of the velocity: over the kept channels, or over all with weights."""

import torch

from dcae15.channels import Prefix
from dcae15.paths.linear import interpolate, velocity_loss


def numbers(seed: int) -> torch.Tensor:
    return torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(seed))


def test_the_path_goes_from_noise_to_data_in_a_straight_line():
    latents, noise = numbers(0), numbers(1)
    path = interpolate(latents, noise, torch.tensor([0.0, 1.0, 0.25]))
    assert torch.equal(path[0], noise[0])
    assert torch.equal(path[1], latents[1])
    torch.testing.assert_close(path[2], 0.25 * latents[2] + 0.75 * noise[2])


def test_the_true_velocity_has_no_loss_with_any_weights():
    latents, noise = numbers(0), numbers(1)
    weights = torch.tensor([0.4, 0.3, 0.2, 0.1])
    assert velocity_loss(latents - noise, latents, noise, 4, weights) == 0
    assert velocity_loss(latents[:, :2] - noise[:, :2], latents, noise, 2) == 0


def test_a_weighted_loss_pulls_at_each_channel_by_its_weight():
    latents, noise, velocity = numbers(0), numbers(1), numbers(2).requires_grad_()
    weights = torch.tensor(Prefix(choices=[1, 4], kind="weighted").resolved(4).channel_weights())
    velocity_loss(velocity, latents, noise, 4, weights).backward()
    error = velocity.detach() - (latents - noise)
    places = 3 * 2 * 2
    assert velocity.grad is not None
    torch.testing.assert_close(velocity.grad, 2 * error * weights[:, None, None] / places)
    masked = torch.ones(1, 4)  # what a compiled step gets instead of a slice
    torch.testing.assert_close(
        velocity_loss(velocity, latents, noise, masked, weights), (error.square().mean(dim=(0, 2, 3)) * weights).sum()
    )
