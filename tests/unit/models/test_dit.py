import dataclasses

import pytest
import torch

from dcae15.errors import ConfigError
from dcae15.models.dit import DiT, position_table
from dcae15.models.spec import DiTSpec

SPEC = DiTSpec(latent_channels=8, latent_size=4, num_classes=3, depth=2, width=32, heads=4)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def awake(spec, seed=0):
    """A DiT whose zero-initialised layers have random weights, as after training."""
    model = DiT(spec, generator(seed))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator(1)))
    return model


def inputs(channels, size=4, batch=3):
    return (
        torch.randn(batch, channels, size, size, generator=generator(2)),
        torch.rand(batch, generator=generator(3)),
        torch.arange(batch),
    )


@pytest.mark.parametrize("patch_size", [1, 2])
@torch.no_grad()
def test_slicing_equals_masking_with_zeros(patch_size):
    model = awake(dataclasses.replace(SPEC, patch_size=patch_size))
    latents, t, labels = inputs(8)
    for prefix in (1, 3, 8):
        masked = latents.clone()
        masked[:, prefix:] = 0
        out = model(latents[:, :prefix], t, labels)
        assert out.shape == (3, prefix, 4, 4)
        torch.testing.assert_close(out, model(masked, t, labels)[:, :prefix], rtol=1e-4, atol=1e-5)


def test_a_fresh_model_predicts_zero_and_learns_in_every_layer_when_awake():
    latents, t, labels = inputs(8)
    assert torch.equal(DiT(SPEC, generator())(latents, t, labels), torch.zeros_like(latents))
    model = awake(SPEC)
    model(latents, t, labels).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@torch.no_grad()
def test_time_class_and_position_matter():
    model = awake(SPEC)
    latents, t, labels = inputs(8)
    out = model(latents, t, labels)
    assert not torch.allclose(out, model(latents, 1 - t, labels), atol=1e-3)
    null = torch.full_like(labels, SPEC.num_classes)
    assert not torch.allclose(out, model(latents, t, null), atol=1e-3)
    shifted = model(latents.roll(1, dims=3), t, labels).roll(-1, dims=3)
    assert not torch.allclose(out, shifted, atol=1e-3)


@torch.no_grad()
def test_a_patch_sees_its_own_pixels():
    model = DiT(dataclasses.replace(SPEC, patch_size=2), generator())
    model.final_layer.linear.weight.normal_(generator=generator(4))  # blocks are identities: patches do not mix
    latents, t, labels = inputs(8)
    changed = latents.clone()
    changed[:, :, :2, 2:] += 1
    difference = (model(latents, t, labels) - model(changed, t, labels)).abs().sum(dim=(0, 1)) > 1e-6
    assert difference[:2, 2:].all()
    assert difference.sum() == 4


def test_positions_are_distinct_and_fixed():
    table = position_table(4, 32)
    assert table.shape == (1, 16, 32)
    assert torch.cdist(table[0], table[0]).fill_diagonal_(1).min() > 0.1
    assert torch.equal(table[0, 0], torch.tensor([0.0] * 8 + [1.0] * 8 + [0.0] * 8 + [1.0] * 8))
    model = DiT(SPEC)
    assert "pos_embed" in model.state_dict()
    assert "pos_embed" not in dict(model.named_parameters())


def test_weights_come_from_the_given_generator_only():
    first, again, other = (DiT(SPEC, generator(seed)).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["blocks.0.attn.qkv.weight"], other["blocks.0.attn.qkv.weight"])


@torch.no_grad()
def test_runs_under_bfloat16_autocast():
    model = awake(SPEC)
    arguments = inputs(8)
    expected = model(*arguments)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(*arguments)
    assert (half.float() - expected).abs().mean() < 0.05 * expected.abs().mean()


@pytest.mark.parametrize("shape", [(1, 9, 4, 4), (1, 8, 4, 5), (1, 8, 2, 2), (8, 4, 4)])
def test_refuses_latents_that_do_not_fit(shape):
    with pytest.raises(ConfigError, match="1 to 8 channels, 4, 4"):
        DiT(SPEC)(torch.zeros(shape), torch.zeros(1), torch.zeros(1, dtype=torch.long))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("latent_channels", 0),
        ("depth", 1.5),
        ("heads", 5),
        ("width", 30),
        ("patch_size", 3),
        ("mlp_ratio", 0.0),
        ("mlp_ratio", float("nan")),
    ],
)
def test_spec_names_the_field_that_is_wrong(field, value):
    with pytest.raises(ConfigError, match=field):
        dataclasses.replace(SPEC, **{field: value})


def test_spec_round_trip():
    assert DiTSpec.from_dict(SPEC.to_dict()) == SPEC
    with pytest.raises(ConfigError, match="no field hidden_size"):
        DiTSpec.from_dict({**SPEC.to_dict(), "hidden_size": 1})
