import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

from dcae15.errors import ConfigError, WeightsError
from dcae15.export.layouts import to_official
from dcae15.export.loading import load_foreign_autoencoder, read_state_dict
from dcae15.models.autoencoder import Autoencoder, AutoencoderSpec

SPEC = AutoencoderSpec(4, (4, 8, 16), (0, 1, 1), (4, 8, 16), (0, 1, 2))
DOTLIST = (
    "latent_channels=4 encoder.width_list=[4,8,16] encoder.depth_list=[0,1,1] encoder.out_shortcut=null "
    "decoder.width_list=[4,8,16] decoder.depth_list=[0,1,2] decoder.in_shortcut=null decoder.out_act=silu"
)


@pytest.fixture
def source():
    return Autoencoder(SPEC, torch.Generator().manual_seed(0))


def assert_loaded(loaded, source):
    assert loaded.spec == source.spec
    assert not loaded.training
    assert all(p.requires_grad for p in loaded.parameters())
    assert loaded.state_dict().keys() == source.state_dict().keys()
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in loaded.state_dict().items())


def test_official_safetensors_and_torch_files(tmp_path, source):
    weights = to_official(source.state_dict())
    save_file(weights, tmp_path / "a.safetensors")
    torch.save({"state_dict": weights, "epoch": 3}, tmp_path / "b.pt")
    torch.save(weights, tmp_path / "c.pth")
    for name in ("a.safetensors", "b.pt", "c.pth"):
        assert_loaded(load_foreign_autoencoder(str(tmp_path / name), DOTLIST), source)


def test_half_precision_files_become_float32(tmp_path, source):
    save_file({key: value.half() for key, value in source.state_dict().items()}, tmp_path / "a.safetensors")
    loaded = load_foreign_autoencoder(str(tmp_path / "a.safetensors"), DOTLIST)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}


def test_diffusers_folder(tmp_path, source):
    diffusers = pytest.importorskip("diffusers", reason="diffusers is a test dependency only")
    model = diffusers.AutoencoderDC(
        latent_channels=4,
        encoder_block_out_channels=SPEC.encoder_widths,
        decoder_block_out_channels=SPEC.decoder_widths,
        encoder_layers_per_block=SPEC.encoder_depths,
        decoder_layers_per_block=SPEC.decoder_depths,
        encoder_out_shortcut=False,
        decoder_in_shortcut=False,
        decoder_conv_act_fn="silu",
    )
    model.load_state_dict(source.state_dict())
    model.save_pretrained(tmp_path)
    assert_loaded(load_foreign_autoencoder(str(tmp_path)), source)


def test_official_folder_takes_the_graph_from_the_model_name(tmp_path, source):
    save_file(to_official(source.state_dict()), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_name": "dc-ae-f32c128-1.5"}))
    with pytest.raises(WeightsError, match=r"do not fit the model.*'latent_channels': 128"):
        load_foreign_autoencoder(str(tmp_path))
    assert_loaded(load_foreign_autoencoder(str(tmp_path), DOTLIST), source)


def test_a_bare_file_needs_a_configuration(tmp_path):
    with pytest.raises(ConfigError, match="bare weights file"):
        load_foreign_autoencoder(str(tmp_path / "a.safetensors"))


def test_damaged_and_foreign_files_are_refused(tmp_path, source):
    good = save(source.state_dict())
    torch.save({"a": torch.zeros(3)}, tmp_path / "good.pt")
    torch_file = (tmp_path / "good.pt").read_bytes()
    torch.save({"state_dict": {"a": Path}}, tmp_path / "pickled.pt")
    torch.save({"a": 1}, tmp_path / "numbers.pt")
    for name, data in {
        "cut.safetensors": good[:-10],
        "text.safetensors": b"hello",
        "empty.safetensors": b"",
        "cut.pt": torch_file[: len(torch_file) // 2],
        "text.pt": b"hello",
        "empty.pt": b"",
    }.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "a.ckpt").write_bytes(good)
    for path in sorted(tmp_path.iterdir()):
        if path.name != "good.pt":
            with pytest.raises(WeightsError, match=path.name.replace(".", r"\.")):
                read_state_dict(str(path))


def test_pickled_code_never_runs(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"state_dict": {"a": Bomb()}}, tmp_path / "bomb.pt")
    with pytest.raises(WeightsError, match="never unpickled"):
        read_state_dict(str(tmp_path / "bomb.pt"))
    assert not (tmp_path / "ran").exists()
