import numpy as np
import pytest
import torch

from dcae15.errors import DataError
from dcae15.evaluation.channel_effects import channel_effects, front_share, hoyer, sparsity_summary
from dcae15.evaluation.reconstruction import encode_batch
from tests.unit.evaluation.codecs import CHANNELS, BlockCodec, cosine_basis, ordered, scenes, spread

IMAGES = scenes()[0]


def effects_of(codec, **options) -> torch.Tensor:
    """Return low and high energies, 2 C."""
    latents = encode_batch(codec, IMAGES)
    rows = channel_effects(codec, latents, latents.mean(dim=(0, 2, 3)), **options)
    return torch.tensor([[row["image_low"], row["image_high"]] for row in rows]).T


def test_an_orthonormal_transform_loses_the_variance_of_the_channel():
    codec = ordered()
    latents = encode_batch(codec, IMAGES)
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

    latents = encode_batch(Deaf(), IMAGES)
    rows = channel_effects(Deaf(), latents, latents.mean(dim=(0, 2, 3)))
    assert rows[3] == {"image_low": 0.0, "image_high": 0.0}
    assert rows[0]["image_low"] > 0


def test_what_cannot_be_seen_does_not_count():
    class Loud:
        def encode(self, pixels):
            return pixels

        def decode(self, latents):
            return latents + 100.0

    latents = encode_batch(Loud(), IMAGES)
    assert all(sum(row.values()) == pytest.approx(0) for row in channel_effects(Loud(), latents, torch.zeros(3)))


def summary_of(codec) -> dict[str, float]:
    latents = encode_batch(codec, IMAGES)
    return sparsity_summary(channel_effects(codec, latents, latents.mean(dim=(0, 2, 3))))


def test_hoyer_has_known_values():
    assert hoyer([2, 2, 2, 2]) == 0
    assert hoyer([0, 5, 0, 0]) == 1
    assert hoyer([3, 4]) == pytest.approx((2**0.5 - 7 / 5) / (2**0.5 - 1))
    assert hoyer([]) == hoyer([4]) == hoyer([0, 0]) == 0
    values = np.random.default_rng(0).gamma(1, size=30)
    assert hoyer(values) == pytest.approx(hoyer(1e6 * values))


def test_front_share_has_known_values():
    assert front_share([1] * 8) == pytest.approx(0.25)
    assert front_share([1, 0, 0, 0]) == 1
    assert front_share([0, 1, 0, 0]) == 0
    assert front_share([1, 1, 1, 1, 1, 1]) == pytest.approx(0.25), "the channel at the edge counts in part"
    assert front_share([0, 0]) == 0


@pytest.mark.parametrize("values", [[1, -1], [1, float("nan")]])
def test_what_is_no_share_is_refused(values):
    with pytest.raises(DataError, match="at least 0"):
        hoyer(values)


def test_a_structured_latent_is_told_from_a_spread_one():
    structured, other = summary_of(ordered()), summary_of(spread())
    assert structured["object_sparsity"] > 0.7 > 0.4 > other["object_sparsity"]
    assert structured["object_front_share"] > 0.9 > 0.5 > other["object_front_share"]
    assert structured["detail_front_share"] < 0.4, "the front holds the objects, not everything"


def test_evenly_mixed_channels_are_no_sparser_than_noise():
    mixed = np.abs(np.random.default_rng(0).normal(size=100_000))
    assert hoyer(mixed) == pytest.approx(1 - (2 / np.pi) ** 0.5, abs=0.01)


def test_the_same_channels_in_reverse_are_as_sparse_but_not_in_front():
    reverse = summary_of(BlockCodec(cosine_basis().flip(0)))
    structured = summary_of(ordered())
    assert reverse["object_sparsity"] == pytest.approx(structured["object_sparsity"], abs=1e-3)
    assert reverse["object_front_share"] < 0.05


def test_channels_without_effect_are_no_objects():
    effects = [{"image_low": 3.0, "image_high": 1.0}, {"image_low": 0.0, "image_high": 0.0}]
    assert sparsity_summary(effects)["object_share"] == pytest.approx(0.75)
    assert set(sparsity_summary(effects[1:]).values()) == {0.0}
    assert torch.tensor(list(summary_of(spread()).values())).isfinite().all()
