from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dcae15.errors import WeightsError
from dcae15.export.layouts import check_fit, detect_layout, from_official, to_official
from dcae15.models.autoencoder import Autoencoder, AutoencoderSpec

GOLDEN = Path(__file__).parents[2] / "parity/golden"
SPEC = AutoencoderSpec(4, (4, 8, 16, 16, 32), (0, 1, 2, 1, 1), (4, 8, 8, 16, 16), (0, 2, 1, 1, 3))


@pytest.fixture
def weights():
    return Autoencoder(SPEC, torch.Generator().manual_seed(0)).state_dict()


def official(name):
    prefix = "state_dict."
    tensors = load_file(GOLDEN / f"{name}.safetensors")
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def test_our_weights_survive_the_round_trip(weights):
    there = to_official(weights)
    assert detect_layout(there) == "official"
    assert "encoder.stages.1.op_list.0.main.conv2.norm.bias" in there
    back = from_official(there)
    assert detect_layout(back) == "ours"
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[key], weights[key]) for key in weights)
    check_fit(back, SPEC)


@pytest.mark.parametrize("name", ["dcae15_f8c16", "dcae11_f8c16"])
def test_official_weights_survive_the_round_trip(name):
    weights = official(name)
    back = to_official(from_official(weights))
    assert back.keys() == weights.keys()
    assert all(back[key] is weights[key] for key in weights)


def test_unknown_keys_are_named(weights):
    with pytest.raises(WeightsError, match=r"unknown keys \(1\): encoder\.quant\.weight"):
        from_official({**to_official(weights), "encoder.quant.weight": torch.zeros(1)})
    with pytest.raises(WeightsError, match=r"encoder\.stages\.1"):
        to_official(to_official(weights))


def test_dc_ae_1_0_is_refused_with_the_reason():
    with pytest.raises(WeightsError, match=r"and \d+ more.*linear attention.*not supported"):
        from_official(official("dcae10_f8c16"))


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
        check_fit(weights, SPEC)
    for words in (
        "missing keys (1): encoder.conv_out.bias (4,)",
        "not expected keys (1): decoder.extra.weight (2, 2)",
        "decoder.conv_in.bias has shape (3,), expected (16,)",
    ):
        assert words in str(error.value)


def test_a_deeper_model_is_not_a_fit(weights):
    deeper = AutoencoderSpec.from_dict({**SPEC.to_dict(), "encoder_depths": [0, 1, 2, 1, 2]})
    with pytest.raises(WeightsError, match=r"encoder\.down_blocks\.4\.1\.conv1\.weight \(32, 32, 3, 3\)"):
        check_fit(weights, deeper)
