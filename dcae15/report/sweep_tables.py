"""The tables of a sweep: its trials, its arms over seeds, its shared stages, its settings."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from dcae15.config.sweep import Sweep
from dcae15.redaction import redact
from dcae15.report.measures import measured, number
from dcae15.report.statistics import spread
from dcae15.report.tables import DASH
from dcae15.report.trial_values import (
    ANY,
    LANDMARKS,
    Records,
    final,
    finished,
    group_of,
    grouped,
    higher_is_better,
    images_reached,
    latest,
    metric_label,
    metric_measure,
    split_metric,
)
from dcae15.trials import STATUSES, TrialRecord

MOST_METRICS = 6  # columns of the table of trials; the CSV file has all
MINUS = "\N{MINUS SIGN}"


def metric_number(name: str, value: float) -> str:
    """Write a value of a metric with as many digits as its measure has; a dash where it is missing."""
    return number(value, metric_measure(name).digits).replace("-", MINUS) if measured(value) else DASH


def shown_metrics(sweep: Sweep, records: Records) -> list[str]:
    """Return the metrics worth a column: the sweep's own, then those of its figures that a trial has."""
    names = [sweep.metric]
    for figure in sweep.figures:
        for name in figure.measures:
            if figure.kind == "over_channels":
                names += _landmarks(records, split_metric(name)[0])
            elif any(name in record.metrics for record in records):
                names.append(name)
    return list(dict.fromkeys(names))


def _landmarks(records: Records, measure: str) -> list[str]:
    """Return the metrics of a measure over channels; without their autoencoder, where each trial has one only."""
    found = [[name for name in record.metrics if _over_channels(name, measure)] for record in records]
    places = [[split_metric(name)[2] for name in names] for names in found]
    if all(len(set(of)) == len(of) for of in places):
        return [f"{measure}.{ANY}.{place}" for place in LANDMARKS if any(place in of for of in places)]
    names = {name for names in found for name in names}
    return sorted(names, key=lambda name: (LANDMARKS[split_metric(name)[2]], name))


def _over_channels(name: str, measure: str) -> bool:
    return split_metric(name)[0] == measure and bool(split_metric(name)[2])


# --- trials


@dataclass(frozen=True)
class TrialRow:
    """A line of the table of trials."""

    number: int
    record: TrialRecord
    label: str
    status: str
    cells: list[str]  # the metrics
    early: bool  # these were measured at the last milestone, not at the end
    best: bool
    images: str


def trial_rows(sweep: Sweep, records: Records, metrics: Sequence[str], best: TrialRecord | None) -> list[TrialRow]:
    """Return the trials, finished ones first and best first, each with its number in the order given."""
    sign = -1.0 if sweep.mode == "max" else 1.0

    def place(pair: tuple[int, TrialRecord]) -> tuple[int, float, int]:
        value = latest(pair[1], sweep.metric)
        order = ("finished", "stopped", "running", "waiting", "failed").index(pair[1].status)
        return order, sign * value if measured(value) else math.inf, pair[0]

    return [_row(sweep, i, record, metrics, best) for i, record in sorted(enumerate(records, start=1), key=place)]


def _row(sweep: Sweep, i: int, record: TrialRecord, metrics: Sequence[str], best: TrialRecord | None) -> TrialRow:
    images = images_reached(record)
    reached = f"{images:,.0f}" if measured(images) else DASH
    status = f"stopped at {reached} images" if record.status == "stopped" and measured(images) else record.status
    early = record.status != "finished"
    cells = [metric_number(name, latest(record, name) if early else final(record, name)) for name in metrics]
    return TrialRow(i, record, group_of(sweep, record), status, cells, early, record is best, reached)


def counts(records: Records) -> str:
    """Count the trials by status, such as '8 finished, 3 stopped early, 1 failed'."""
    words = {"stopped": "stopped early"}
    found = [record.status for record in records]
    return ", ".join(f"{found.count(s)} {words.get(s, s)}" for s in STATUSES if s in found) or "none"


def trials_csv(sweep: Sweep, records: Records) -> bytes:
    """Return all that is known of the trials as a CSV file: a line each, every field and metric a column."""
    fields = list(dict.fromkeys([*sweep.space, *(path for record in records for path in record.values)]))
    metrics = list(dict.fromkeys([sweep.metric, *sorted({name for record in records for name in record.metrics})]))
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    ends = ("images", "seconds", "report", "run_id", "command", "error")
    writer.writerow(["number", "id", "sweep", "arm", "seed", "status", *fields, *metrics, *ends])
    for i, record in enumerate(records, start=1):
        images, seconds = images_reached(record), round(record.seconds, 1)
        texts = [record.report, record.run_id, record.command, record.error]
        values = [_csv(record.values.get(path)) for path in fields] + [_csv(record.metrics.get(n)) for n in metrics]
        head = [i, record.id, record.sweep, record.arm, record.seed, record.status]
        writer.writerow([*head, *values, f"{images:.0f}" if measured(images) else "", seconds, *texts])
    return stream.getvalue().encode()


def _csv(value: Any) -> Any:
    return "" if value is None or (isinstance(value, float) and not math.isfinite(value)) else value


# --- arms over seeds


