import pytest
import torch

from dcae15.channels import (
    Prefix,
    as_mask,
    default_ladder,
    keep,
    landmarks,
    mean_over_kept,
    rows,
)
from dcae15.errors import ConfigError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def prefix(*choices: int, **fields: object) -> Prefix:
    """Prefixes, one for each step unless something else is said."""
    return Prefix.model_validate({"choices": list(choices), "per": "step", **fields}).resolved(choices[-1])


def test_slicing_and_masking_keep_the_same_values():
    latents = torch.randn(3, 8, 2, 2, generator=generator())
    sliced, masked = keep(latents, 3), keep(latents, as_mask(3, 8))
    assert sliced.shape == (3, 3, 2, 2)
    assert torch.equal(masked[:, :3], sliced)
    assert masked[:, 3:].abs().max() == 0


def test_mean_over_kept_is_the_same_for_slice_and_mask_and_normalised_by_the_prefix():
    error = torch.rand(4, 8, 2, 2, generator=generator())
    mask = as_mask(2, 8)
    expected = error[:, :2].mean()
    torch.testing.assert_close(mean_over_kept(keep(error, 2), 2), expected)
    torch.testing.assert_close(mean_over_kept(keep(error, mask), mask), expected)


def test_each_sample_weighs_the_same_whatever_its_prefix():
    error = torch.ones(2, 4, 1, 1)
    error[1] = 3.0
    masks = torch.cat([as_mask(1, 4), as_mask(4, 4)])
    assert mean_over_kept(keep(error, masks), masks).item() == pytest.approx(2.0)


def test_one_draw_per_step_is_uniform_over_the_choices_and_ignores_always_flags():
    choices = prefix(2, 4, 8, always_full=True)
    drawn = [choices.draw(4, generator(seed))[0] for seed in range(300)]
    assert set(drawn) == {2, 4, 8}
    assert 60 < drawn.count(8) < 140


@pytest.mark.parametrize(
    ("flags", "expected"), [({"always_min_max": True}, [2, 8]), ({"always_full": True}, [8])], ids=["min_max", "full"]
)
def test_several_draws_per_step_start_with_what_is_always_there(flags, expected):
    drawn = prefix(2, 4, 8, draws=4, **flags).draw(4, generator())
    assert drawn[: len(expected)] == expected
    assert len(drawn) == 4
    assert set(drawn) <= {2, 4, 8}


def test_per_sample_always_min_max_gives_a_third_each():
    choices = prefix(2, 4, 6, 8, per="sample", always_min_max=True)
    (mask,) = choices.draw(300, generator())
    lengths = mask.sum(dim=1)
    assert torch.equal(lengths[0::3], torch.full((100,), 2.0))
    assert torch.equal(lengths[1::3], torch.full((100,), 8.0))
    assert set(lengths[2::3].tolist()) == {2.0, 4.0, 6.0, 8.0}
    assert torch.equal(mask, mask.sort(dim=1, descending=True).values), "a prefix mask is ones, then zeros"


def test_random_masks_keep_as_many_channels_anywhere():
    (mask,) = prefix(2, 8, kind="random", per="sample").draw(500, generator())
    assert set(mask.sum(dim=1).tolist()) == {2.0, 8.0}
    short = mask[mask.sum(dim=1) == 2]
    assert (short.mean(dim=0) > 0.1).all(), "every channel is kept now and then"
    (step_mask,) = prefix(2, 8, kind="random").draw(500, generator(3))
    assert step_mask.shape == (1, 8)


def test_none_keeps_everything_and_counts_as_trained_with_all_channels_only():
    choices = prefix(2, 8, kind="none", draws=3)
    assert choices.draw(4, generator()) == [8]
    assert choices.trained == (8,)
    assert prefix(2, 8).trained == (2, 8)


