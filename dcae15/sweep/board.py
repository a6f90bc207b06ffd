"""What a user sees of a sweep while it runs: a table of its trials."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress

from dcae15.errors import StorageError
from dcae15.report.measures import measured
from dcae15.sweep.file import Sweep
from dcae15.sweep.records import label, latest, read_record
from dcae15.sweep.trials import Trial

LOOK_SECONDS = 5.0
PRINT_SECONDS = 30.0
"""Where lines cannot be rewritten (log files), a table that changed is printed so often at most."""


class Board:
    """Reads the records of the trials and prints them as a table when they changed.

    It begins with the trials that are known; a search adds others.
    """

    def __init__(self, sweep: Sweep, folder: str, trials: Sequence[Trial]) -> None:
        self._sweep, self._folder = sweep, folder
        self._by_id: dict[str, Trial] = {}
        self._started: set[str] = set()
        for trial in trials:
            self._add(trial)
        self._looked = self._printed_at = 0.0
        self._printed, self._lines = "", 0

    @property
    def records(self) -> list[Trial]:
        """What is known of the trials."""
        return list(self._by_id.values())

    def _add(self, trial: Trial) -> None:
        if trial.id not in self._by_id:
            self._by_id[trial.id] = read_record(self._folder, trial.id) or trial

    def start(self, trial: Trial) -> None:
        """Note that a trial begins; records of others do not change."""
        self._add(trial)
        self._started.add(trial.id)

    def look(self, *, now: bool = False) -> None:
        """Read what may have changed, and print; seldom enough to be called all the time."""
        if not now and time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        for name in self._started:
            if not self._by_id[name].ended:
                with suppress(StorageError):  # the table alone would not be worth stopping for
                    self._by_id[name] = read_record(self._folder, name) or self._by_id[name]
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


def table(sweep: Sweep, records: Iterable[Trial]) -> str:
    """Return the trials as a table of text, and a line that counts them."""
    rows = [("trial", "state", "stage", "images", sweep.metric, "time")]
    for record in records:
        running = [name for name, stage in record.stages.items() if stage.get("state") == "runs"]
        value = latest(record, sweep.metric)
        rows.append(
            (
                label(sweep, record) or record.id,
                record.status,
                running[-1] if running and record.status == "running" else "",
                f"{record.curve[-1]['images']:,.0f}" if record.curve else "",
                f"{value:.4g}" if measured(value) else "",
                f"{record.seconds / 60:.1f} min" if record.seconds else "",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    states = [row[1] for row in rows[1:]]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    return "\n".join([*lines, f"{sweep.name}: {len(states)} trials: {counts}"])
