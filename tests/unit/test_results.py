"""The report is gathered from artifacts alone, with or without generated images."""

from pathlib import Path

import pytest

from dcae15 import artifacts
from dcae15.config import build, from_overrides
from dcae15.evaluation.measure import evaluate
from dcae15.orchestration.plan import Stage
from dcae15.orchestration.results import gather
from tests.unit.evaluation.test_measure import autoencoder, image_set
from tests.unit.report.conftest import html_of


def test_what_was_measured_on_the_way_is_shown(tmp_path: Path):
    rows = (
        {"images": 64_000.0, "frechet_distance.generated": 7.31},
        {"images": 1.28e5, "frechet_distance.generated": 2.5},
    )
    artifacts.Milestones(str(tmp_path / "milestones"), "f" * 16, rows).commit()
    images = image_set(tmp_path / "images", {"train": 40, "val": 24})
    arms = {"structured": autoencoder(tmp_path / "autoencoder", 8, (2, 8))}
    config = build([from_overrides([f"storage={tmp_path}", "evaluation.feature_images=64"])])[0]
    uri = str(tmp_path / "evaluation")
    evaluate(config, images=images, autoencoders=arms, uri=uri, fingerprint="f" * 16, say=lambda _: None)
    stages = [
        Stage("measure_milestones", "milestones", "f" * 16, str(tmp_path / "milestones"), {}),
        Stage("evaluate", "evaluation", "f" * 16, uri, {"images": images}),
    ]
    page = html_of(gather(config, stages, {}))
    assert "<h2>Quality over training</h2>" in page
    assert '<td class="number">128,000</td><td class="number">2.50</td>' in page
    assert "<h2>Quality over training</h2>" not in html_of(gather(config, stages[1:], {}))


@pytest.mark.parametrize("generated", [True, False])
def test_a_report_shows_what_was_measured(tmp_path: Path, generated: bool):
    images = image_set(tmp_path / "images", {"train": 40, "val": 24})
    arms = {arm: autoencoder(tmp_path / arm, 8, (2, 8)) for arm in ("structured", "baseline")}
    config = build(
        [from_overrides([f"storage={tmp_path}", "evaluation.feature_images=64", "evaluation.grid_images=2"])]
    )[0]
    config.evaluation.full_channel_gap_db = -1.0  # nobody may be that good: a warning for certain
    samples = {"samples": image_set(tmp_path / "samples", {"generated": 12})} if generated else {}
    uri = str(tmp_path / "evaluation")
    evaluate(config, images=images, autoencoders=arms, uri=uri, fingerprint="f" * 16, say=lambda _: None, **samples)
    stages = [Stage("evaluate", "evaluation", "f" * 16, uri, {"images": images, **samples})]
    data = gather(config, stages, {})
    assert data.prefixes == {"structured": [1, 2, 4, 8], "baseline": [1, 2, 4, 8]}
    for by_arm in (data.reconstruction, data.structure, data.channels, data.grids):
        assert list(by_arm) == ["structured", "baseline"], "in reading order, which JSON does not keep"
    assert set(data.grids) == set(data.channel_means) == set(data.arm_summary) == set(arms)
    assert [warning for warning in data.warnings if warning.startswith("structure costs too much")]
    assert bool(data.samples) == bool(data.generation) == generated
    page = html_of(data)
    assert "Objects over the channels" in page
    assert ("<h2>Generation</h2>" in page) == generated
