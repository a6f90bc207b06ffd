import csv
import dataclasses
import io
import itertools
import json
import math
import shlex
from pathlib import Path
from typing import Any

import pytest

from dcae15.report.measures import duration
from dcae15.report.plots import styles
from dcae15.sweep.figures import draw_figure
from dcae15.sweep.file import Figure, Range, Sweep
from dcae15.sweep.page import render_sweep, write_page
from dcae15.sweep.search_figures import importance
from dcae15.sweep.statistics import first_crossing, rank_correlation
from dcae15.sweep.tables import arms_table, stage_tables
from dcae15.sweep.trials import Trial
from tests.unit.report.test_html import EVIL, Page

NAN = float("nan")
DISTANCE, PRECISION = "frechet_distance.generated", "precision.generated"
CHANNELS, FIRST = "autoencoder.latent_channels", "autoencoder.prefix.first"
SEARCH = Sweep("channels", space={CHANNELS: (8, 16, 32), FIRST: (2, 4, 8, 16)}, scheduler="asha", metric=DISTANCE)


def curve_of(*values: float) -> list[dict[str, float]]:
    return [{"images": 1000.0 * 2**i, DISTANCE: value} for i, value in enumerate(values)]


def search_trials() -> list[Trial]:
    """Return 12 trials of C x c1, of which 4 finished, 7 were stopped after 2,000 images and one failed."""
    records = []
    for number, (channels, first) in enumerate(itertools.product((8, 16, 32), (2, 4, 8, 16)), start=1):
        end = 1.0 + abs(channels - 16) / 10 + abs(first - 4) / 100
        values = {CHANNELS: channels, FIRST: first}
        record = Trial(
            f"{number:010x}",
            "channels",
            values=values,
            status="stopped",
            seconds=60.0,
            curve=curve_of(4 * end, 2 * end),
            stages={
                "prepare_images": stage("images", "one", ran=number == 1, seconds=10.0),
                "train_autoencoder": stage("autoencoder", f"{channels}-{first}", ran=True, seconds=30.0),
            },
            command=shlex.join(["python", "pipelines/full.py", *(f"{k}={v}" for k, v in values.items())]),
        )
        more: dict[str, Any] = {}
        if channels == 16:
            report = f"/runs/reports/{number}/report.html"
            more = {"metrics": {DISTANCE: end}, "curve": curve_of(4 * end, 2 * end, end), "report": report}
            more["status"] = "finished"
        elif number == 12:
            more = {"status": "failed", "error": "StorageError: s3://key:hunter2@bucket/x: no space left"}
        records.append(dataclasses.replace(record, **more))
    return records


def stage(kind: str, fingerprint: str, *, ran: bool, seconds: float) -> dict[str, object]:
    return {"uri": f"/runs/{kind}-{fingerprint}", "fingerprint": fingerprint, "ran": ran, "seconds": seconds}


def study(*figures: Figure, arms: tuple[str, ...] = ("baseline", "structured"), seeds: int = 3) -> Sweep:
    return Sweep("study", "Is it faster?", arms={arm: {} for arm in arms}, seeds=tuple(range(seeds)), figures=figures)


def trial(arm: str, seed: int, sweep: str = "study", **changes: object) -> Trial:
    record = Trial(f"{sweep}-{arm}-{seed}", sweep, arm, seed, status="finished")
    return dataclasses.replace(record, **changes)  # pyright: ignore[reportArgumentType]


def page_of(sweep: Sweep, records: list[Trial]) -> Page:
    page = Page(render_sweep(sweep, records, "today"))
    assert page.open == []
    assert all(src.startswith("data:image/") for src in page.attributes("src"))
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    ids = page.attributes("id")
    assert all(href[1:] in ids for href in page.attributes("href") if href.startswith("#"))
    return page


