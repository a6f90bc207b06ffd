import numpy as np
import pytest
import torch

from dcae15.errors import DataError
from dcae15.evaluation.ablation import channel_effects
from dcae15.evaluation.reconstruction import encode_images
from dcae15.evaluation.sparsity import front_share, hoyer, sparsity_summary
from tests.unit.evaluation.codecs import BlockCodec, cosine_basis, ordered, scenes, spread

IMAGES = scenes()[0]


def summary_of(codec) -> dict[str, float]:
    latents = encode_images(codec, IMAGES)
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


@pytest.mark.parametrize("codec", [ordered, spread])
def test_scaling_of_all_channels_changes_nothing(codec):
    assert summary_of(codec(gain=50.0)) == pytest.approx(summary_of(codec()), rel=1e-3)


def test_channels_without_effect_are_no_objects():
    effects = [{"image_low": 3.0, "image_high": 1.0}, {"image_low": 0.0, "image_high": 0.0}]
    assert sparsity_summary(effects)["object_share"] == pytest.approx(0.75)
    assert set(sparsity_summary(effects[1:]).values()) == {0.0}
    assert torch.tensor(list(summary_of(spread()).values())).isfinite().all()
