"""Checkpoints: the newest good one wins, and a damaged one is left behind."""

from pathlib import Path

import pytest
import torch

from dcae15.errors import StorageError
from dcae15.training.checkpoint import Checkpoints


def saved(folder: Path, *positions: int, keep: int = 2) -> Checkpoints:
    checkpoints = Checkpoints(str(folder), keep)
    for position in positions:
        checkpoints.save(position, {"images_seen": position, "weights": torch.full((4,), float(position))})
    return checkpoints


def damage(folder: Path, position: int) -> None:
    path = folder / f"{position:012d}.pt"
    path.write_bytes(path.read_bytes()[:-10])


def names(folder: Path) -> list[int]:
    return sorted(int(path.stem) for path in folder.glob("*.pt"))


def test_the_newest_wins_and_old_ones_go(tmp_path):
    checkpoints = saved(tmp_path, 16, 32, 48)
    assert names(tmp_path) == [32, 48]
    assert checkpoints.latest()["images_seen"] == 48
    assert checkpoints.latest()["weights"].tolist() == [48.0] * 4


def test_without_checkpoints_there_is_none(tmp_path):
    assert Checkpoints(str(tmp_path)).latest() is None


@pytest.mark.parametrize("keep", [1, 2])
def test_new_checkpoints_survive_damaged_ones_of_more_images(tmp_path, keep):
    checkpoints = saved(tmp_path, 480, 496, keep=2)
    damage(tmp_path, 480)
    damage(tmp_path, 496)
    checkpoints = Checkpoints(str(tmp_path), keep)
    assert checkpoints.latest() is None
    for position in (16, 32, 48):
        checkpoints.save(position, {"images_seen": position})
        assert checkpoints.latest() == {"images_seen": position}
    assert names(tmp_path) == [16, 32, 48][-keep:]


def test_a_storage_that_does_not_answer_is_not_taken_for_damage(tmp_path, monkeypatch):
    from dcae15 import storage

    checkpoints = saved(tmp_path, 16, 32)

    def refuse(uri: str) -> bytes:
        raise StorageError(f"{uri}: timed out")

    monkeypatch.setattr(storage, "read_bytes", refuse)
    with pytest.raises(StorageError, match="timed out"):
        checkpoints.latest()
