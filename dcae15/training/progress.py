"""What a user sees of a training run while it runs: lines, tracked metrics, warnings."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from dcae15.tracking import Tracker
from dcae15.training.guards import Guards
from dcae15.training.trainer import Phase, Row, TrainState


class Progress:
    """Shows a line, tracks metrics and looks for trouble at every row of the history."""

    def __init__(self, stage: str, phases: Sequence[Phase], tracker: Tracker, show: Callable[[str], None]) -> None:
        self.stage, self.phases, self.tracker, self.show = stage, phases, tracker, show
        self.began = time.perf_counter()
        self.warnings: list[str] = []  # what was noticed, one sentence each, in order
        self._guards = Guards()
        self._phase = -1  # of the last row; -1 before the first

    def __call__(self, row: Row, state: TrainState) -> None:
        """Take in a row; ``state.history`` ends with it."""
        if len(self.phases) > 1 and self._phase != state.phase:
            self.show(f"{self.stage}: phase {state.phase + 1} of {len(self.phases)}, {self.phases[state.phase].name}")
        if self._phase < 0:
            self._catch_up(state.history[:-1])
            if state.resumed_from:
                self.show(f"{self.stage}: continues at {state.resumed_from:,} images")
        self._phase = state.phase
        total = self.phases[-1].last
        done = row["images"] - state.resumed_from
        left = max(0.0, total - row["images"])
        eta = int((time.perf_counter() - self.began) / done * left)
        self.show(
            f"{self.stage}: {row['images']:,.0f}/{total:,} images  loss {row['loss']:.4f}  "
            f"{row['images_per_second']:,.0f} images/s  data wait {row['data_wait']:.1%}  ETA {eta // 60}:{eta % 60:02d}"
        )
        for message in self._guards.observe(row):
            self.warn(message)
        self.tracker.metrics({name: value for name, value in row.items() if name != "images"}, step=int(row["images"]))

    def end(self, state: TrainState) -> None:
        """Take in the end of the run, which may have been another process's."""
        if self._phase < 0:
            self._catch_up(state.history)
        for name, parameters in state.unmoved.items():
            self.warn(
                f"phase {name}: {len(parameters)} trainable parameters never changed, such as {parameters[0]}; "
                "is its learning rate 0?"
            )

    def warn(self, message: str) -> None:
        """Show and keep a warning."""
        self.warnings.append(message)
        self.show(f"{self.stage}: WARNING: {message}")
        self.tracker.tags({f"warning.{len(self.warnings)}": message})

    def _catch_up(self, rows: Sequence[Row]) -> None:
        """Look at the rows of processes before this one, and keep what they noticed without showing it again."""
        for row in rows:
            self.warnings += self._guards.observe(row)
