"""What a user sees of a training run while it runs: lines, tracked metrics, warnings."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from dcae15.tracking import Tracker
from dcae15.training.guards import Guards
from dcae15.training.trainer import Phase, Row, TrainState


class Progress:
    """Shows a line, tracks metrics and looks for trouble at every row of the history.

    Args:
        stage: name in the lines.
        phases: of the run.
        tracker: where metrics go.
        say: shows a line.

    Attributes:
        warnings: what was noticed, one sentence each, in order.
    """

    def __init__(self, stage: str, phases: Sequence[Phase], tracker: Tracker, say: Callable[[str], None]) -> None:
        self.stage, self.phases, self.tracker, self.say = stage, phases, tracker, say
        self.began = time.perf_counter()
        self.warnings: list[str] = []
        self._guards: tuple[int, Guards] | None = None

    def __call__(self, row: Row, state: TrainState) -> None:
        """Take in a row; ``state.history`` ends with it."""
        if len(self.phases) > 1 and self._new_phase(state):
            self.say(f"{self.stage}: phase {state.phase + 1} of {len(self.phases)}, {self.phases[state.phase].name}")
        if self._guards is None and state.resumed_from:
            self.say(f"{self.stage}: continues at {state.resumed_from:,} images")
        noticed = self._notice(row, state)
        total = self.phases[-1].last
        done = row["images"] - state.resumed_from
        left = max(0.0, total - row["images"])
        eta = int((time.perf_counter() - self.began) / done * left)
        self.say(
            f"{self.stage}: {row['images']:,.0f}/{total:,} images  loss {row['loss']:.4f}  "
            f"{row['images_per_second']:,.0f} images/s  data wait {row['data_wait']:.1%}  ETA {eta // 60}:{eta % 60:02d}",
        )
        for message in noticed:
            self.warn(message)
        self.tracker.metrics({name: value for name, value in row.items() if name != "images"}, step=int(row["images"]))

    def end(self, state: TrainState) -> None:
        """Take in the end of the run, which may have been another process's."""
        if self._guards is None:
            self._replay(state, len(state.history))
        for name, parameters in state.unmoved.items():
            self.warn(
                f"phase {name}: {len(parameters)} trainable parameters never changed, such as {parameters[0]}; "
                "is its learning rate 0?"
            )

    def warn(self, message: str) -> None:
        """Show and keep a warning."""
        self.warnings.append(message)
        self.say(f"{self.stage}: WARNING: {message}")
        self.tracker.tags({f"warning.{len(self.warnings)}": message})

    def _new_phase(self, state: TrainState) -> bool:
        return self._guards is None or self._guards[0] != state.phase

    def _notice(self, row: Row, state: TrainState) -> list[str]:
        """Return new warnings; what an earlier process noticed before this one took over is kept without being said again."""
        if self._guards is None:
            self._replay(state, len(state.history) - 1)
        elif self._guards[0] != state.phase:
            self._guards = (state.phase, Guards())
        assert self._guards is not None
        return [w.message for w in self._guards[1].observe(row)]

    def _replay(self, state: TrainState, rows: int) -> None:
        """Look at the first rows of the history, of processes before this one."""
        for phase in range(state.phase + 1):
            guards = Guards(row for row in state.history[:rows] if row["phase"] == phase)
            self.warnings += [warning.message for warning in guards.warnings]
            self._guards = (phase, guards)