def test_the_same_generator_state_gives_the_same_draws_and_ranks_take_their_rows():
    choices = prefix(2, 4, 8, per="sample")
    (mask,) = choices.draw(8, generator(1))
    (again,) = choices.draw(8, generator(1))
    assert torch.equal(mask, again)
    assert torch.equal(torch.cat([rows(mask, 0, 4), rows(mask, 4, 8)]), mask)
    assert rows(4, 0, 4) == 4


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"choices": [4, 2, 8]}, "prefix.choices [4, 2, 8] must be ascending, without repeats"),
        ({"choices": [2, 2, 8]}, "prefix.choices [2, 2, 8] must be ascending"),
        ({"choices": [2, 4]}, "prefix.choices [2, 4] must end with all 8 channels"),
        ({"first": 9}, "prefix.first is 9, more than the latent's 8 channels"),
        ({"choices": [2, 8], "choice_weights": [0.0, 1.0]}, "prefix.choice_weights [0.0, 1.0] never draw a prefix"),
        ({"choices": [2, 8], "choice_weights": [1.0]}, "give one number for each of the 2 choices"),
        ({"choice_weights": [0.0, 0.0]}, "not all 0"),
        ({"draws": 2, "draw_weights": [1.0]}, "prefix.draw_weights is [1.0]; give one number for each of the 2 draws"),
    ],
)
def test_what_does_not_fit_the_latent_is_refused(fields, problem):
    with pytest.raises(ConfigError) as caught:
        Prefix(**fields).resolved(8)
    assert problem in str(caught.value)
    assert Prefix(**fields, kind="none").resolved(8).choices == [8]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"first": 4, "step": 8}, [4, 12, 20, 28, 32]),
        ({"first": 16, "step": 16}, [16, 32]),
        ({"first": 32}, [32]),
        ({"choices": [3, 32], "first": 9}, [3, 32]),
        ({"choices": [3, 32], "kind": "none"}, [32]),
    ],
)
def test_the_choices_are_a_list_or_first_and_step(fields, expected):
    assert Prefix(**fields).prefixes(32) == expected
    assert Prefix(**fields).resolved(32).choices == expected


@pytest.mark.parametrize(
    ("prefixes", "found"),
    [
        ([4, 8, 12, 16, 32], [4, 8, 16, 32]),
        ([128, 64, 32, 16], [16, 32, 64, 128]),
        ([2, 6, 32], [2, 6, 6, 32]),  # the smaller of two that are as near
        ([20, 32], [20, 20, 20, 32]),
        ([1], [1, 1, 1, 1]),
    ],
)
def test_landmarks_are_the_prefixes_nearest_to_shares_of_all_channels(prefixes, found):
    assert landmarks(prefixes) == dict(zip(["eighth", "quarter", "half", "all"], found, strict=True))


def test_the_default_ladder_ends_with_all_channels():
    assert default_ladder(128) == [16, 32, 64, 128]
    assert default_ladder(12) == [1, 3, 6, 12]
    assert default_ladder(1) == [1]


SETTINGS = [
    {},
    {"choice_weights": [3.0, 1.0, 0.5]},
    {"draws": 3, "always_full": True},
    {"draws": 3, "always_min_max": True, "draw_weights": [1.0, 2.0, 5.0]},
    {"draws": 1, "always_min_max": True},  # which one draw per step ignores
    {"draws": 2, "always_min_max": True, "choice_weights": [1.0, 2.0, 3.0]},
    {"per": "sample", "always_min_max": True},
    {"per": "sample", "draws": 2, "always_full": True, "choice_weights": [1.0, 1.5, 4.0]},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_weights_of_channels_are_those_that_prefixes_give_them_on_average(settings):
    choices = prefix(2, 5, 8, **settings)
    source, error = generator(), torch.rand(6, 8, 1, 1, generator=generator(1)).requires_grad_()
    steps = 3_000
    for _ in range(steps):
        drawn = choices.draw(6, source)
        choices.average([mean_over_kept(keep(error, kept), kept) for kept in drawn]).backward()
    assert error.grad is not None
    weights = torch.tensor(choices.changed(kind="weighted").channel_weights())
    torch.testing.assert_close(error.grad.sum(dim=(0, 2, 3)) / steps, weights, atol=4e-3, rtol=0)
    assert weights.sum().item() == pytest.approx(1)
    assert (weights.diff() <= 0).all()


def test_weighted_keeps_everything_and_counts_as_trained_with_all_channels_only():
    choices = prefix(2, 8, kind="weighted", draws=3, draw_weights=[1.0, 2.0, 3.0])
    assert choices.draw(4, generator()) == [8]
    assert choices.trained == (8,)
    assert choices.average([torch.tensor(5.0)]) == 5
    assert choices.channel_weights() == prefix(2, 8, kind="weighted").channel_weights()
    assert prefix(2, 8).channel_weights() is None


def test_equal_weights_are_the_plain_mean():
    error = torch.rand(4, 8, 2, 2, generator=generator())
    weights = torch.tensor(prefix(8, kind="weighted").channel_weights())
    torch.testing.assert_close(mean_over_kept(error, 8, weights), error.mean())