def test_a_search_is_written_as_a_page_and_its_numbers(tmp_path: Path):
    records = search_trials()
    uri, _ = write_page(SEARCH, records, str(tmp_path / "out"))
    assert Path(uri) == tmp_path / "out" / "sweep.html"
    page = Page(Path(uri).read_text())
    titles = ["channels", "Best trial", "over images seen", "over searched fields", "Importance", "All trials"]
    positions = [page.text.index(title) for title in [*titles, "Shared stages", "Settings"]]
    assert positions == sorted(positions)
    assert "12 trials: 4 finished, 7 stopped early, 1 failed." in page.text
    assert "Number 6: latent_channels=16, first=4" in page.text
    assert records[5].command in page.text
    assert page.text.count("stopped at 2,000 images") == 7
    assert "file:///runs/reports/6/report.html" in page.attributes("href")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "trials.csv").read_text())))
    assert len(rows) == 12
    assert (rows[5][CHANNELS], rows[5][DISTANCE], rows[5]["images"]) == ("16", "1.0", "4000")
    numbers = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert numbers["best"] == records[5].id
    assert numbers["trials"][5]["metrics"] == {DISTANCE: 1.0}
    assert numbers["sweep"]["space"][FIRST] == [2, 4, 8, 16]


def test_why_a_trial_failed_is_said_without_its_secrets(tmp_path: Path):
    write_page(SEARCH, search_trials(), str(tmp_path))
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert len(written) == 3
    assert all("no space left" in text and "hunter2" not in text for text in written.values())


def test_the_greatest_is_best_where_the_sweep_says_max():
    sweep = dataclasses.replace(SEARCH, mode="max")
    assert "Number 8: latent_channels=16, first=16" in page_of(sweep, search_trials()).text


def test_hostile_text_is_shown_not_run():
    figures = (Figure("per_arm", (DISTANCE,), title=EVIL), Figure("over_images", (DISTANCE,), reference=EVIL))
    sweep = Sweep("evil", EVIL, EVIL, arms={EVIL: {}}, figures=figures)
    texts = {"error": EVIL, "command": EVIL, "run_id": EVIL, "report": "javascript:alert(1)"}
    known = {"metrics": {DISTANCE: 1.0, EVIL: 2.0}, "curve": curve_of(3.0, 2.0), "values": {EVIL: EVIL}}
    stages = {EVIL: {"uri": "javascript:alert(1)", "fingerprint": EVIL, "ran": True, "seconds": 1.0}}
    records = [trial(EVIL, seed, "evil", stages=stages, **texts, **known) for seed in (0, 1)]
    page = page_of(sweep, [*records, trial(EVIL, 2, "evil", **{**texts, "status": "failed"})])
    assert "javascript:alert(1)" not in page.attributes("href")
    assert page.text.count(EVIL) > 10
    assert "49" not in page.text


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([], "No trial has run yet"),
        ([trial("", 0, status="failed")], "All trials failed"),
        ([trial("", 0, status="failed")], "No reason was recorded"),
        ([trial("", 0, status="running"), trial("", 1, status="waiting")], "No trial has finished"),
        ([trial("", 0, status="stopped", curve=curve_of(3.0))], "No trial has finished"),
        ([trial("", 0, metrics={DISTANCE: NAN})], "no finite value of frechet_distance.generated"),
        ([trial("", 0)], "no finite value of frechet_distance.generated"),
        ([trial("", 0, metrics={DISTANCE: 1.0}, curve=curve_of(NAN, 2.0))], "A single trial"),
        ([trial("", 0, metrics={DISTANCE: 1.0}), trial("", 1, status="failed")], "the best is the only one"),
    ],
)
@pytest.mark.parametrize("kind", ["search", "study"])
def test_a_page_of_little_says_what_is_missing(kind: str, records: list[Trial], said: str, tmp_path: Path):
    figures = (
        Figure("over_images", (DISTANCE,), reference="baseline"),
        Figure("over_channels", ("psnr",)),
        Figure("over_field", (DISTANCE,), field=CHANNELS),
        Figure("per_arm", (DISTANCE,)),
        Figure("against", (PRECISION, DISTANCE)),
    )
    sweep = Sweep("study", space={CHANNELS: (8, 16), FIRST: (2, 4)}, figures=figures if kind == "study" else ())
    assert said in page_of(sweep, records).text
    write_page(sweep, records, str(tmp_path))
    json.loads((tmp_path / "sweep.json").read_text(), parse_constant=pytest.fail)  # NaN is no JSON


