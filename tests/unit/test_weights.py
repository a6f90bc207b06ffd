import argparse
import io
import logging
import pickle
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file

from dcae15.errors import StorageError, WeightsError
from dcae15.weights import parse_state_dict, read_state_dict, require_finite
from dcae15.weights.choice import Wanted

LAST, AVERAGE = {"a.weight": torch.tensor([1.0, 2.0])}, {"a.weight": torch.tensor([3.0, 4.0])}
OTHER = {"unet.in.weight": torch.zeros(3), "unet.out.weight": torch.zeros(3)}
NETWORK = Wanted("weights of a", lambda name: name.startswith("a."), "a.weight", parts=("a", "quant"))


def torch_bytes(value) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def prefixed(beginning, weights=LAST):
    return {beginning + name: value for name, value in weights.items()}


def read(value, **asked):
    return parse_state_dict(torch_bytes(value), "w.pt", wanted=NETWORK, **asked)


def refused(value, **asked) -> str:
    with pytest.raises(WeightsError) as error:
        parse_state_dict(value if isinstance(value, bytes) else torch_bytes(value), "w.pt", **asked)
    return str(error.value)


# ------------------------------------------------------------------------------------------------ what kind of file it is


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.ckpt", "w.bin", "w.safetensors", "blobs/0123abcd"])
def test_content_decides_what_a_file_is_whatever_its_name_says(tmp_path, name):
    (tmp_path / "blobs").mkdir()
    path = tmp_path / name
    for data in (torch_bytes({"state_dict": LAST, "epoch": 3}), save(LAST)):
        path.write_bytes(data)
        assert read_state_dict(str(path))["a.weight"].tolist() == [1, 2]


def test_files_of_torch_before_1_6_are_read(tmp_path):
    torch.save({"state_dict": LAST}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert read_state_dict(str(tmp_path / "old.pth"))["a.weight"].tolist() == [1, 2]


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 1248963412\n"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (LFS, ["git-lfs pointer", "1,248,963,412 bytes", "git lfs pull"]),
        (b"", ["it is empty"]),
        (bytes(4096), ["it is empty", "bytes are 0"]),
        (
            b"<!DOCTYPE html>\n<html><head><title>Sign in\n - Hub</title>",
            ["a web page titled 'Sign in - Hub'", "/resolve/"],
        ),
        (b'{"error": "Repository not found"}', ['JSON that begins with \'{"error": "Repository not found"}\'']),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', ["XML", "AccessDenied"]),
        (b"Entry not found", ["a text that begins with 'Entry not found'"]),
        (b"\x1f\x8b\x08\x00" + bytes(range(40)), ["gzip: unpack it"]),
        (b"GGUF\x03\x00\x00\x00", ["a GGUF file"]),
        (b"\x01\x02\x03\x04\xff\xfe\xfd\xfc", ["neither a safetensors nor a torch file", "01 02 03 04"]),
        (torch_bytes(LAST)[:200], ["truncated or damaged (200 bytes)"]),
        (save(LAST).replace(b"F32", b"F4 "), ["a safetensors file that"]),
        (save(LAST)[:-1], ["a safetensors file that is truncated"]),
        (pickle.dumps({"a": np.zeros(3)}), ["never unpickled"]),
    ],
)
def test_what_lies_in_the_place_of_weights_is_said(data, words):
    message = refused(data)
    assert message.startswith("w.pt ") and "remove" not in message.lower()
    for word in words:
        assert word in message, message


def test_other_archives_are_named_by_what_they_hold():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("model/config.json", "model/a.safetensors", "README.md", "LICENSE"):
            archive.writestr(name, b"x")
    message = refused(buffer.getvalue())
    assert "a zip archive of 4 files (model/config.json, model/a.safetensors, README.md and 1 more)" in message
    assert "unpack it" in message
    arrays = io.BytesIO()
    np.savez(arrays, a=np.zeros(3))
    assert "numpy arrays (.npz)" in refused(arrays.getvalue())
    scripted = io.BytesIO()
    with zipfile.ZipFile(scripted, "w") as archive:
        for name in ("net/data.pkl", "net/code/__torch__/net.py", "net/constants.pkl"):
            archive.writestr(name, b"x")
    assert "a TorchScript archive" in refused(scripted.getvalue())


def test_python_objects_are_named_and_how_to_do_without():
    message = refused({"state_dict": LAST, "args": argparse.Namespace(lr=1)})
    assert "argparse.Namespace" in message and "never unpickled" in message and "save_file" in message


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(StorageError, match="does not exist"):
        read_state_dict(str(tmp_path / "nowhere.pt"))


# ------------------------------------------------------------------------------------------- which of several state dicts


@pytest.mark.parametrize(
    "top", [None, "state_dict", "model_state_dict", "model", "module", "net", "generator", "params"]
)
def test_a_state_dict_lies_at_the_top_or_below_an_entry(top, caplog):
    value = LAST if top is None else {top: LAST, "step": 3, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}}
    assert parse_state_dict(torch_bytes(value), "w.pt")["a.weight"].tolist() == [1, 2]
    assert read(value)["a.weight"].tolist() == [1, 2]
    assert not caplog.records


