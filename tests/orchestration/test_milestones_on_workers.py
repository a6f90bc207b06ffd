"""Milestones where Ray's workers train: in parts, measured between them, as the evaluation measures the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from dcae15 import storage
from dcae15.artifacts import Evaluation, Milestones
from tests.scripts import TINY, Done, Workplace, workplace

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

WORDS = ["--config", str(TINY), "baseline=false", "autoencoder.training.images=64", "diffusion.milestones=[100,640]"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory):
    with workplace(tmp_path_factory.mktemp("milestones") / "cwd") as place:
        yield place


@pytest.fixture(scope="module")
def full(place: Workplace) -> Done:
    done = place.run("full", *WORDS, f"storage={place.folder / 'storage'}", "scaling.num_workers=2")
    assert done.code == 0, done.err
    return done


def latest(place: Workplace) -> dict[str, str]:
    return storage.read_json(str(place.folder / "storage" / "latest.json"))


def test_milestones_are_measured_between_the_parts_of_the_training(place, full):
    lines = full.out.splitlines()
    assert any(line.startswith("denoiser: continues at 112 images") for line in lines)
    rows = Milestones.open(latest(place)["measure_milestones"]).rows
    assert [row["images"] for row in rows] == [112, 640]
    generated = Evaluation.open(latest(place)["evaluate"]).generation
    last = {name.removesuffix(".generated"): value for name, value in rows[-1].items() if name != "images"}
    assert last == {name: pytest.approx(generated[name], rel=1e-3, abs=1e-6) for name in last}
    assert lines.count("features: training the network on 640 images") == 1, "milestones and evaluation share it"


def test_the_script_measures_what_is_not_measured_yet(place, full):
    words = (*WORDS, f"storage={place.folder / 'storage'}", "sampling.seed=1")
    measured = place.run("measure_milestones", *words)
    assert measured.code == 0, measured.err
    assert measured.stages("runs") == ["measure_milestones"]
    (uri,) = [line.split()[1] for line in measured.out.splitlines() if line.startswith("artifact: ")]
    assert [row["images"] for row in Milestones.open(uri).rows] == [112, 640]
    assert Path(uri) != Path(latest(place)["measure_milestones"])
    assert "next: python pipelines/sample.py" in measured.out
    assert place.run("train_diffusion", *words).out.count("measure_milestones.py") == 1
