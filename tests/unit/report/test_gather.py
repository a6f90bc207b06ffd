"""The report is gathered from artifacts alone, with or without generated images."""

from dataclasses import replace
from pathlib import Path

import pytest

from dcae15 import artifacts
from dcae15.config import Config, build, from_overrides
from dcae15.evaluation.evaluate_run import evaluate
from dcae15.report.data import Made
from dcae15.report.figures import pictures
from dcae15.report.gather import gather
from dcae15.report.html import render
from tests.unit.evaluation.test_evaluate_run import autoencoder, image_set


def configured(root: Path) -> Config:
    return build([from_overrides([f"storage={root}", "evaluation.feature_images=64", "evaluation.grid_images=2"])])[0]


def made(name: str, uri: str, **inputs: str) -> Made:
    return Made(name, uri, "f" * 16, inputs, {"images": "as planned"}, "done", 2.5)


def test_what_was_measured_on_the_way_is_shown(tmp_path: Path):
    rows = (
        {"images": 64_000.0, "frechet_distance.generated": 7.31},
        {"images": 1.28e5, "frechet_distance.generated": 2.5},
    )
    artifacts.Milestones(str(tmp_path / "milestones"), "f" * 16, rows).commit()
    images = image_set(tmp_path / "images", {"train": 40, "val": 24})
    arms = {"structured": autoencoder(tmp_path / "autoencoder", 8, (2, 8))}
    config = configured(tmp_path)
    uri = str(tmp_path / "evaluation")
    evaluate(config, images=images, autoencoders=arms, uri=uri, fingerprint="f" * 16, say=lambda _: None)
    steps = [made("measure_milestones", str(tmp_path / "milestones")), made("evaluate", uri, images=images)]
    data = gather(config, steps)
    assert [(stage.name, stage.status, stage.seconds) for stage in data.stages][1] == ("evaluate", "done", 2.5)
    assert data.stages[1].facts["images"] == "as planned"
    page = render(data, pictures(data))
    assert "<h2>Quality over training</h2>" in page
    assert '<td class="number">128,000</td><td class="number">2.50</td>' in page
    assert "<h2>Quality over training</h2>" not in render(gather(config, steps[1:]), pictures(data))


@pytest.mark.parametrize("generated", [True, False])
def test_a_report_shows_what_was_measured(tmp_path: Path, generated: bool):
    images = image_set(tmp_path / "images", {"train": 40, "val": 24})
    arms = {arm: autoencoder(tmp_path / arm, 8, (2, 8)) for arm in ("structured", "baseline")}
    config = configured(tmp_path)
    config.evaluation.full_channel_gap_db = -1.0  # nobody may be that good: a warning for certain
    samples = {"samples": image_set(tmp_path / "samples", {"generated": 12})} if generated else {}
    uri = str(tmp_path / "evaluation")
    evaluate(config, images=images, autoencoders=arms, uri=uri, fingerprint="f" * 16, say=lambda _: None, **samples)
    steps = []
    for arm, trained in arms.items():
        (Path(trained) / artifacts.HISTORY).write_text('{"images": 64, "loss": 0.5}\n')
        steps.append(replace(made(f"train_{arm}", trained), figure="training_autoencoder", label=arm))
    data = gather(config, [*steps, made("evaluate", uri, images=images, **samples)])
    assert data.histories == {"training_autoencoder": {arm: [{"images": 64, "loss": 0.5}] for arm in arms}}
    assert data.prefixes == {"structured": [1, 2, 4, 8], "baseline": [1, 2, 4, 8]}
    for by_arm in (data.reconstruction, data.structure, data.channels, data.grids):
        assert list(by_arm) == ["structured", "baseline"], "in reading order, which JSON does not keep"
    assert set(data.grids) == set(data.channel_means) == set(data.arm_summary) == set(arms)
    assert [warning for warning in data.warnings if warning.startswith("structure costs too much")]
    assert bool(data.samples) == bool(data.generation) == generated
    page = render(data, pictures(data))
    assert "Objects over the channels" in page
    assert ("<h2>Generation</h2>" in page) == generated


@pytest.mark.parametrize("val", [0, 1])
def test_a_report_of_few_images_says_what_was_left_out(tmp_path: Path, val: int):
    artifacts.Milestones(str(tmp_path / "milestones"), "f" * 16, ({"images": 64.0},)).commit()
    images = image_set(tmp_path / "images", {"train": 40, "val": val})
    arms = {arm: autoencoder(tmp_path / arm, 8, (2, 8)) for arm in ("structured", "baseline")}
    config, uri, samples = (
        configured(tmp_path),
        str(tmp_path / "evaluation"),
        image_set(tmp_path / "s", {"generated": 4}),
    )
    evaluate(
        config, images=images, autoencoders=arms, uri=uri, fingerprint="f" * 16, samples=samples, say=lambda _: None
    )
    steps = [made("measure_milestones", str(tmp_path / "milestones")), made("evaluate", uri, images=images)]
    data = gather(config, steps)
    page = render(data, pictures(data))
    assert ("every measure is left out" in page) == (val == 0)
    assert ("the Fréchet distance of generated images is left out" in page) == (val == 1)
    assert bool(data.reconstruction) == bool(data.grids) == (val == 1)
    assert data.samples, "what was generated is shown whatever was measured"
    assert "<h2>Quality over training</h2>" not in page
