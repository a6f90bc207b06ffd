"""Warnings about a training phase that goes wrong although no number is infinite, from the rows of its history."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Mapping

Row = Mapping[str, float]

PATIENCE = 3  # rows in a row, both to believe in an illness and to believe in its cure
WINS_BELOW = 0.1  # hinge loss; a blind discriminator has 1
BLIND_WITHIN = 0.02  # of a hinge loss of 1, and of equal logits
JUMP = 3.0  # times the running median
MEDIAN_ROWS = 20
LEAST_ROWS = 5  # before a median means anything: the first rows of a run fall steeply


class Guards:
    """Watches the history of a run. A warning is raised once in a phase, and again only after it was cured.

    It is a function of the rows alone: show a resumed run the rows of its checkpoint, and it goes on as if never stopped.
    """

    def __init__(self) -> None:
        self._enter(0.0)

    def _enter(self, phase: float) -> None:
        self._phase = phase
        self._losses: deque[float] = deque(maxlen=MEDIAN_ROWS)
        self._watches = [_Watch(PATIENCE), _Watch(PATIENCE), _Watch(PATIENCE), _Watch(1)]

    def observe(self, row: Row) -> list[str]:
        """Take in the next row; return what is wrong from now on, and which fields to change.

        Columns that it lacks warn of nothing.
        """
        if row.get("phase", 0.0) != self._phase:
            self._enter(row["phase"])
        found = [_wins(row), _blind(row), _dead(row), self._jump(row)]
        return [message for watch, message in zip(self._watches, found, strict=True) if watch.raises(bool(message))]

    def _jump(self, row: Row) -> str:
        if "loss" not in row:
            return ""
        loss, enough = row["loss"], len(self._losses) >= LEAST_ROWS
        median = statistics.median(self._losses) if enough else 0.0
        self._losses.append(loss)
        if not enough or loss <= JUMP * median:
            return ""
        return (
            f"the loss is {loss:.4g}, {loss / median:.1f} times its median of the rows before; if it does not come back, lower "
            "training.learning_rate, lengthen training.warmup_images or set training.clip_norm"
        )


class _Watch:
    """Whether an illness holds, believed after ``patience`` rows; that it is over, after ``PATIENCE`` rows."""

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.ill = False
        self.against = 0  # rows in a row that contradict what is believed

    def raises(self, seen: bool) -> bool:
        """Take in a row; True when the illness is believed from now on."""
        self.against = self.against + 1 if seen != self.ill else 0
        if self.against < (PATIENCE if self.ill else self.patience):
            return False
        self.ill, self.against = seen, 0
        return seen


def _judged(row: Row) -> bool:
    return "discriminator_loss" in row and row.get("adversarial_weight", 0.0) != 0


def _wins(row: Row) -> str:
    if not _judged(row) or row["discriminator_loss"] >= WINS_BELOW:
        return ""
    return (
        f"the discriminator always wins (hinge loss {row['discriminator_loss']:.3g} in {PATIENCE} rows): its "
        "judgement teaches little: lower adversarial.learning_rate, raise adversarial.weight, or let the autoencoder learn "
        "longer before it is judged (adversarial.start_images)"
    )


def _blind(row: Row) -> str:
    if not _judged(row):
        return ""
    real, fake = row.get("logits_real", 0.0), row.get("logits_fake", 0.0)
    if abs(row["discriminator_loss"] - 1) > BLIND_WITHIN or abs(real - fake) > BLIND_WITHIN:
        return ""
    return (
        f"the discriminator is blind (hinge loss {row['discriminator_loss']:.3g}, equal logits in {PATIENCE} rows): its "
        "judgement is noise: raise adversarial.learning_rate or adversarial.width, or begin to listen later "
        "(adversarial.start_images)"
    )


def _dead(row: Row) -> str:
    if row.get("dead_channels", 0.0) < 1:
        return ""
    return (
        f"{row['dead_channels']:.0f} latent channels are constant in {PATIENCE} rows, most likely the last ones: draw long "
        "prefixes more often (prefix.choice_weights), or always keep all channels in one draw (prefix.always_full)"
    )
