import dataclasses
import re
from html.parser import HTMLParser
from unittest import mock

import numpy as np
import pytest
from matplotlib.figure import Figure

from dcae15.report import figures, html
from dcae15.report.data import Made, ReportData
from dcae15.report.html import link
from dcae15.report.plots import png
from tests.unit.report.conftest import html_of, report_data

NAN = float("nan")
BLANK = png(Figure())
EVIL = "<script>alert(1)</script>\"'&{{ 7*7 }}"


def render(data: ReportData) -> str:
    """The page with the pictures that it would have; their curves are not drawn, which takes seconds."""
    with mock.patch.object(figures, "draw_panels", lambda *_, **__: BLANK):
        return html.render(data, figures.pictures(data))


class Page(HTMLParser):
    """Collects tags and attributes, and checks that tags are closed in order."""

    VOID = frozenset({"meta", "img", "br", "hr", "link", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data

    def attributes(self, name: str) -> list[str]:
        return [attributes[name] for _, attributes in self.tags if name in attributes]


def test_the_page_holds_everything_and_loads_nothing(data: ReportData):
    text = html_of(data)
    page = Page(text)
    assert page.open == []
    assert len(page.attributes("src")) == 10
    assert all(src.startswith("data:image/") for src in page.attributes("src"))
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert set(page.attributes("href")) == {"#warnings"} | {f"file://{stage.uri}" for stage in data.stages}
    assert "http://" not in text
    assert "https://" not in text
    assert not re.search(r"url\(|@import", text)
    ids = page.attributes("id")
    assert all(href[1:] in ids for href in page.attributes("href") if href.startswith("#"))


@pytest.mark.parametrize("side", [32, 256])
def test_the_page_stays_below_3_megabytes(side):
    data = report_data(side)
    assert len(html.render(data, figures.pictures(data)).encode()) < 3_000_000


def test_sections_stand_in_reading_order(data: ReportData):
    text = Page(html_of(data)).text
    titles = ["What ran", "Partial channels", "Reconstruction over", "Is the latent space", "Generation", "Training"]
    positions = [text.index(title) for title in [*titles, "Configuration", "Environment", "Warnings"]]
    assert positions == sorted(positions)
    assert "not FID" in text
    assert all(word in text for word in ("f3a9c2b7d5e8046", "classifier of this image set", "latent_channels: 32"))


def test_hostile_text_is_shown_not_run(data: ReportData):
    stage = Made(EVIL, "javascript:alert(1)", EVIL, {}, {EVIL: EVIL}, EVIL, 1.0)
    hostile = dataclasses.replace(
        data,
        **dict.fromkeys(("title", "created", "summary", "config_yaml"), EVIL),
        stages=[stage],
        environment={EVIL: EVIL},
        protocol={EVIL: EVIL},
        warnings=[EVIL],
        generation={EVIL: 1.0, f"{EVIL}_of_{EVIL}": 2.0},
        reconstruction={EVIL: data.reconstruction["structured"]},
        structure={EVIL: data.structure["structured"]},
        channels={EVIL: data.channels["structured"]},
        arm_summary={EVIL: data.arm_summary["structured"]},
        channel_means={EVIL: data.channel_means["structured"]},
        prefixes={EVIL: data.prefixes["structured"]},
        histories={EVIL: {EVIL: data.histories["training_diffusion"]["diffusion"]}},
        grids={EVIL: data.grids["structured"]},
        samples={EVIL: data.samples["disc"]},
    )
    page = Page(html_of(hostile))
    assert page.open == []
    assert "script" not in {tag for tag, _ in page.tags}
    assert set(page.attributes("href")) == {"#warnings"}
    assert page.text.count(EVIL) >= 14


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("s3://bucket/run/1", "s3://bucket/run/1"),
        ("s3://bucket/100% real?#1 x/é", "s3://bucket/100%25%20real%3F%231%20x/%C3%A9"),
        ("https://host/a%20b?x=1#y", "https://host/a%20b?x=1#y"),
        ("/data/a b/#1", "file:///data/a%20b/%231"),
        ("javascript:alert(1)", ""),
        ("data:text/html,x", ""),
        ("JavaScript:alert(1)", ""),
        (" javascript:alert(1)", ""),
        ("relative/path", ""),
        ("", ""),
    ],
)
def test_only_addresses_of_storage_become_links(uri, address):
    assert link(uri) == address


def test_a_report_without_anything_still_is_a_page(empty: ReportData):
    page = Page(html_of(empty))
    assert page.open == []
    assert page.attributes("src") == []
    assert "No stage was recorded" in page.text
    assert "Generated images were not measured" in page.text
    assert "Partial channels" not in page.text
    assert "Warnings" not in page.text


def test_without_a_baseline_the_page_says_so(data: ReportData):
    only = {"reconstruction", "structure", "channels", "arm_summary", "channel_means", "grids"}
    alone = dataclasses.replace(data, **{name: {"structured": getattr(data, name)["structured"]} for name in only})
    text = Page(html_of(alone)).text
    assert "No baseline was measured" in text
    assert "difference" not in text


def test_without_classes_samples_have_no_names_and_accuracy_is_left_out(data: ReportData):
    rows = {
        arm: [{key: value for key, value in row.items() if key != "class_accuracy"} for row in rows]
        for arm, rows in data.reconstruction.items()
    }
    text = Page(
        html_of(
            dataclasses.replace(
                data, samples={"": data.samples["disc"]}, reconstruction=rows, generation={"frechet_distance": 3.0}
            )
        )
    ).text
    assert "Class accuracy" not in text
    assert "of each class" not in text


def test_empty_arms_and_classes_are_passed_over(data: ReportData):
    nothing = np.zeros((0, 32, 32, 3), dtype=np.uint8)
    sparse = dataclasses.replace(
        data,
        samples={"disc": nothing},
        grids={"baseline": (nothing, np.zeros((8, 0, 32, 32, 3), dtype=np.uint8))},
        reconstruction={"structured": data.reconstruction["structured"], "baseline": []},
    )
    page = Page(html_of(sparse))
    assert "Samples" not in page.text
    assert "Partial channels" not in page.text


def test_nan_is_written_as_not_measured(data: ReportData):
    rows = [dict(row) for row in data.reconstruction["structured"]]
    rows[2]["psnr"] = NAN
    gaps = dataclasses.replace(
        data,
        reconstruction={**data.reconstruction, "structured": rows},
        generation={"frechet_distance": NAN, "recall": 0.5},
        stages=[dataclasses.replace(data.stages[0], seconds=NAN)],
    )
    text = Page(html_of(gaps)).text
    assert text.count("not measured") == 3
    assert not re.search(r"\bnan\b", text, re.IGNORECASE)
