"""What a user sees of a sweep while it runs: a table of its trials."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from dcae15.config import Sweep, Trial
from dcae15.errors import StorageError
from dcae15.trials import TrialRecord, label, read_record, waiting

LOOK_SECONDS = 5.0
PRINT_SECONDS = 30.0
"""Where lines cannot be rewritten (log files), a table that changed is printed so often at most."""
DONE = ("finished", "stopped")


class Board:
    """Reads the records of the trials and prints them as a table when they changed.

    Args:
        sweep: the sweep.
        folder: URI of its folder.
        trials: that are known; a search adds others.
    """

    def __init__(self, sweep: Sweep, folder: str, trials: Sequence[Trial]) -> None:
        self._sweep, self._folder = sweep, folder
        self.records: dict[str, TrialRecord] = {}
        self._started: set[str] = set()
        for trial in trials:
            self.add(trial)
        self._looked = self._printed_at = 0.0
        self._printed, self._lines = "", 0

    def add(self, trial: Trial) -> None:
        """Make a trial known, if it is not."""
        if trial.id not in self.records:
            self.records[trial.id] = read_record(self._folder, trial.id) or waiting(self._sweep, trial)

    def start(self, trial: Trial) -> None:
        """Note that a trial begins; records of others do not change."""
        self.add(trial)
        self._started.add(trial.id)

    def look(self, *, now: bool = False) -> None:
        """Read what may have changed, and print; seldom enough to be called all the time."""
        if not now and time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        for name in self._started:
            if self.records[name].status not in DONE:
                with suppress(StorageError):  # the table alone would not be worth stopping for
                    self.records[name] = read_record(self._folder, name) or self.records[name]
        self._print(now)

    def _print(self, now: bool) -> None:
        text = table(self._sweep, self.records)
        columns, rows = shutil.get_terminal_size()
        steady = sys.stdout.isatty() and text.count("\n") + 2 < rows
        if steady:
            text = "\n".join(line[: columns - 1] for line in text.splitlines())
        if text == self._printed or not (now or steady or time.monotonic() - self._printed_at > PRINT_SECONDS):
            return
        if steady and self._lines:
            print(f"\x1b[{self._lines}A\x1b[J", end="")
        print(text, flush=True)
        self._printed, self._printed_at, self._lines = text, time.monotonic(), text.count("\n") + 1


def table(sweep: Sweep, records: Mapping[str, TrialRecord]) -> str:
    """Return the trials as a table of text, and a line that counts them."""
    rows = [("trial", "state", "stage", "images", sweep.metric, "time")]
    for record in records.values():
        running = [name for name, stage in record.stages.items() if stage.get("state") == "runs"]
        last = record.curve[-1] if record.curve else {}
        value = record.metrics.get(sweep.metric, last.get(sweep.metric))
        rows.append(
            (
                label(sweep, record) or record.id,
                record.status,
                running[-1] if running and record.status == "running" else "",
                f"{last['images']:,.0f}" if last else "",
                f"{value:.4g}" if value is not None else "",
                f"{record.seconds / 60:.1f} min" if record.seconds else "",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    states = [record.status for record in records.values()]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    return "\n".join([*lines, f"{sweep.name}: {len(records)} trials: {counts}"])