@pytest.mark.parametrize(
    "beginning",
    [
        "module.",
        "_orig_mod.",
        "model.",
        "autoencoder.",
        "vae.",
        "module._orig_mod.",
        "whatever.they.",
        "first_stage_model.",
    ],
)
def test_beginnings_that_all_names_share_are_left_out(beginning, caplog):
    for value in (
        prefixed(beginning),
        {"state_dict": prefixed(beginning)},
        {"model": {"state_dict": prefixed(beginning)}},
    ):
        assert {name: t.tolist() for name, t in read(value).items()} == {"a.weight": [1, 2]}
    data = save(prefixed(beginning))
    assert list(parse_state_dict(data, "w.pt", wanted=NETWORK)) == ["a.weight"]
    assert not caplog.records


def test_of_several_networks_the_one_that_fits_is_taken_and_the_others_are_named(caplog):
    value = {"state_dict": prefixed("vae.") | OTHER | {"quant.weight": torch.ones(1), "logvar": torch.ones(1)}}
    assert list(read(value)) == ["a.weight"]
    assert not caplog.records, "other beginnings hide nothing of it"
    weights = read({"state_dict": LAST | OTHER | {"quant.weight": torch.ones(1)}})
    assert list(weights) == ["a.weight", "quant.weight"], "a part of the network is never dropped"
    (record,) = caplog.records
    assert record.getMessage() == "w.pt: left out what is not of the weights of a: unet (2 tensors)"


def test_what_a_file_holds_is_said_where_nothing_fits():
    message = refused(
        {"state_dict": {**prefixed("first_stage_model.encoder.down.", {"0.w": torch.ones(1)}), **OTHER}}, wanted=NETWORK
    )
    assert "holds no weights of a (names such as a.weight): it has 3 tensors, of " in message
    assert "state_dict.unet.in (1)" in message and "state_dict.first_stage_model.encoder (1)" in message
    for value, words in (
        ({"a": [1, 2], "epoch": 3}, "a dictionary of a (list), epoch (int)"),
        ([1, 2], "a value of type list"),
        ({}, "an empty dictionary"),
        (torch.zeros(2, 3), "one tensor of shape (2, 3) without a name"),
    ):
        assert (
            f"does not hold a state dict (names and tensors) at its top or under an entry: it has {words}"
            in refused(value)
        )


def test_values_that_are_no_tensors_are_told(caplog):
    assert list(read({"state_dict": {**LAST, "epoch": 3, "lr": 0.1}, "global_step": 7})) == ["a.weight"]
    (record,) = caplog.records
    assert record.getMessage() == "w.pt: left out epoch, lr, which are no tensors"


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ({"state_dict": LAST, "ema_state_dict": AVERAGE}, "ema_state_dict"),
        ({"state_dict": LAST, "model_ema": AVERAGE}, "model_ema"),
        ({"model": LAST, "ema": AVERAGE}, "ema"),
        ({"model": LAST, "ema": {"module": AVERAGE}}, "ema.module"),
        ({"params": LAST, "params_ema": AVERAGE}, "params_ema"),
        ({"network": LAST, "average": AVERAGE}, "average"),
        ({"online_model.a.weight": LAST["a.weight"], "ema_model.a.weight": AVERAGE["a.weight"]}, "ema_model"),
        ({"state_dict": {**prefixed("model."), "model_ema.aweight": AVERAGE["a.weight"]}}, "state_dict.model_ema"),
        (
            {"state_dict": {**LAST, "model_ema.aweight": AVERAGE["a.weight"], "model_ema.decay": torch.ones(1)}},
            "state_dict.model_ema",
        ),
    ],
)
def test_the_last_weights_are_never_taken_in_silence(value, name, caplog):
    assert read(value)["a.weight"].tolist() == [1, 2]
    (record,) = caplog.records
    assert "took the last weights (" in record.getMessage() and f"({name})" in record.getMessage()
    assert "for which give w.pt#ema, or ema=True in Python" in record.getMessage()
    for asked in ({"ema": True}, {"entry": "ema"}, {"entry": name}):
        assert read(value, **asked)["a.weight"].tolist() == [3, 4]
    assert len(caplog.records) == 1, "who asks is not told"


