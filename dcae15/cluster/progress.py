"""How many of a stage's things are done, on the console."""

from __future__ import annotations

import time

PROGRESS_SECONDS = 3


class Progress:
    """A line at least every few seconds while things are done."""

    def __init__(self, name: str, unit: str, total: int, done: int) -> None:
        self.name, self.unit, self.total, self.done, self.before = name, unit, total, done, done
        self.began = self.printed = time.perf_counter()
        if done:
            print(f"{name}: {done:,} of {total:,} {unit} were done before; continuing", flush=True)

    def advance(self, count: int) -> None:
        """Count what is done, and say it when it is time."""
        self.done += count
        now = time.perf_counter()
        if now - self.printed < PROGRESS_SECONDS and self.done < self.total:
            return
        self.printed = now
        rate = (self.done - self.before) / max(now - self.began, 1e-9)
        eta = int((self.total - self.done) / max(rate, 1e-9))
        speed = f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"
        print(
            f"{self.name}: {self.done:,}/{self.total:,} {self.unit}  {speed} {self.unit}/s  ETA {eta // 60}:{eta % 60:02d}",
            flush=True,
        )