# --- figures of studies


def test_images_to_reach_the_end_of_the_reference():
    figure = Figure("over_images", (DISTANCE,), reference="baseline")
    records = [
        trial("baseline", 0, curve=curve_of(8.0, 6.0, 4.0)),
        trial("baseline", 1, curve=curve_of(8.0, 3.0, 4.0)),
        trial("structured", 0, curve=curve_of(8.0, 3.0, 2.0)),  # 4 at 1,800 of 4,000 images
        trial("structured", 1, curve=curve_of(3.0, 2.0, 1.0)),  # at once
        trial("random", 0, curve=curve_of(8.0, 7.0, 6.0)),
        trial("random", 1, curve=curve_of(8.0, 4.0, NAN)),
        trial("random", 2, curve=curve_of(8.0, 4.0, 1.0)),  # without a reference
    ]
    shown = draw_figure(study(figure, arms=("baseline", "structured", "random")), figure, records)
    assert [[cell.text for cell in row] for table in shown.tables for row in table.rows] == [
        ["baseline", "1.00", "0.45", "–", "0.72 [0.45, 1.00]"],
        ["structured", "0.45", "≤ 0.25", "–", "≤ 0.35 [0.25, 0.45]"],
        ["random", "not reached", "0.50", "–", "reached by 1 of 2"],
    ]
    assert list(shown.legend) == ["baseline", "structured", "random"]
    nobody = draw_figure(study(figure), dataclasses.replace(figure, reference="x"), records)
    assert "nothing to reach" in nobody.notes[-1]
    assert nobody.tables == []


def test_trials_that_have_not_finished_stay_out_of_figures_and_are_counted():
    figure = Figure("per_arm", (DISTANCE,))
    records = [trial("baseline", 0, metrics={DISTANCE: 1.0})]
    records.append(trial("structured", 0, status="stopped", metrics={DISTANCE: 2.0}))
    shown = draw_figure(study(figure), figure, records)
    assert len(shown.pictures) == 1
    assert "Trials that have not finished are left out: 1." in shown.notes
    assert draw_figure(study(figure), figure, records[1:]).notes == ["No finished trial has these measures."]


def test_lines_over_channels_are_named_by_arm_and_autoencoder():
    figure = Figure("over_channels", ("psnr", "ssim"))
    metrics = {f"psnr.{arm}.{part}": 20.0 for arm in ("structured", "baseline") for part in ("eighth", "all")}
    one = [trial("", 0, metrics=metrics)]
    assert list(draw_figure(Sweep("study"), figure, one).legend) == ["structured", "baseline"]
    each = [trial(a, 0, metrics={k: v for k, v in metrics.items() if a in k}) for a in ("baseline", "structured")]
    shown = draw_figure(study(figure), figure, each)
    assert list(shown.legend) == ["baseline", "structured"]
    assert len(shown.pictures) == 1  # nobody has SSIM
    both = [*each, trial("both", 0, metrics=metrics)]
    legend = draw_figure(study(figure, arms=("baseline", "structured", "both")), figure, both).legend
    assert list(legend) == ["baseline", "structured", "both: structured", "both: baseline"]


def test_autoencoders_stand_side_by_side_with_differences_within_each_trial():
    figure = Figure("autoencoders", ("psnr", "object_share", "ssim"), reference="structured")
    sweep = Sweep("study", seeds=(0, 1), figures=(figure, Figure("over_channels", ("psnr",))), metric=DISTANCE)
    values = {"baseline": (15.0, 18.0), "structured": (20.0, 22.0), "random": (19.0, NAN)}
    parts = {"eighth": 0.0, "half": 0.0, "all": 4.0}
    records = []
    for seed in (0, 1):
        psnr = {f"psnr.{arm}.{part}": of[seed] + more for arm, of in values.items() for part, more in parts.items()}
        records.append(trial("", seed, metrics={**psnr, "object_share.structured": 0.5}))
    shown = draw_figure(sweep, figure, records)
    (found,) = shown.tables
    minus, psnr = "\N{MINUS SIGN}", "PSNR (dB, higher is better)"  # within trials the seeds' common part cancels
    assert found.markdown() == (
        f"| measure | channels | structured | baseline | random | structured {minus} baseline | structured {minus} random |\n"
        "|---|---:|---:|---:|---:|---:|---:|\n"
        f"| {psnr} | ⅛ | 21.00 [20.00, 22.00] | 16.50 [15.00, 18.00] | 19.00 | +4.50 [+4.00, +5.00] | +1.00 |\n"
        f"| {psnr} | all | 25.00 [24.00, 26.00] | 20.50 [19.00, 22.00] | 23.00 | +4.50 [+4.00, +5.00] | +1.00 |\n"
        "| Object share of a channel | all | 0.500 [0.500, 0.500] | – | – | – | – |\n"
    )
    assert "No finished trial has these measures." not in shown.notes
    assert [head.text for head in arms_table(sweep, records).heads[2:]] == ["Fréchet distance, generated images"]


