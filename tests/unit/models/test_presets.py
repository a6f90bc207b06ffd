import pytest
import torch

from dcae15.config import AutoencoderConfig, build, check, from_overrides
from dcae15.config.graph import autoencoder_spec
from dcae15.errors import ConfigError
from dcae15.models.autoencoder import Autoencoder
from dcae15.models.presets import GRAPH_FIELDS, PRESETS, SCALING_FACTORS, preset
from tests.families import FAMILIES

F32_1_0 = (123_172_384, 200_184_076)
F64_1_0 = (264_550_528, 412_345_612)
F128_1_0 = (415_661_056, 705_021_196)
SANA = (153_027_104, 159_223_171)
F32_1_5 = (228_609_408, 295_000_332)
PARAMETERS = {
    "dc-ae-f32c32-in-1.0": F32_1_0,
    "dc-ae-f32c32-in-1.0-256px": F32_1_0,
    "dc-ae-f32c32-mix-1.0": F32_1_0,
    "dc-ae-f64c128-in-1.0": F64_1_0,
    "dc-ae-f64c128-mix-1.0": F64_1_0,
    "dc-ae-f128c512-in-1.0": F128_1_0,
    "dc-ae-f128c512-mix-1.0": F128_1_0,
    "dc-ae-f32c32-sana-1.0": SANA,
    "dc-ae-f32c32-sana-1.1": SANA,
    "dc-ae-lite-f32c32-sana-1.1": (153_027_104, 268_154_124),
    "dc-ae-f32c128-1.1": F32_1_5,
    "dc-ae-f32c128-1.5": F32_1_5,
    "dc-ae-f64c128-1.5": (306_478_720, 408_262_924),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_presets_have_the_published_size(name):
    with torch.device("meta"):
        model = Autoencoder(preset(name))
    counts = tuple(sum(p.numel() for p in part.parameters()) for part in (model.encoder, model.decoder))
    assert counts == PARAMETERS[name]
    config = AutoencoderConfig(preset=name)
    assert model.spec == autoencoder_spec(config)


def test_every_preset_is_measured_and_every_scaling_factor_has_a_preset():
    assert PARAMETERS.keys() == PRESETS.keys()
    assert SCALING_FACTORS.keys() <= PRESETS.keys()


def test_running_statistics_of_1_0_are_as_many_as_the_published_file_has_more_values_than_parameters():
    with torch.device("meta"):
        model = Autoencoder(preset("dc-ae-f32c32-in-1.0"))
    assert sum(b.numel() for name, b in model.named_buffers() if "running" in name) == 12_800


@pytest.mark.parametrize(
    ("written", "known"),
    [
        ("dc-ai/dc-ae-f64c128-1.5", "dc-ae-f64c128-1.5"),
        ("dc-ae-1.5-f64c128", "dc-ae-f64c128-1.5"),
        ("dc-ai/dc-ae-1.5-f32c128-diffusers", "dc-ae-f32c128-1.5"),
        ("mit-han-lab/dc-ae-f32c32-in-1.0-diffusers", "dc-ae-f32c32-in-1.0"),
        ("dc-ae-f32c128-1.1-c16", "dc-ae-f32c128-1.1"),
    ],
)
def test_other_ways_to_write_a_name(written, known):
    assert preset(written) is PRESETS[known]
    check(build([from_overrides([f"autoencoder.preset={written}", "data.resolution=64"])])[0], {"data", "autoencoder"})


def test_unknown_preset_lists_the_nearest():
    with pytest.raises(ConfigError, match=r"'dc-ae-f64c128-1\.6'.*did you mean dc-ae-f64c128-1\.5"):
        preset("dc-ae-f64c128-1.6")
    with pytest.raises(ConfigError) as error:
        preset("zzz")
    assert all(name in str(error.value) for name in PRESETS)


def test_the_default_configuration_is_a_small_1_5():
    spec = autoencoder_spec(AutoencoderConfig())
    assert (spec.spatial_compression, spec.latent_channels, spec.latent_shortcuts) == (8, 32, False)
    assert set(spec.encoder_blocks + spec.decoder_blocks) == {"ResBlock"}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_graph_can_be_asked_for_by_configuration(family):
    spec = FAMILIES[family]
    words = []
    for name in GRAPH_FIELDS:
        value = getattr(spec, name)
        words.append(f"autoencoder.{name}={list(value) if isinstance(value, tuple) else value}")
    config, _ = build([from_overrides([word.replace("'", "") for word in words])])
    check(config, {"autoencoder"})
    assert autoencoder_spec(config.autoencoder) == spec


def test_an_error_of_a_custom_graph_names_the_configuration_field():
    config, _ = build([from_overrides(["autoencoder.decoder_blocks=[EViTGLU]"])])
    with pytest.raises(ConfigError, match=r"autoencoder\.decoder_widths\[1\] = 16 is too narrow.*use ResBlock"):
        autoencoder_spec(config.autoencoder)
