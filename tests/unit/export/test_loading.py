import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

from dcae15.errors import ArtifactError, ConfigError, StorageError, WeightsError
from dcae15.export.foreign_config import official_dotlist
from dcae15.export.foreign_weights import load_foreign_autoencoder
from dcae15.export.layouts import to_official
from dcae15.library import load_autoencoder
from dcae15.models.autoencoder import Autoencoder
from dcae15.models.spec import AutoencoderSpec
from dcae15.weights import read_state_dict
from tests.families import FAMILIES, pixels, randomised

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
    weights = to_official(source.state_dict(), SPEC)
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
    save_file(to_official(source.state_dict(), SPEC), tmp_path / "model.safetensors")
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


@pytest.mark.parametrize("layout", ["official", "ours"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_opens_from_a_bare_file_of_either_layout(tmp_path, family, layout):
    source = randomised(FAMILIES[family])
    weights = source.state_dict() if layout == "ours" else to_official(source.state_dict(), source.spec)
    path = str(tmp_path / "a.pt")
    torch.save({"state_dict": weights}, path)
    image = pixels(source.spec)
    for config in (source.spec, official_dotlist(source.spec)):
        loaded = load_autoencoder(path, config)
        with torch.no_grad():
            assert torch.equal(loaded(image), source(image))


def test_checkpoints_of_the_official_trainer_hold_the_last_weights_and_averages(tmp_path):
    last, average = (randomised(FAMILIES["1.0"], seed) for seed in (0, 1))
    last_weights, average_weights = (to_official(m.state_dict(), m.spec) for m in (last, average))
    path = str(tmp_path / "checkpoint.pt")
    torch.save({"model_state_dict": last_weights, "ema": {0.999: average_weights}, "global_step": 3}, path)
    for ema, expected in ((None, last), (0.999, average)):
        loaded = load_autoencoder(path, last.spec, ema=ema)
        assert all(torch.equal(value, expected.state_dict()[key]) for key, value in loaded.state_dict().items())
    with pytest.raises(WeightsError, match=r"no moving average of decay 0\.99: it has 0\.999"):
        load_autoencoder(path, last.spec, ema=0.99)
    torch.save({"state_dict": last_weights}, path)
    with pytest.raises(WeightsError, match="it has none under 'ema'"):
        load_autoencoder(path, last.spec, ema=0.99)
    save_file({k: v.contiguous() for k, v in last_weights.items()}, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match="it has none under 'ema'"):
        load_autoencoder(str(tmp_path / "a.safetensors"), last.spec, ema=0.999)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"latent_channels": 16}, r"encoder\.conv_out\.weight has shape \(8, 64, 3, 3\), expected \(16, 64, 3, 3\)"),
        ({"encoder_depths": [0, 1, 2, 2]}, r"missing keys"),
        ({"encoder_blocks": "ResBlock"}, r"missing keys.*not expected keys"),
        ({"latent_shortcuts": False}, r"unknown keys.*project_in\.main"),
    ],
)
def test_weights_of_another_graph_name_file_graph_and_mending(tmp_path, changes, words):
    source = randomised(FAMILIES["1.0"])
    path = str(tmp_path / "weights.pt")
    torch.save(to_official(source.state_dict(), source.spec), path)
    other = AutoencoderSpec.from_dict({**source.spec.to_dict(), **changes})
    with pytest.raises(WeightsError, match=words) as error:
        load_autoencoder(path, other)
    message = str(error.value)
    assert message.startswith(path) and "autoencoder.preset=NAME" in message and str(other.to_dict()) in message


def test_what_is_no_autoencoder_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(ArtifactError, match=r"nowhere is no autoencoder.*manifest\.json.*train_autoencoder"):
        load_autoencoder(str(tmp_path / "nowhere"))
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "config.json").write_text(json.dumps({"model_name": "dc-ae-f31c32"}))
    with pytest.raises(
        ConfigError, match=r"config\.json: no published autoencoder has the name 'dc-ae-f31c32'; did you mean"
    ):
        load_autoencoder(str(tmp_path))
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(ConfigError, match=r"config\.json is not a JSON object"):
        load_autoencoder(str(tmp_path))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(StorageError, match=r"holds no weights: expected diffusion_pytorch_model\.safetensors"):
        load_autoencoder(str(tmp_path))
