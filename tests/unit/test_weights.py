import pytest
import torch
from safetensors.torch import save_file

from dcae15.errors import StorageError, WeightsError
from dcae15.weights import is_weights_file, read_state_dict

LAST, AVERAGE = {"a.weight": torch.tensor([1.0, 2.0])}, {"a.weight": torch.tensor([3.0, 4.0])}


def test_files_are_known_by_their_names():
    assert [is_weights_file(f"s3://b/x{end}") for end in (".pt", ".pth", ".safetensors", ".bin", "")] == [True] * 3 + [
        False
    ] * 2


@pytest.mark.parametrize("top", [None, "state_dict", "model_state_dict"])
def test_a_torch_file_holds_tensors_at_its_top_or_one_key_below(tmp_path, top):
    torch.save(LAST if top is None else {top: LAST, "step": 3}, tmp_path / "w.pt")
    assert read_state_dict(str(tmp_path / "w.pt"))["a.weight"].tolist() == [1, 2]


def test_a_checkpoint_s_moving_average_is_named_by_its_decay(tmp_path):
    path = str(tmp_path / "checkpoint.pt")
    torch.save({"model_state_dict": LAST, "ema": {0.999: AVERAGE}}, path)
    assert read_state_dict(path)["a.weight"].tolist() == [1, 2]
    assert read_state_dict(path, ema=0.999)["a.weight"].tolist() == [3, 4]
    with pytest.raises(WeightsError, match=r"no moving average of decay 0\.99: it has 0\.999"):
        read_state_dict(path, ema=0.99)
    save_file(LAST, tmp_path / "w.safetensors")
    assert read_state_dict(str(tmp_path / "w.safetensors"))["a.weight"].tolist() == [1, 2]
    with pytest.raises(WeightsError, match="no moving averages"):
        read_state_dict(str(tmp_path / "w.safetensors"), ema=0.999)


def test_what_is_no_weights_file_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="ending with"):
        read_state_dict(str(tmp_path / "w.bin"))
    with pytest.raises(StorageError):
        read_state_dict(str(tmp_path / "nowhere.pt"))
    torch.save({"a": [1, 2]}, tmp_path / "list.pt")
    with pytest.raises(WeightsError, match="does not hold a state dict"):
        read_state_dict(str(tmp_path / "list.pt"))