def test_moving_averages_are_named_by_their_decay(caplog):
    value = {"model_state_dict": LAST, "ema": {0.999: AVERAGE, 0.9999: LAST}}
    data = torch_bytes(value)
    assert parse_state_dict(data, "w.pt")["a.weight"].tolist() == [1, 2]
    assert "(ema.0.999, ema.0.9999), for which give w.pt#ema=0.999, or ema=0.999 in Python" in caplog.text
    for asked in ({"ema": 0.999}, {"entry": "ema=0.999"}, {"entry": "ema.0.999"}):
        assert parse_state_dict(data, "w.pt", **asked)["a.weight"].tolist() == [3, 4]
        assert read(value, **asked)["a.weight"].tolist() == [3, 4]
    assert "no moving average of decay 0.99: it has 0.999, 0.9999" in refused(value, ema=0.99)
    assert "several moving averages: ema.0.999, ema.0.9999; say which, as in w.pt#ema=0.999" in refused(value, ema=True)
    single = {"model": LAST, "ema": AVERAGE}
    assert "no moving average of decay 0.9: it has ema, whose decay it does not say" in refused(single, ema=0.9)
    for none in (torch_bytes({"model": LAST}), save(LAST)):
        assert "no moving average of decay 0.99: it has none under 'ema'" in refused(none, ema=0.99)
    assert "w.pt#ema asks for one of its state dicts, and ema=0.9 for another" in refused(single, ema=0.9, entry="ema")
    assert "has no weights under 'teacher': it has model, ema; name one" in refused(single, entry="teacher")


def test_a_file_of_averages_alone_and_several_networks_alike(caplog):
    assert read({"ema": AVERAGE, "step": 3})["a.weight"].tolist() == [3, 4]
    assert "took the moving average ema; there are no other weights" in caplog.text
    alike = {"teacher": LAST, "student": AVERAGE}
    assert "several state dicts that would fit: teacher, student; say which, as in w.pt#teacher" in refused(
        alike, wanted=NETWORK
    )
    assert read(alike, entry="student")["a.weight"].tolist() == [3, 4]
    assert read({"model": LAST, "teacher": AVERAGE})["a.weight"].tolist() == [1, 2]
    assert "took model; it also holds teacher, for which give w.pt#teacher" in caplog.text


def test_averages_without_names_are_told(caplog):
    value = {
        "model": LAST,
        "optimizer": {"x": [torch.ones(1)]},
        "ema": {"decay": 0.999, "shadow_params": [torch.ones(2)] * 3},
    }
    assert read(value)["a.weight"].tolist() == [1, 2]
    (record,) = caplog.records
    told = "ema.shadow_params (3 tensors without names)"
    assert record.getMessage().endswith(f"which tensor is which in the moving average cannot be told: {told}")
    assert f"it has model, {told}" in refused(value, ema=True, wanted=NETWORK)


def test_shards_are_joined_before_anything_is_chosen(tmp_path):
    save_file({"vae.a.weight": LAST["a.weight"]}, tmp_path / "1.safetensors")
    save_file({"vae.a.bias": LAST["a.weight"]}, tmp_path / "2.safetensors")
    files = [str(tmp_path / f"{i}.safetensors") for i in (1, 2)]
    assert sorted(read_state_dict(files, wanted=NETWORK)) == ["a.bias", "a.weight"]
    torch.save([1], tmp_path / "3.bin")
    with pytest.raises(WeightsError, match=r"3\.bin is no shard of a state dict: it has a value of type list"):
        read_state_dict([*files, str(tmp_path / "3.bin")])


# ---------------------------------------------------------------------------------------------------------- finite values


@pytest.mark.parametrize(
    ("values", "dtype", "words"),
    [
        (
            [1, float("nan"), float("inf"), float("nan")],
            torch.float32,
            ["2 NaN and 1 infinite values among the 4", "diverged"],
        ),
        ([1, float("inf"), 7e4, 2], torch.float16, ["2 infinite values", "(float16)", "65,504 overflow", "bfloat16"]),
        ([1, -float("inf"), 3, 4], torch.float32, ["1 infinite values", "overflowed in training"]),
        ([1, 1e40, 3, 4], torch.float64, ["1 infinite values", "(float64)", "overflow in float32"]),
        ([1, float("nan"), 3, 4], torch.bfloat16, ["1 NaN", "(bfloat16)", "diverged"]),
        ([1, float("nan"), 3, 4], torch.float8_e4m3fn, ["1 NaN", "(float8_e4m3fn)"]),
    ],
)
def test_nan_is_told_from_overflow(values, dtype, words):
    weights = {
        "a.fine": torch.ones(2),
        "a.bad": torch.tensor(values, dtype=torch.float64).to(dtype),
        "a.n": torch.tensor(3),
    }
    with pytest.raises(WeightsError) as error:
        require_finite(weights, "w.pt")
    message = str(error.value)
    assert message.startswith("w.pt holds weights that are not finite") and "'a.bad'" in message
    for word in words:
        assert word in message, message
    assert ("float32 or" in message) == (dtype == torch.float16), "only overflow is mended by another type"
    with pytest.raises(WeightsError, match="and 1 more of 4 tensors have some"):
        require_finite({**weights, "a.worse": weights["a.bad"]}, "w.pt")
    require_finite({"a": torch.ones(2), "b": torch.tensor([1], dtype=torch.int64)}, "w.pt")


@pytest.fixture(autouse=True)
def _warnings(caplog):
    caplog.set_level(logging.WARNING)
