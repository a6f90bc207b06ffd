"""24 photographs of one class, a storage with an odd name, two workers: the run ends with a report, all in that folder."""

from __future__ import annotations

import html
import re
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from dcae15 import artifacts
from tests.scripts import TINY, Done, Workplace

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1200)]

ODD = "100% real?#1 a%20b"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, draw = tmp_path_factory.mktemp("few") / "cat", np.random.default_rng(0)
    folder.mkdir()
    for i in range(24):
        small = Image.fromarray(draw.integers(0, 255, (4, 4, 3), dtype=np.uint8))
        small.resize((48, 40), Image.Resampling.BICUBIC).save(folder / f"{i:02d}.jpg")
    return folder.parent


@pytest.fixture(scope="module")
def words(photographs: Path) -> tuple[str, ...]:
    lengths = [
        f"{name}.training.{field}"
        for name in ("autoencoder", "diffusion")
        for field in ("images=64", "warmup_images=0", "log_images=64", "checkpoint_images=64")
    ]
    return (
        *("--config", str(TINY), f"data.source={photographs}", "arms=[]", *lengths),
        *("diffusion.milestones=[32]", "scaling.num_workers=2", "evaluation.feature_images=64", "sampling.images=8"),
    )


@pytest.fixture(scope="module")
def done(place: Workplace, words: tuple[str, ...]) -> Done:
    (place.folder / "all").mkdir()
    done = place.run("full", *words, f"storage=all/{ODD}")
    assert done.code == 0, done.out + done.err
    return done


def test_everything_is_measured_on_four_that_are_held_out(done: Done, place: Workplace):
    assert "20 training and 4 validation images of 1 class" in done.out
    assert "left out" not in done.out
    (uri,) = (place.folder / "all" / ODD / "evaluation").iterdir()
    measured = artifacts.Evaluation.open(str(uri)).generation
    assert measured["images"] == 4 and {"frechet_distance", "precision", "recall"} <= measured.keys()


def test_all_of_it_lies_in_that_folder(done: Done, place: Workplace):
    assert [path.name for path in (place.folder / "all").iterdir()] == [ODD]
    assert [path.name for path in place.folder.iterdir()] == ["all"]
    assert "tracking failed" not in done.err and "retried" not in done.err
    root = place.folder / "all" / ODD
    assert (root / "mlflow.db").stat().st_size > 0 and list((root / "mlflow-artifacts").rglob("report.html"))
    assert not list((root / ".ray").glob("*")), "Ray's own notes are gone"


def test_the_links_of_its_report_lead_there(done: Done, place: Workplace):
    (page,) = (place.folder / "all" / ODD / "reports").rglob("report.html")
    links = [html.unescape(link) for link in re.findall(r'href="file://([^"]+)"', page.read_text())]
    assert len(links) >= 5
    assert all(Path(unquote(link), "manifest.json").is_file() for link in links)


def test_the_same_command_finds_all_of_it_again(done: Done, place: Workplace, words: tuple[str, ...]):
    again = place.run_here("full", *words, f"storage={place.folder}/all/{ODD}")
    assert again.code == 0 and again.stages("reused") == ["prepare_images", *done.stages("runs")[1:]], (
        again.out + again.err
    )


def test_a_variable_is_expanded_before_the_storage_is_tried(done: Done, place: Workplace, words: tuple[str, ...]):
    place.variables["WHERE"] = str(place.folder / "all")
    assert place.run_here("full", *words, f"storage=$WHERE/x/../{ODD}").code == 0
    assert [path.name for path in (place.folder / "all").iterdir()] == [ODD]


def test_what_more_neighbours_would_need_is_said_by_a_dry_run(done: Done, place: Workplace, words: tuple[str, ...]):
    planned = place.run_here("full", *words, f"storage=all/{ODD}", "evaluation.neighbours=5", "--dry-run")
    notes = [line.split("note: ")[1] for line in planned.out.splitlines() if "note: " in line]
    assert len(notes) == 2 and all("evaluation.neighbours 5 needs 6 images of each" in note for note in notes)
    assert all("lower evaluation.neighbours below 4, and only the measuring runs again" in note for note in notes)
