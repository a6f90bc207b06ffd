"""Several evaluations together: the same arms over runs (seeds), as one figure and one table with mean and spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dcae15 import artifacts, storage
from dcae15.channels import landmarks
from dcae15.errors import ArtifactError, ConfigError
from dcae15.report.data import in_order
from dcae15.report.measures import MEASURES, RECONSTRUCTION, STRUCTURE, SUMMARY, Measure
from dcae15.report.plots import Line, Panel, draw_panels, styles

FIGURE, TABLE = "comparison.png", "comparison.md"
LATEST = "latest.json"
ARMS = ("structured", "baseline", "random")
PANELS = (
    "psnr",
    "ssim",
    "lpips",
    "frechet_distance",
    "class_accuracy",
    "low_frequency_share",
    "high_frequency_share",
    "probe_accuracy",
    "effective_rank",
)
DASH, MINUS = "–", "\N{MINUS SIGN}"

ByArm = dict[str, dict[int, float]]
"""Arm -> place -> value; a place is a number of front channels, or 0 for a whole latent."""


def compare(uris: Sequence[str], folder: str) -> list[str]:
    """Compare evaluations: write ``comparison.png`` and ``comparison.md`` into a folder.

    Args:
        uris: evaluation artifacts, or storages (or their latest.json) of finished pipelines, whose evaluation is taken.
        folder: path or URI to write to.

    Returns:
        The URIs of the two files.

    Raises:
        ArtifactError: there is no evaluation at a URI.
        ConfigError: there are none, or one is given twice.
    """
    evaluations = [open_evaluation(uri) for uri in uris]
    if not evaluations:
        raise ConfigError("there is nothing to compare; give the URIs of evaluations, or of storages")
    names = [evaluation.uri for evaluation in evaluations]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            f"{', '.join(twice)}: given more than once, which would make the spread look smaller than it is"
        )
    written = {FIGURE: comparison_figure(evaluations), TABLE: comparison_table(evaluations).encode()}
    for name, content in written.items():
        storage.write_bytes(storage.join(folder, name), content)
    return [storage.join(folder, name) for name in written]


def open_evaluation(uri: str) -> artifacts.Evaluation:
    """Open an evaluation artifact, or that of the last finished pipeline of a storage; raise ArtifactError without one."""
    if artifacts.finished(uri):
        return artifacts.Evaluation.open(uri)
    latest = uri if uri.endswith(f"/{LATEST}") else storage.join(uri, LATEST)
    if not storage.exists(latest):
        raise ArtifactError(
            f"{uri} is neither a finished evaluation nor a storage with a {LATEST}; run the pipeline there"
        )
    stages = storage.read_json(latest)
    if not isinstance(stages, dict) or "evaluate" not in stages:
        raise ArtifactError(f"{latest} names no evaluation; run the whole pipeline there, or pass the evaluation's URI")
    return artifacts.Evaluation.open(stages["evaluate"])


def comparison_figure(evaluations: Sequence[artifacts.Evaluation]) -> bytes:
    """Plot each measure over the number of channels kept: per arm the mean over runs, and the range as a band.

    Returns PNG bytes.
    """
    panels = []
    for key in PANELS:
        lines, places = [], set()
        for arm, values in in_order(_gather(evaluations, key), ARMS).items():
            prefixes = np.array(sorted(values))
            places |= set(values)
            mean, least, most = (
                np.array([statistic(values[prefix]) for prefix in prefixes.tolist()])
                for statistic in (np.mean, np.min, np.max)
            )
            look = styles(_arms(evaluations))[arm]
            lines.append(Line(arm, prefixes, mean, look.colour, look.marker, band=(least, most)))
        ticks = sorted(places) if len(places) <= 9 else []
        panels.append(Panel(MEASURES[key].title, lines, "channels kept, c", ticks))
    return draw_panels([panel for panel in panels if panel.lines], columns=3, width=11.0, height=2.6)


def comparison_table(evaluations: Sequence[artifacts.Evaluation]) -> str:
    """Return a Markdown page: every measure of every arm, mean and range over runs, and the differences within runs.

    Curves are given at an eighth, a quarter and all of the channels. A difference is taken within each run before it is averaged,
    so that what a seed does to both arms cancels.
    """
    arms = _arms(evaluations)
    others = [arm for arm in arms if arm != "structured"] if "structured" in arms else []
    count = len(evaluations)
    lines = [
        f"# Comparison of {count} {'run' if count == 1 else 'runs'}",
        "",
        *(f"- `{evaluation.fingerprint}` {_escaped(evaluation.uri)}" for evaluation in evaluations),
        "",
        "Mean over runs, and in brackets the least and the greatest, which is no confidence interval"
        + ("; one run has no spread." if count == 1 else ".")
        + (" Differences are taken within each run." if others else ""),
        *_notes(evaluations),
        "",
    ]
    heads = ["measure", "c", *arms, *(f"structured {MINUS} {arm}" for arm in others)]
    lines += ["| " + " | ".join(map(_escaped, heads)) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    for key in (*RECONSTRUCTION, *STRUCTURE, *SUMMARY):
        runs = [_of_run(evaluation, key) for evaluation in evaluations]
        found = {place for run in runs for values in run.values() for place in values}
        shown = landmarks(sorted(found)) if found - {0} else sorted(found)
        for place in shown:
            cells = [
                _cell(MEASURES[key], [run[arm][place] for run in runs if place in run.get(arm, {})]) for arm in arms
            ]
            for other in others:
                pairs = [(run.get("structured", {}), run.get(other, {})) for run in runs]
                gaps = [ours[place] - theirs[place] for ours, theirs in pairs if place in ours and place in theirs]
                cells.append(_cell(MEASURES[key], gaps, signed=True))
            lines.append(f"| {MEASURES[key].title} | {place or 'all'} | " + " | ".join(cells) + " |")
    used = [key for key in (*RECONSTRUCTION, *STRUCTURE, *SUMMARY) if any(_of_run(e, key) for e in evaluations)]
    lines += ["", *(f"- {MEASURES[k].label}: {MEASURES[k].definition} {MEASURES[k].source}." for k in used)]
    return "\n".join(lines) + "\n"


def _arms(evaluations: Sequence[artifacts.Evaluation]) -> list[str]:
    return list(in_order({arm: None for evaluation in evaluations for arm in evaluation.reconstruction}, ARMS))


def _of_run(evaluation: artifacts.Evaluation, key: str) -> ByArm:
    """Return one measure of one run; arms without it are left out."""
    found: ByArm = {}
    for arm in evaluation.reconstruction:
        rows = [*evaluation.reconstruction[arm], *evaluation.structure.get(arm, [])]
        values = {int(row["prefix"]): row[key] for row in rows if key in row and np.isfinite(row[key])}
        if key in SUMMARY and np.isfinite(evaluation.summary.get(arm, {}).get(key, np.nan)):
            values[0] = evaluation.summary[arm][key]
        if values:
            found[arm] = values
    return found


def _gather(evaluations: Sequence[artifacts.Evaluation], key: str) -> dict[str, dict[int, list[float]]]:
    """Return one measure: arm -> prefix -> its values, one per run that has it."""
    gathered: dict[str, dict[int, list[float]]] = {}
    for evaluation in evaluations:
        for arm, values in _of_run(evaluation, key).items():
            for prefix, value in values.items():
                gathered.setdefault(arm, {}).setdefault(prefix, []).append(value)
    return gathered


def _notes(evaluations: Sequence[artifacts.Evaluation]) -> list[str]:
    """Say what the runs do not share, because it is part of their spread."""
    meanings: Mapping[str, str] = {
        "extractor_digest": "feature networks: part of the spread of the Fréchet distances and class accuracies is theirs",
        "reference_digest": "image sets: part of all spreads is theirs",
        "reference_count": "numbers of images: their Fréchet distances do not compare",
    }
    notes = []
    for name, meaning in meanings.items():
        different: set[Any] = {evaluation.protocol.get(name) for evaluation in evaluations}
        if len(different) > 1:
            notes.append(f"The runs used {len(different)} different {meaning}.")
    return ["", *notes] if notes else []


def _cell(measure: Measure, values: Sequence[float], *, signed: bool = False) -> str:
    if not values:
        return DASH

    def write(value: float) -> str:
        return f"{value:{'+' if signed else ''}.{measure.digits}f}".replace("-", MINUS)

    mean = write(float(np.mean(values)))
    return mean if len(values) == 1 else f"{mean} [{write(min(values))}, {write(max(values))}]"


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")
