from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from dcae15.errors import WeightsError
from dcae15.export.foreign_config import spec_from_official
from dcae15.export.layouts import build_autoencoder, detect_layout, from_official, to_official
from dcae15.models.autoencoder import Autoencoder
from dcae15.models.spec import AutoencoderSpec
from tests.families import FAMILIES, pixels, randomised

GOLDEN = Path(__file__).parents[2] / "parity/golden"
SPEC = AutoencoderSpec(4, (4, 8, 16, 16, 32), (0, 1, 2, 1, 1), (4, 8, 8, 16, 16), (0, 2, 1, 1, 3))


@pytest.fixture
def weights():
    return Autoencoder(SPEC, torch.Generator().manual_seed(0)).state_dict()


@pytest.mark.parametrize("name", ["dcae15_f8c16", "dcae11_f8c16", "dcae10_f8c16"])
def test_official_weights_survive_the_round_trip(name):
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
        spec = spec_from_official(file.metadata()["config"])
        names = [key for key in file.keys() if key.startswith("state_dict.")]  # noqa: SIM118
        weights = {key.removeprefix("state_dict."): file.get_tensor(key) for key in names}
    back = to_official(from_official(weights, spec), spec)
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[key], weights[key]) for key in weights)


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_of_every_family_survive_the_round_trip(family):
    spec = FAMILIES[family]
    weights = randomised(spec).state_dict()
    there = to_official(weights, spec)
    assert detect_layout(there) == "official"
    back = from_official(there, spec)
    assert detect_layout(back) == "ours"
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[key], weights[key]) and back[key].dtype == weights[key].dtype for key in weights)
    again = to_official(back, spec)
    assert again.keys() == there.keys()
    assert all(torch.equal(again[key], there[key]) for key in there)


def test_names_of_sana_and_1_0_are_the_official_ones():
    sana = to_official(randomised(FAMILIES["sana"]).state_dict(), FAMILIES["sana"])
    assert {
        "encoder.project_in.conv.weight",
        "encoder.stages.0.op_list.1.main.conv.weight",
        "encoder.stages.2.op_list.0.context_module.main.aggreg.0.0.weight",
        "encoder.stages.2.op_list.0.context_module.main.aggreg.0.1.weight",
        "encoder.project_out.main.op_list.0.conv.bias",
        "decoder.project_in.main.conv.weight",
        "decoder.stages.0.op_list.0.main.conv.conv.weight",
        "decoder.project_out.op_list.2.conv.weight",
    } <= sana.keys()
    qkv = sana["encoder.stages.2.op_list.0.context_module.main.qkv.conv.weight"]
    assert qkv.shape == (96, 48, 1, 1)


def test_weights_with_latent_shortcuts_are_not_taken_for_others():
    spec = FAMILIES["1.0"]
    there = to_official(randomised(spec).state_dict(), spec)
    without = AutoencoderSpec.from_dict({**spec.to_dict(), "latent_shortcuts": False})
    with pytest.raises(
        WeightsError, match=r"of the graph .*unknown keys \(4\): decoder\.project_in\.main\.conv\.bias"
    ) as error:
        from_official(dict(sorted(there.items())), without)
    assert "latent_channels" in str(error.value)


def test_published_files_lack_the_counters_of_batch_norms():
    spec = FAMILIES["1.0"]
    source = randomised(spec)
    weights = {key: value for key, value in source.state_dict().items() if not key.endswith("num_batches_tracked")}
    assert len(weights) < len(source.state_dict())
    model = build_autoencoder(weights, spec)
    assert not model.training
    image = pixels(spec)
    with torch.no_grad():
        assert torch.equal(model(image), source(image))


@pytest.mark.parametrize("family", ["1.0", "sana"])
def test_damaged_attention_is_refused(family):
    spec = FAMILIES[family]
    ours = randomised(spec).state_dict()
    there = to_official(ours, spec)
    key = next(key for key in there if key.endswith("qkv.conv.weight"))
    with pytest.raises(WeightsError, match=r"qkv\.conv\.weight has shape \(7, 3\)"):
        from_official({**there, key: torch.zeros(7, 3)}, spec)
    key = next(key for key in ours if key.endswith("to_k.weight"))
    del ours[key]
    with pytest.raises(WeightsError, match=r"missing keys \(1\): .*to_k\.weight"):
        to_official(ours, spec)


def test_unknown_keys_are_named(weights):
    with pytest.raises(WeightsError, match=r"unknown keys \(1\): encoder\.quant\.weight"):
        from_official({**to_official(weights, SPEC), "encoder.quant.weight": torch.zeros(1)}, SPEC)
    with pytest.raises(WeightsError, match=r"encoder\.stages\.1"):
        to_official(to_official(weights, SPEC), SPEC)


def test_other_models_are_refused():
    with pytest.raises(WeightsError, match=r"not weights of a DC-AE autoencoder: keys \(1\): unet\.weight"):
        detect_layout({"unet.weight": torch.zeros(1)})
    with pytest.raises(WeightsError, match="no keys at all"):
        detect_layout({})


def test_every_misfit_is_named_with_the_expected_shape(weights):
    del weights["encoder.conv_out.bias"]
    weights["decoder.extra.weight"] = torch.zeros(2, 2)
    weights["decoder.conv_in.bias"] = torch.zeros(3)
    with pytest.raises(WeightsError) as error:
        build_autoencoder(weights, SPEC)
    for words in (
        "missing keys (1): encoder.conv_out.bias (4,)",
        "not expected keys (1): decoder.extra.weight (2, 2)",
        "decoder.conv_in.bias has shape (3,), expected (16,)",
    ):
        assert words in str(error.value)


def test_a_deeper_model_is_not_a_fit(weights):
    deeper = AutoencoderSpec.from_dict({**SPEC.to_dict(), "encoder_depths": [0, 1, 2, 1, 2]})
    with pytest.raises(WeightsError, match=r"encoder\.down_blocks\.4\.1\.conv1\.weight \(32, 32, 3, 3\)"):
        build_autoencoder(weights, deeper)