def test_a_field_is_found_in_values_arms_and_commands():
    figure = Figure("over_field", (DISTANCE,), field=CHANNELS)
    sweep = dataclasses.replace(study(figure), arms={"baseline": {CHANNELS: 16}, "structured": {}})
    records = [
        trial("baseline", 0, metrics={DISTANCE: 1.0}),
        trial("structured", 0, values={CHANNELS: 32}, metrics={DISTANCE: 1.0}),
        trial("none", 0, "other", command=f"python x.py {CHANNELS}=64", metrics={DISTANCE: 1.0}),
        trial("structured", 1, metrics={DISTANCE: 1.0}),
    ]
    shown = draw_figure(sweep, figure, records)
    assert list(shown.legend) == ["baseline", "structured", "other: none"]
    assert shown.notes == [f"1 finished trials do not say their {CHANNELS} and are left out."]


def test_correlation_counts_shared_evaluations_once_and_gives_means_over_seeds():
    figure = Figure("against", ("object_sparsity.structured", "psnr.structured.all", DISTANCE))
    records = []
    for i, arm in enumerate("abcdef"):
        for seed in (0, 1):
            metrics = {"object_sparsity.structured": i + 0.1 * seed, DISTANCE: 10.0 - i, "psnr.structured.all": NAN}
            records.append(trial(arm, seed, metrics=metrics, stages={"evaluate": {"fingerprint": f"{arm}{seed}"}}))
    again = dataclasses.replace(records[0], sweep="other", id="again")
    shown = draw_figure(study(figure, arms=tuple("abcdef")), figure, [*records, again])
    sparsity, psnr = ([cell.text for cell in row] for row in shown.tables[0].rows)
    assert sparsity == ["Object sparsity", sparsity[1], "12", "< 0.001", "−1.00", "6", "0.003"]
    assert float(sparsity[1].replace("−", "-")) < -0.97
    assert psnr[1:] == ["–", "0", "–", "–", "0", "–"]
    assert len(shown.pictures) == 1
    assert shown.notes[-1].startswith("1 trials whose evaluation another trial shares")


# --- tables


def test_study_table_gives_mean_and_range_over_seeds():
    figure = Figure("over_channels", ("psnr",))
    records = [
        trial("structured", seed, metrics={DISTANCE: 1.0 + seed, "psnr.structured.all": 20.0}) for seed in range(3)
    ]
    records += [trial("baseline", 0, metrics={DISTANCE: -1.0, "psnr.structured.all": 21.5})]
    records += [trial("baseline", 1, metrics={"psnr.structured.all": 21.5}), trial("baseline", 2, status="failed")]
    assert arms_table(study(figure), records).markdown() == (
        "| arm | trials | Fréchet distance, generated images | PSNR, all channels |\n"
        "|---|---:|---:|---:|\n"
        "| baseline | 2 | −1.00 of 1 | 21.50 [21.50, 21.50] |\n"
        "| structured | 3 | 2.00 [1.00, 3.00] | 20.00 [20.00, 20.00] |\n"
    )


