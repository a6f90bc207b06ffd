import json

import pytest

from dcae15.errors import ConfigError
from dcae15.export.foreign_config import (
    diffusers_config,
    official_config,
    official_dotlist,
    spec_from_config,
    spec_from_diffusers,
    spec_from_official,
)
from dcae15.models.presets import PRESETS, preset
from dcae15.models.spec import AutoencoderSpec
from tests.families import FAMILIES

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
        (
            "encoder.block_type=[ResBlock,ResBlock,",
            "encoder.block_type=[ResBlock,ViTGLU,",
            "encoder.block_type = .*ViTGLU",
        ),
        ("encoder.block_type=[ResBlock,", "encoder.block_type=[[ResBlock],", "encoder.block_type"),
        (
            "encoder.out_shortcut=null ",
            "",
            r"encoder.out_shortcut = averaging \(the default\), decoder.in_shortcut = None",
        ),
        ("decoder.in_shortcut=null", "decoder.in_shortcut=duplicating", "both latent shortcuts or none"),
        ("decoder.in_shortcut=null", "decoder.in_shortcut=2", "decoder.in_shortcut = 2 is not supported"),
        ("decoder.out_act=silu", "decoder.out_act=gelu", "decoder.out_act = gelu is not supported.*have silu or relu"),
        ("decoder.out_act=silu", "decoder.out_act=silu decoder.norm=[bn2d,trms2d]", "decoder_norms .* has 2 stages"),
        ("decoder.out_act=silu", "decoder.out_act=silu decoder.norm=ln2d", "decoder.norm = ln2d"),
        ("decoder.out_act=silu", "decoder.out_act=silu encoder.norm=bn2d", "encoder.norm = bn2d"),
        ("latent_channels=16 ", "", "misses latent_channels"),
        ("latent_channels=16 ", "latent_channels=16 encoder.colour=red ", "unknown fields.*encoder.colour"),
        ("encoder.depth_list=[0,2,1,1]", "encoder.depth_list=[0,2,0,1]", "encoder_depths"),
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
        ({"encoder_block_types": ["ResBlock", "ViTBlock"]}, "encoder_block_types"),
        (
            {"encoder_block_types": ["ResBlock"] * 3 + ["EfficientViTBlock"], "encoder_qkv_multiscales": [[]] * 3},
            "missing",
        ),
        (
            {
                "encoder_block_types": ["ResBlock"] * 3 + ["EfficientViTBlock"],
                "encoder_qkv_multiscales": [[]] * 3 + [[3]],
            },
            r"encoder_qkv_multiscales\[3\] is \(3,\).*needs \[\] or \[5\]",
        ),
        ({"attention_head_dim": 16}, "attention_head_dim = 16"),
        ({"encoder_out_shortcut": True}, "encoder_out_shortcut = True, decoder_in_shortcut = False"),
        ({"decoder_conv_act_fn": "gelu"}, "decoder_conv_act_fn"),
        ({"upsample_block_type": "bilinear"}, "upsample_block_type"),
    ],
)
def test_unsupported_diffusers_configurations_are_refused(change, words):
    with pytest.raises(ConfigError, match=words):
        spec_from_diffusers({**DIFFUSERS, **change})


def test_incomplete_diffusers_configuration_is_refused():
    with pytest.raises(ConfigError, match="misses encoder_layers_per_block"):
        spec_from_diffusers({k: v for k, v in DIFFUSERS.items() if k != "encoder_layers_per_block"})


OFFICIAL_1_0 = (
    "latent_channels=32 encoder.block_type=[ResBlock,ResBlock,ResBlock,EViTGLU,EViTGLU,EViTGLU] "
    "encoder.width_list=[128,256,512,512,1024,1024] encoder.depth_list=[0,4,8,2,2,2] "
    "decoder.block_type=[ResBlock,ResBlock,ResBlock,EViTGLU,EViTGLU,EViTGLU] "
    "decoder.width_list=[128,256,512,512,1024,1024] decoder.depth_list=[0,5,10,2,2,2] "
    "decoder.norm=[bn2d,bn2d,bn2d,trms2d,trms2d,trms2d] decoder.act=[relu,relu,relu,silu,silu,silu]"
)


def test_the_official_dotlist_of_1_0_leaves_shortcuts_and_last_activation_to_the_defaults():
    assert spec_from_official(OFFICIAL_1_0) == preset("dc-ae-f32c32-in-1.0")


@pytest.mark.parametrize("spec", [*FAMILIES.values(), *PRESETS.values()])
def test_what_is_written_reads_back(spec):
    assert spec_from_official(official_dotlist(spec)) == spec
    assert spec_from_diffusers(json.loads(json.dumps(diffusers_config(spec, 0.5)))) == spec
    assert spec_from_config(json.loads(json.dumps(official_config(spec)))) == spec


def test_a_published_graph_is_written_by_name_its_own_first():
    spec = PRESETS["dc-ae-f32c32-mix-1.0"]
    assert official_config(spec, "mit-han-lab/dc-ae-f32c32-mix-1.0") == {"model_name": "dc-ae-f32c32-mix-1.0"}
    assert official_config(spec, "dc-ae-f64c128-1.5") == {"model_name": "dc-ae-f32c32-in-1.0"}
    assert official_config(PRESETS["dc-ae-f32c128-1.5"]) == {"model_name": "dc-ae-f32c128-1.5"}
    assert official_config(SPEC) == {"dotlist": official_dotlist(SPEC)}
