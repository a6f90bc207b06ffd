import json

import pytest
import torch

from dcae15.errors import ConfigError
from dcae15.models.attention import EViTBlock, LinearAttention, relu_attention
from dcae15.models.autoencoder import Autoencoder
from dcae15.models.blocks import ResBlock
from dcae15.models.spec import AutoencoderSpec
from tests.families import FAMILIES, pixels, randomised

SPEC = FAMILIES["1.0"]


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_slicing_equals_masking_with_zeros(family):
    spec = FAMILIES[family]
    model = randomised(spec)
    images = pixels(spec)
    full = model.encode(images)
    for prefix in (1, 3, spec.latent_channels):
        sliced = model.encode(images, prefix)
        torch.testing.assert_close(sliced, full[:, :prefix])
        masked = torch.cat([full[:, :prefix], torch.zeros_like(full[:, prefix:])], dim=1)
        torch.testing.assert_close(model.decode(sliced), model.decode(masked), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(model(images, prefix), model.decode(sliced))


@torch.no_grad()
def test_latent_shortcuts_average_and_repeat_channel_groups():
    model = randomised(SPEC)
    for conv in (model.encoder.conv_out, model.decoder.conv_in):
        conv.weight.zero_()
        conv.bias.zero_()
    deep = random(1, 64, 2, 2)
    torch.testing.assert_close(model.encoder.conv_out(deep, 3), deep[:, :24].unflatten(1, (3, 8)).mean(2))
    latents = random(1, 3, 2, 2)
    expected = torch.cat([latents.repeat_interleave(8, 1), torch.zeros(1, 40, 2, 2)], 1)
    torch.testing.assert_close(model.decoder.conv_in(latents), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_fresh_block_is_identity_all_weights_are_drawn_and_all_can_learn(family):
    spec = FAMILIES[family]
    first, again, other = (Autoencoder(spec, torch.Generator().manual_seed(s)).state_dict() for s in (0, 0, 1))
    assert all(torch.equal(first[key], again[key]) for key in first)
    random_ones = [key for key, value in first.items() if value.ndim > 1]
    assert not any(torch.equal(first[key], other[key]) for key in random_ones)
    model = randomised(spec).train()
    model(pixels(spec)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    for kind in (ResBlock, EViTBlock):
        for block in (b for b in Autoencoder(spec).modules() if isinstance(b, kind)):
            x = random(1, next(p for p in block.parameters() if p.ndim > 1).shape[1], 4, 4)
            assert torch.equal(block(x), x)


@pytest.mark.parametrize("tokens", [1, 31, 32, 33, 100])
def test_both_orders_of_linear_attention_are_the_same_function(tokens):
    q, k, v = (random(2, 3, 32, tokens, seed=seed).double() for seed in range(3))
    similarity = torch.einsum("bhdn,bhdm->bhnm", q.relu(), k.relu())
    expected = torch.einsum("bhnm,bhdm->bhdn", similarity / (similarity.sum(-1, keepdim=True) + 1e-15), v)
    torch.testing.assert_close(relu_attention(q, k, v), expected.float(), rtol=1e-4, atol=1e-5)


def test_attention_over_many_pixels_survives_half_precision():
    attention = LinearAttention(64, (5,))
    x = 20 * random(1, 64, 48, 48)  # sums over 2,304 pixels overflow float16
    with torch.no_grad():
        expected = attention(x)
        for dtype in (torch.float16, torch.bfloat16):
            half = attention.to(dtype)(x.to(dtype))
            assert half.dtype == dtype
            assert (half.float() - expected).abs().mean() < 0.05 * expected.abs().mean()
            attention.float()
        with torch.autocast("cpu", torch.bfloat16):
            under = attention(x)
    assert (under.float() - expected).abs().mean() < 0.05 * expected.abs().mean()


@torch.no_grad()
def test_attention_sees_every_pixel_and_batch_norm_only_its_statistics():
    model = randomised(SPEC)
    images = pixels(SPEC, 2, 4, 4)
    alone = model(images[:1])
    torch.testing.assert_close(model(images)[:1], alone, rtol=1e-4, atol=1e-5)
    images[0, :, -1, -1] = 1 - images[0, :, -1, -1]
    assert (model.encode(images[:1])[0, :, 0, 0] != model.encode(pixels(SPEC, 2, 4, 4)[:1])[0, :, 0, 0]).any()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_spec_survives_json_and_says_only_what_differs_from_1_5(family):
    spec = FAMILIES[family]
    values = spec.to_dict()
    assert AutoencoderSpec.from_dict(json.loads(json.dumps(values))) == spec
    assert hash(spec)
    if family == "1.5":
        assert set(values) == {
            "latent_channels",
            "encoder_widths",
            "encoder_depths",
            "decoder_widths",
            "decoder_depths",
        }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoder_blocks": ["ResBlock", "EViT"]}, r"encoder_blocks = .* has 2 stages"),
        ({"encoder_blocks": "EViT"}, r"encoder_blocks\[0\] = 'EViT' must be ResBlock or EViTGLU or EViTS5GLU"),
        ({"encoder_blocks": 3}, "encoder_blocks = 3 is not a list"),
        ({"decoder_norms": ["layer_norm"]}, r"decoder_norms\[0\] = 'layer_norm' must be rms_norm or batch_norm"),
        (
            {"decoder_norms": "batch_norm"},
            r"decoder_norms\[2\] = batch_norm does not go with decoder_blocks\[2\] = EViTGLU",
        ),
        ({"decoder_acts": "relu"}, r"decoder_acts\[2\] = relu does not go with"),
        (
            {"encoder_widths": [4, 8, 16, 64]},
            r"encoder_widths\[2\] = 16 is too narrow for encoder_blocks\[2\] = EViTGLU",
        ),
        ({"latent_channels": 12}, r"encoder_widths\[3\] = 64 must be a multiple of latent_channels = 12"),
        ({"latent_channels": 128}, r"encoder_widths\[3\] = 64 must be a multiple of latent_channels = 128"),
        ({"latent_shortcuts": "no"}, "latent_shortcuts = 'no' must be true or false"),
        ({"out_act": "gelu"}, "out_act = 'gelu' must be silu or relu"),
        ({"downsample": "pool"}, "downsample = 'pool' must be pixel_unshuffle or conv"),
        (
            {"encoder_depths": [1, 1, 1, 2], "encoder_widths": [3, 32, 32, 64]},
            r"encoder_widths\[1\] = 32 must divide 4",
        ),
    ],
)
def test_a_spec_names_the_field_that_is_wrong(changes, words):
    with pytest.raises(ConfigError, match=words):
        AutoencoderSpec.from_dict({**SPEC.to_dict(), **changes})
