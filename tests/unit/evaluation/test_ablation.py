import pytest
import torch

from dcae15.evaluation.ablation import channel_effects
from dcae15.evaluation.reconstruction import encode_images
from tests.unit.evaluation.codecs import CHANNELS, ordered, scenes, spread

IMAGES = scenes()[0]


def effects_of(codec, **options) -> torch.Tensor:
    """Return low and high energies, 2 C."""
    latents = encode_images(codec, IMAGES)
    rows = channel_effects(codec, latents, latents.mean(dim=(0, 2, 3)), **options)
    return torch.tensor([[row["image_low"], row["image_high"]] for row in rows]).T


def test_an_orthonormal_transform_loses_the_variance_of_the_channel():
    codec = ordered()
    latents = encode_images(codec, IMAGES)
    low, high = effects_of(codec)
    variance = latents.var(dim=(0, 2, 3), correction=0) * 127.5**2 / CHANNELS  # a latent place stands for 48 values
    torch.testing.assert_close(low + high, variance.to(low), rtol=1e-3, atol=1e-4)


def test_slow_channels_change_low_frequencies_and_fast_channels_high_ones():
    low, high = effects_of(ordered())
    assert (low[:3] > 4 * high[:3]).all()
    assert (high[-24:] > 4 * low[-24:]).all()


def test_scaling_of_channels_and_constant_offsets_change_nothing():
    plain = effects_of(spread())
    torch.testing.assert_close(effects_of(spread(gain=7.0)), plain, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(effects_of(spread(gain=torch.linspace(0.1, 9, CHANNELS))), plain, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(effects_of(spread(offset=3.0)), plain, rtol=1e-3, atol=1e-3)


def test_batch_size_does_not_matter():
    torch.testing.assert_close(effects_of(ordered(), batch_size=5), effects_of(ordered()))


def test_a_channel_that_the_decoder_ignores_does_nothing():
    class Deaf:
        def encode(self, pixels):
            return torch.cat([pixels, pixels[:, :1]], dim=1)

        def decode(self, latents):
            return latents[:, :3]

    latents = encode_images(Deaf(), IMAGES)
    rows = channel_effects(Deaf(), latents, latents.mean(dim=(0, 2, 3)))
    assert rows[3] == {"image_low": 0.0, "image_high": 0.0}
    assert rows[0]["image_low"] > 0


def test_what_cannot_be_seen_does_not_count():
    class Loud:
        def encode(self, pixels):
            return pixels

        def decode(self, latents):
            return latents + 100.0

    latents = encode_images(Loud(), IMAGES)
    assert all(sum(row.values()) == pytest.approx(0) for row in channel_effects(Loud(), latents, torch.zeros(3)))
