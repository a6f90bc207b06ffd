"""One Ray Train worker or two: the same order of images, the same draws, the same result up to the order of sums."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.scripts import TINY, Done, Workplace, workplace

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

BASE = ["--config", str(TINY), "arms=[]", "autoencoder.training.log_images=16"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory):
    with workplace(tmp_path_factory.mktemp("workers") / "cwd") as place:
        yield place


@pytest.fixture(scope="module")
def images(place: Workplace) -> Callable[[Path], None]:
    """Give a storage the same prepared images."""
    done = place.run("prepare_images", *BASE, f"storage={place.folder / 'images'}")
    assert done.code == 0, done.err

    def give(root: Path) -> None:
        root.mkdir()
        (root / "images").symlink_to(place.folder / "images" / "images")

    return give


def train(place: Workplace, root: Path, *words: str) -> Done:
    return place.run("train_autoencoder", *BASE, f"storage={root}", *words)


def result(root: Path) -> tuple[list[float], dict[str, torch.Tensor]]:
    (folder,) = (root / "autoencoder").iterdir()
    losses = [json.loads(line)["loss"] for line in (folder / "history.jsonl").read_text().splitlines()]
    return losses, load_file(folder / "weights_raw.safetensors")


@pytest.mark.parametrize("per", ["sample", "step"])
def test_two_workers_train_what_one_and_the_driver_train(place, images, tmp_path, per):
    results = []
    for workers in (1, 2, 0):  # 0: in the driver itself, on all CPUs
        root = tmp_path / f"{workers}"
        images(root)
        words = [f"scaling.num_workers={workers}", "scaling.cpus_per_worker=1"] if workers else []
        done = train(place, root, f"autoencoder.prefix.per={per}", *words)
        assert done.code == 0, done.err
        results.append(result(root))
    (one_losses, one), *others = results
    assert len(one_losses) == 40, "a row for every step: another order of images would show at once"
    # Float32 sums in another order: about 1e-7 a step, grown by AdamW where gradients are tiny.
    for losses, weights in others:
        assert losses == pytest.approx(one_losses, rel=2e-4)
        for name, expected in one.items():
            torch.testing.assert_close(
                weights[name], expected, rtol=5e-3, atol=5e-4, msg=lambda text, name=name: f"{name}: {text}"
            )


def test_a_gradient_that_explodes_is_one_sentence_and_no_retries(place, images, tmp_path):
    root = tmp_path / "storage"
    images(root)
    done = train(place, root, "autoencoder.training.learning_rate=1e12", "autoencoder.training.clip_norm=0")
    assert done.code == 1
    assert "error: train_autoencoder: the gradient is not finite after" in done.err
    assert "Traceback" not in done.err


def test_more_workers_than_the_machine_has_is_said_at_once(place, images, tmp_path):
    root = tmp_path / "storage"
    images(root)
    done = train(place, root, "scaling.num_workers=512", "autoencoder.training.batch_size=512")
    assert done.code == 2
    assert "scaling.num_workers=512" in done.err