def test_the_best_mean_is_marked_in_the_table_of_arms():
    records = [trial(arm, 0, metrics={DISTANCE: value}) for arm, value in (("baseline", 2.0), ("structured", 1.0))]
    rows = arms_table(study(), records).rows
    assert [(row[0].text, row[2].mark) for row in rows] == [("baseline", ""), ("structured", "best")]
    assert ["number", "best"] in [value.split() for value in page_of(study(), records).attributes("class")]


def test_shared_stages_count_what_ran_and_what_was_saved():
    def texts(records):
        stages, made, saved = stage_tables(records)
        return [[cell.text for cell in row[1:]] for row in stages.rows], len(made.rows), saved

    images = ["1", "12", "1", duration(110.0), "each made once"]
    autoencoder = ["12", "12", "12", duration(0.0), "each made once"]
    assert texts(search_trials()) == ([images, autoencoder], 13, 110.0)
    twice = [trial("a", seed, stages={"x": stage("x", "same", ran=True, seconds=1.0)}) for seed in (0, 1)]
    assert texts(twice)[0][0][-1] == "1 made more than once"
    before = [trial("a", 0, stages={"x": stage("x", "same", ran=False, seconds=0.0)})]
    assert texts(before)[0][0][-1] == "1 made by another run"


# --- statistics


def shares(shown):
    return {row[0].text: float(row[1].text) for table in shown.tables for row in table.rows}


def test_importance_compares_trials_after_the_same_images():
    found = importance(SEARCH, search_trials())
    assert "12 trials after 2,000 images; only 4 have a final value" in found.notes[0]
    assert math.isclose(sum(shares(found).values()), 1.0, abs_tol=0.02) and shares(found)["latent_channels"] > 0.8
    few = importance(SEARCH, search_trials()[:7])
    assert shares(few) == {} and "needs 8 trials" in few.notes[0]
    assert shares(importance(dataclasses.replace(SEARCH, space={FIRST: (1, 2)}), search_trials())) == {}


def test_importance_of_words_and_of_fields_that_never_changed():
    space = {"kind": ("prefix", "none"), "rate": Range(1e-4, 1e-1, log=True), "same": (1, 2)}
    values = [{"kind": ("prefix", "none")[i % 2], "rate": 10 ** (-i / 5), "same": 1} for i in range(12)]
    records = [trial("", i, values=value, metrics={DISTANCE: i}) for i, value in enumerate(values)]
    assert list(shares(importance(Sweep("study", space=space), records))) == ["rate", "kind"]


def test_a_crossing_is_interpolated_and_nothing_is_not_reached():
    images = [100.0, 200.0, 300.0]
    assert first_crossing(images, [4.0, 2.0, 3.0], 3.0, higher=False).images == 150.0
    assert first_crossing(images, [1.0, NAN, 3.0], 2.0, higher=True).images == 200.0
    assert math.isnan(first_crossing(images, [4.0, 3.0, 2.0], 1.0, higher=False).images)
    assert math.isnan(first_crossing([], [], 1.0, higher=False).images)
    assert first_crossing(images, [1.0, 2.0, 3.0], 2.0, higher=False).at_most


def test_rank_correlation_and_its_p():
    found = rank_correlation([1, 2, 3, 4], [1, 4, 9, 16])
    assert found and (found.rho, found.pairs) == (pytest.approx(1.0), 4)
    assert found.p == pytest.approx(2 / 24)  # of 24 orders the best and the worst are as strong
    many = rank_correlation(list(range(20)), [x % 2 for x in range(20)])
    assert many and 0.5 < many.p <= 1 and abs(many.rho) < 0.2
    assert rank_correlation([1, 2], [1, 2]) is None
    assert rank_correlation([1, 1, 1], [1, 2, 3]) is None


def test_many_arms_look_different_and_known_ones_as_always():
    looks = styles(["x", "structured", *(f"arm {i}" for i in range(18)), "study: baseline"])
    assert len(set(looks.values())) == len(looks)
    assert list(looks)[:2] == ["x", "structured"]
    assert looks["structured"] == styles(["structured"])["structured"]
    assert looks["study: baseline"].colour == styles(["baseline"])["baseline"].colour
    assert len({style.colour for style in styles([f"arm {i}" for i in range(8)]).values()}) == 8
