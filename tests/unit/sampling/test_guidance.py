import pytest
import torch

from dcae15.sampling.guidance import guided_velocity

NULL = 9


class LabelDenoiser:
    """Answers with label + t everywhere (0 + t for the null label), and counts the latents it sees."""

    def __init__(self):
        self.batches = []

    def __call__(self, latents, t, labels):
        self.batches.append(len(latents))
        assert len(latents) == len(t) == len(labels)
        value = torch.where(labels == NULL, 0, labels) + t
        return value[:, None, None, None].expand_as(latents)


def velocity_at(t, *, scale, start=0.0, end=1.0):
    denoiser = LabelDenoiser()
    velocity = guided_velocity(denoiser, torch.tensor([1, 2]), null_label=NULL, scale=scale, start=start, end=end)
    result = velocity(torch.zeros(2, 3, 4, 4), t)
    assert result.shape == (2, 3, 4, 4)
    return result[:, 0, 0, 0].tolist(), denoiser.batches


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.5, 4.0])
def test_extrapolates_from_unconditional_to_conditional_in_one_call(scale):
    values, batches = velocity_at(0.25, scale=scale)
    assert values == pytest.approx([0.25 + scale * 1, 0.25 + scale * 2])
    assert batches == [4]


def test_scale_one_is_conditional_and_asks_once_per_latent():
    values, batches = velocity_at(0.25, scale=1.0)
    assert values == pytest.approx([1.25, 2.25])
    assert batches == [2]


@pytest.mark.parametrize(("t", "guided"), [(0.1, False), (0.2, True), (0.5, True), (0.8, True), (0.9, False)])
def test_acts_only_inside_the_interval(t, guided):
    values, batches = velocity_at(t, scale=3.0, start=0.2, end=0.8)
    assert values == pytest.approx([t + 3, t + 6] if guided else [t + 1, t + 2])
    assert batches == [4 if guided else 2]
