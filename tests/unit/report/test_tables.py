import dataclasses

import pytest

from dcae15.report.data import ReportData
from dcae15.report.measures import MEASURES, RECONSTRUCTION, STRUCTURE, SUMMARY
from dcae15.report.tables import overview
from tests.unit.report.conftest import html_of
from tests.unit.report.test_html import Page


def with_rows(data: ReportData, **arms: dict[int, dict[str, float]]) -> ReportData:
    rows = {arm: [{"prefix": c, **values} for c, values in at.items()] for arm, at in arms.items()}
    return dataclasses.replace(data, reconstruction=rows, structure={}, arm_summary={})


def marked(curve: dict, row: int) -> list[tuple[str, bool]]:
    return [(cell["text"], cell["best"]) for cell in curve["rows"][row]["cells"]]


def test_every_measure_has_a_meaning_and_a_source():
    for key in (*RECONSTRUCTION, *STRUCTURE, *SUMMARY):
        assert MEASURES[key].definition.endswith(".") and MEASURES[key].source, key


def test_the_best_arm_is_marked_in_the_direction_of_the_measure(data: ReportData):
    table = overview(
        with_rows(
            data,
            structured={4: {"psnr": 20.0, "frechet_distance": 2.0}, 32: {"psnr": 26.0, "frechet_distance": 1.0}},
            baseline={4: {"psnr": 15.0, "frechet_distance": 9.0}, 32: {"psnr": 27.0, "frechet_distance": 1.02}},
        )
    )
    psnr, distance = table["curves"]
    assert [row["prefix"] for row in psnr["rows"]] == ["4", "32"]
    assert marked(psnr, 0) == [("20.00", True), ("15.00", False)]
    assert marked(psnr, 1) == [("26.00", False), ("27.00", True)]
    assert marked(distance, 0) == [("2.00", True), ("9.00", False)]
    assert marked(distance, 1) == [("1.00", False), ("1.02", False)], "within the noise nobody is ahead"


def test_arms_of_other_sizes_stand_at_their_own_share(data: ReportData):
    ours = {c: {"psnr": float(c)} for c in (4, 8, 32)}
    theirs = {c: {"psnr": float(c)} for c in (16, 32, 64, 128)}
    (curve,) = overview(with_rows(data, ours=ours, theirs=theirs))["curves"]
    assert [row["prefix"] for row in curve["rows"]] == ["4 / 16", "8 / 32", "32 / 128"]
    assert [cell["text"] for cell in curve["rows"][0]["cells"]] == ["4.00", "16.00"]


def test_what_was_not_measured_takes_no_line_and_gaps_are_dashes(data: ReportData):
    table = overview(with_rows(data, ours={32: {"psnr": 20.0, "lpips": float("nan")}}, theirs={32: {}}))
    assert [curve["measure"].label for curve in table["curves"]] == ["PSNR"]
    assert marked(table["curves"][0], 0) == [("20.00", False), ("–", False)]
    assert table["summary"] == []


def test_neither_direction_is_better_for_the_effective_rank(data: ReportData):
    rank = overview(data)["curves"][-1]
    assert rank["measure"].label == "Effective rank"
    assert not any(cell["best"] for row in rank["rows"] for cell in row["cells"])


def test_three_arms_stand_side_by_side_on_the_page(data: ReportData):
    names = ("reconstruction", "structure", "channels", "arm_summary", "channel_means", "grids", "prefixes")
    third = {name: {**getattr(data, name), "random": getattr(data, name)["baseline"]} for name in names}
    page = Page(html_of(dataclasses.replace(data, **third)))
    assert page.open == []
    assert len(page.attributes("src")) == 12, "two more grids"
    assert "than the control with random masks" in page.text


def test_without_generated_images_the_page_has_no_generation_but_the_protocol(data: ReportData):
    page = Page(html_of(dataclasses.replace(data, generation={}, samples={})))
    assert "Generation" not in page.text
    assert "Protocol of the measures" in page.text
    assert "classifier of this image set" in page.text


@pytest.mark.parametrize("missing", ["channels", "arm_summary", "channel_means", "structure"])
def test_a_section_that_was_not_measured_is_left_out(data: ReportData, missing: str):
    title = {
        "channels": "Channel by channel",
        "arm_summary": "Objects over the channels",
        "channel_means": "Mean over the channels",
        "structure": "Linear probe",
    }[missing]
    assert title in Page(html_of(data)).text
    page = Page(html_of(dataclasses.replace(data, **{missing: {}})))
    assert page.open == [] and title not in page.text
