"""Weights of the official implementation give its outputs (tests/parity/golden, float32 on CPU)."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from dcae15.export.foreign_config import spec_from_official
from dcae15.export.layouts import build_autoencoder, from_official
from dcae15.models.dit import DiT
from dcae15.models.spec import DiTSpec

GOLDEN = Path(__file__).parent / "golden"
PREFIX = "state_dict."


def read(name):
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        weights = {key.removeprefix(PREFIX): value for key, value in tensors.items() if key.startswith(PREFIX)}
        return file.metadata()["config"], weights, {k: v for k, v in tensors.items() if not k.startswith(PREFIX)}


def assert_same(actual, expected):
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("name", ["dcae15_f8c16", "dcae11_f8c16", "dcae10_f8c16"])
def test_autoencoder_gives_the_official_latents_and_images(name):
    config, weights, golden = read(name)
    spec = spec_from_official(config)
    autoencoder = build_autoencoder(from_official(weights, spec), spec)
    with torch.no_grad():
        assert_same(autoencoder.encode(golden["x"]), golden["z"])
        assert_same(autoencoder.decode(golden["z"]), golden["y"])
        for prefix in sorted(int(key[3:]) for key in golden if key.startswith("z_c")):
            assert_same(autoencoder.encode(golden["x"], prefix), golden[f"z_c{prefix}"])
            assert_same(autoencoder.decode(golden[f"z_c{prefix}"]), golden[f"y_c{prefix}"])


def test_dit_gives_the_official_predictions_for_every_prefix():
    config, weights, golden = read("dit_c16")
    values = dict(item.split("=") for item in config.split())
    spec = DiTSpec(
        latent_channels=int(values["in_channels"]),
        latent_size=int(values["input_size"]),
        num_classes=int(values["num_classes"]),
        depth=int(values["depth"]),
        width=int(values["hidden_size"]),
        heads=int(values["num_heads"]),
        patch_size=int(values["patch_size"]),
    )
    model = DiT(spec)
    model.load_state_dict(weights)
    with torch.no_grad():
        assert_same(model(golden["x"], golden["t"], golden["y"]), golden["out"])
        for prefix in sorted(int(key[5:]) for key in golden if key.startswith("out_c")):
            assert_same(model(golden["x"][:, :prefix], golden["t"], golden["y"]), golden[f"out_c{prefix}"])
