import pytest
import torch

from dcae15.errors import ConfigError
from dcae15.models.autoencoder import Autoencoder
from dcae15.models.blocks import ChannelRMSNorm, ResBlock
from dcae15.models.spec import AutoencoderSpec

FIELDS = {
    "latent_channels": 8,
    "encoder_widths": [8, 16, 32, 32],
    "encoder_depths": [0, 1, 1, 1],
    "decoder_widths": [8, 16, 16, 32],
    "decoder_depths": [0, 2, 1, 1],
}
SPEC = AutoencoderSpec.from_dict(FIELDS)


@pytest.fixture
def autoencoder():
    model = Autoencoder(SPEC, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for block in model.modules():
            if isinstance(block, ResBlock):  # as after training; a fresh block is identity
                block.norm.weight.fill_(0.5)
    return model


def pixels(*shape, seed=1):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_shapes_and_compression(autoencoder):
    assert SPEC.spatial_compression == 8
    latents = autoencoder.encode(pixels(2, 3, 16, 24))
    assert latents.shape == (2, 8, 2, 3)
    assert autoencoder.decode(latents).shape == (2, 3, 16, 24)


def test_a_prefix_leaves_the_rear_latent_weights_without_gradient(autoencoder):
    autoencoder(pixels(1, 3, 16, 16), prefix=3).square().mean().backward()
    assert all(parameter.grad is not None for parameter in autoencoder.parameters())
    for grad in (autoencoder.encoder.conv_out.weight.grad, autoencoder.decoder.conv_in.weight.grad.transpose(0, 1)):
        assert grad[:3].abs().sum() > 0
        assert grad[3:].abs().sum() == 0


def test_channels_last_and_bfloat16_compute_the_same(autoencoder):
    image = pixels(2, 3, 16, 16)
    with torch.no_grad():
        expected = autoencoder(image)
        with torch.autocast("cpu", torch.bfloat16):
            half = autoencoder(image)
        autoencoder.to(memory_format=torch.channels_last)
        last = autoencoder(image.to(memory_format=torch.channels_last))
    torch.testing.assert_close(last, expected, rtol=1e-4, atol=1e-5)
    assert (half.float() - expected).abs().mean() < 0.05 * expected.abs().mean()


def test_norm_makes_the_root_mean_square_of_a_pixel_one_and_survives_half_precision():
    norm = ChannelRMSNorm(16)
    x = 300 * torch.randn(2, 16, 3, 4, generator=torch.Generator().manual_seed(0))  # squares overflow float16
    y = norm(x.half())
    assert y.dtype == torch.float16
    torch.testing.assert_close(y.float().square().mean(dim=1).sqrt(), torch.ones(2, 3, 4), rtol=1e-2, atol=0)
    with torch.no_grad():
        norm.weight.fill_(2)
        norm.bias.copy_(torch.arange(16.0))
    expected = 2 * x / x.square().mean(1, keepdim=True).sqrt() + torch.arange(16.0)[:, None, None]
    torch.testing.assert_close(norm(x), expected)


@pytest.mark.parametrize(
    ("shape", "prefix", "words"),
    [
        ((1, 3, 16, 20), None, ["16x20", "divisible", "8"]),
        ((1, 1, 16, 16), None, ["(1, 1, 16, 16)", "expected"]),
        ((3, 16, 16), None, ["(3, 16, 16)"]),
        ((1, 3, 16, 16), 0, ["prefix = 0", "8 latent channels"]),
        ((1, 3, 16, 16), 9, ["prefix = 9"]),
    ],
)
def test_encode_refuses_what_does_not_fit(autoencoder, shape, prefix, words):
    with pytest.raises(ConfigError) as error:
        autoencoder.encode(torch.zeros(shape), prefix)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize("shape", [(1, 9, 2, 2), (1, 0, 2, 2), (8, 2, 2)])
def test_decode_refuses_what_does_not_fit(autoencoder, shape):
    with pytest.raises(ConfigError, match="1 to 8 channels"):
        autoencoder.decode(torch.zeros(shape))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("latent_channels", 0, "at least 1"),
        ("latent_channels", 8.0, "whole number"),
        ("encoder_widths", "8,16", "not a list"),
        ("encoder_widths", [8, 16, 32, 32.0], "not a list of whole numbers"),
        ("encoder_widths", [8], "at least 2 stages"),
        ("encoder_widths", [0, 16, 32, 32], "positive"),
        ("encoder_widths", [8, 18, 32, 32], r"encoder_widths\[1\] = 18 must be divisible by 4"),
        ("decoder_widths", [8, 16, 24, 32], r"decoder_widths\[2\] = 24 must divide 4 \* decoder_widths\[1\] = 64"),
        ("decoder_widths", [8, 16, 32], "decoder_widths has 3, decoder_depths has 4"),
        ("encoder_depths", [-1, 1, 1, 1], "must be 0"),
        ("decoder_depths", [0, 1, 0, 1], "at least 1 block"),
        ("decoder_depths", [0, 1, 1, 1, 1], "decoder_depths has 5; all four lists need one number"),
    ],
)
def test_spec_names_the_field_that_is_wrong(field, value, words):
    with pytest.raises(ConfigError, match=words) as error:
        AutoencoderSpec.from_dict({**FIELDS, field: value})
    assert field in str(error.value)


def test_spec_refuses_missing_and_unknown_fields():
    with pytest.raises(ConfigError, match="misses latent_channels"):
        AutoencoderSpec.from_dict({k: v for k, v in FIELDS.items() if k != "latent_channels"})
    with pytest.raises(ConfigError, match="no field widths"):
        AutoencoderSpec.from_dict({**FIELDS, "widths": [1]})