@dataclass(frozen=True)
class ArmTable:
    """Mean, least and greatest over seeds: a row for each arm and point of the space, a column for each metric."""

    metrics: list[str]
    rows: list[tuple[str, int, list[tuple[str, bool]]]]  # name, finished trials, cells with 'is the best mean'


def arm_table(sweep: Sweep, records: Records) -> ArmTable:
    """Return the finished trials by arm and searched values, as means and ranges over seeds."""
    metrics = shown_metrics(sweep, records)
    groups = {name: finished(members) for name, members in grouped(sweep, records).items()}
    means: dict[str, list[float]] = {metric: [] for metric in metrics}
    rows = []
    for name, members in groups.items():
        cells = []
        for metric in metrics:
            found = spread(final(record, metric) for record in members)
            means[metric].append(found.mean if found else math.nan)
            text = metric_number(metric, found.mean) if found else DASH
            if found and found.count > 1:
                text += f" [{metric_number(metric, found.low)}, {metric_number(metric, found.high)}]"
            if found and found.count < len(members):
                text += f" of {found.count}"
            cells.append(text)
        rows.append((name, len(members), cells))
    best = {metric: _best(sweep, metric, values) for metric, values in means.items()}
    marked = [
        (name, count, [(text, best[metric] == i) for metric, text in zip(metrics, cells, strict=True)])
        for i, (name, count, cells) in enumerate(rows)
    ]
    return ArmTable(metrics, marked)


def _best(sweep: Sweep, metric: str, values: Sequence[float]) -> int:
    """Return the place of the best mean; -1 where fewer than two are known or no direction is better."""
    known = [i for i, value in enumerate(values) if measured(value)]
    if len(known) < 2 or (metric != sweep.metric and not metric_measure(metric).direction):
        return -1
    return (max if higher_is_better(sweep, metric) else min)(known, key=lambda i: values[i])


def study_table(sweep: Sweep, records: Records) -> str:
    """Return a Markdown table: the sweep's metric and first measures by arm, mean [least, greatest] over seeds."""
    table = arm_table(sweep, records)
    heads = ["arm", "trials", *(metric_label(name) for name in table.metrics[:MOST_METRICS])]
    lines = ["| " + " | ".join(map(_cell, heads)) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    for name, count, cells in table.rows:
        shown = [text for text, _ in cells[:MOST_METRICS]]
        lines.append("| " + " | ".join(map(_cell, [name, str(count), *shown])) + " |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")


# --- shared stages


@dataclass(frozen=True)
class SharedArtifact:
    """An artifact that trials made or used."""

    stage: str
    fingerprint: str
    uri: str
    trials: int
    ran: int
    seconds: float


@dataclass(frozen=True)
class SharedStage:
    """A stage over all trials: its distinct artifacts, how many trials used them, how often it ran, and what sharing saved."""

    name: str
    artifacts: list[SharedArtifact]

    @property
    def uses(self) -> int:
        """How many trials used one of the artifacts."""
        return sum(made.trials for made in self.artifacts)

    @property
    def ran(self) -> int:
        """How many trials ran the stage themselves."""
        return sum(made.ran for made in self.artifacts)

    @property
    def saved(self) -> float:
        """Seconds that trials did not spend because another one had."""
        return sum(made.seconds * (made.trials - made.ran) for made in self.artifacts)

    @property
    def remark(self) -> str:
        """What is worth saying of how often it ran."""
        several = sum(made.ran > 1 for made in self.artifacts)
        before = sum(made.ran == 0 for made in self.artifacts)
        words = [f"{several} made more than once"] if several else []
        words += [f"{before} made by another run"] if before else []
        return ", ".join(words) or "each made once"


def shared_stages(records: Records) -> list[SharedStage]:
    """Return the stages in the order of the pipeline, from what the trials noted."""
    uses: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for record in records:
        for name, stage in record.stages.items():
            uses.setdefault(name, {}).setdefault(str(stage.get("fingerprint", "")), []).append(stage)
    return [
        SharedStage(
            name,
            [
                SharedArtifact(
                    name,
                    fingerprint,
                    str(entries[0].get("uri", "")),
                    len(entries),
                    sum(bool(entry.get("ran")) for entry in entries),
                    max(float(entry.get("seconds") or 0) for entry in entries),
                )
                for fingerprint, entries in found.items()
            ],
        )
        for name, found in uses.items()
    ]


# --- settings


def settings(sweep: Sweep) -> dict[str, Any]:
    """Return what the sweep's file says, without what is as by default and without secrets."""
    chosen = {}
    for f in dataclasses.fields(sweep):
        value = getattr(sweep, f.name)
        default = f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default
        if value != default and f.name != "layers":
            chosen[f.name] = _masked(plain(value))
    return chosen


def settings_yaml(sweep: Sweep) -> str:
    """Return the settings as YAML."""
    return yaml.safe_dump(settings(sweep), sort_keys=False, allow_unicode=True, width=110)


def without_secrets(record: TrialRecord) -> TrialRecord:
    """Return the record with the credentials in all its texts masked."""
    return TrialRecord(**_masked(dataclasses.asdict(record)))


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _masked(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_masked(item) for item in value]
    return redact(value) if isinstance(value, str) else value


def plain(value: Any) -> Any:
    """Return a value as JSON has it: lists and mappings, and nothing in place of NaN."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
