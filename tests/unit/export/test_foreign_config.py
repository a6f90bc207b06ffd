import pytest

from dcae15.errors import ConfigError
from dcae15.export.foreign_config import spec_from_config, spec_from_diffusers, spec_from_official
from dcae15.models.autoencoder import AutoencoderSpec
from dcae15.models.presets import preset

DOTLIST = (
    "latent_channels=16 encoder.block_type=[ResBlock,ResBlock,ResBlock,ResBlock] encoder.out_shortcut=null "
    "encoder.width_list=[8, 16, 32, 32] encoder.depth_list=[0,2,1,1] encoder.out_block_type=AdaptiveOutputConvLayer "
    "decoder.block_type=ResBlock decoder.in_shortcut=null decoder.out_act=silu decoder.width_list=[8,16,16,32] "
    "decoder.depth_list=[0,1,1,2] decoder.in_block_type=AdaptiveInputConvLayer"
)
SPEC = AutoencoderSpec(16, (8, 16, 32, 32), (0, 2, 1, 1), (8, 16, 16, 32), (0, 1, 1, 2))
DIFFUSERS = {
    "_class_name": "AutoencoderDC",
    "_diffusers_version": "0.36.0",
    "latent_channels": 16,
    "encoder_block_out_channels": [8, 16, 32, 32],
    "encoder_layers_per_block": [0, 2, 1, 1],
    "decoder_block_out_channels": [8, 16, 16, 32],
    "decoder_layers_per_block": [0, 1, 1, 2],
    "encoder_out_shortcut": False,
    "decoder_in_shortcut": False,
    "decoder_conv_act_fn": "silu",
    "scaling_factor": 0.5935,
}


def test_dotlist_and_diffusers_config_give_the_graph():
    assert spec_from_official(DOTLIST) == SPEC
    assert spec_from_config(DIFFUSERS) == SPEC


@pytest.mark.parametrize(
    "name", ["dc-ae-f64c128-1.5", "dc-ai/dc-ae-f64c128-1.5", "dc-ae-1.5-f64c128", "dc-ai/dc-ae-1.5-f64c128"]
)
def test_published_names_are_known(name):
    assert spec_from_config({"model_name": name}) == preset("dc-ae-f64c128-1.5")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("encoder.block_type=[ResBlock,ResBlock,", "encoder.block_type=[ResBlock,EViTGLU,", "encoder.block_type"),
        ("encoder.out_shortcut=null ", "", "encoder.out_shortcut = averaging.*default"),
        ("decoder.in_shortcut=null", "decoder.in_shortcut=duplicating", "decoder.in_shortcut"),
        ("decoder.out_act=silu", "decoder.out_act=relu", "decoder.out_act = relu is not supported.*needs silu"),
        ("decoder.out_act=silu", "decoder.out_act=silu decoder.norm=[bn2d,trms2d]", "decoder.norm"),
        ("latent_channels=16 ", "", "misses latent_channels"),
        ("latent_channels=16 ", "latent_channels=16 encoder.colour=red ", "unknown fields.*encoder.colour"),
        ("encoder.depth_list=[0,2,1,1]", "encoder.depth_list=[2,2,1,1]", "encoder_depths"),
        ("encoder.depth_list=[0,2,1,1]", "encoder.depth_list=[0,2", "dotlist"),
    ],
)
def test_unsupported_official_configurations_are_refused(old, new, words):
    assert old in DOTLIST
    with pytest.raises(ConfigError, match=words):
        spec_from_official(DOTLIST.replace(old, new))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"_class_name": "AutoencoderKL"}, "AutoencoderKL"),
        ({"encoder_block_types": ["ResBlock", "EfficientViTBlock"]}, "encoder_block_types"),
        ({"encoder_out_shortcut": True}, "encoder_out_shortcut"),
        ({"decoder_conv_act_fn": "relu"}, "decoder_conv_act_fn"),
        ({"upsample_block_type": "interpolate"}, "upsample_block_type"),
    ],
)
def test_unsupported_diffusers_configurations_are_refused(change, words):
    with pytest.raises(ConfigError, match=words):
        spec_from_diffusers({**DIFFUSERS, **change})


def test_incomplete_diffusers_configuration_is_refused():
    with pytest.raises(ConfigError, match="misses encoder_layers_per_block"):
        spec_from_diffusers({k: v for k, v in DIFFUSERS.items() if k != "encoder_layers_per_block"})
