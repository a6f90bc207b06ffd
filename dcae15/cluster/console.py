"""What workers say reaches the driver's console in clean lines; everything else that they print stays in Ray's logs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray.exceptions import RayError

POLL_SECONDS = 2.0
HEARD_SECONDS = 30.0
Say = Callable[[str], None]
_unheard: list[Any] = []


@ray.remote(num_cpus=0, scheduling_strategy="DEFAULT")  # not within what a trial of a sweep reserved
class _Lines:
    """Holds lines until the driver takes them."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, line: str) -> None:
        self.lines.append(line)

    def take(self) -> list[str]:
        taken, self.lines = self.lines, []
        return taken


class _Speaker:
    """A picklable function that sends a line to the driver and does not wait."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor

    def __call__(self, line: str) -> None:
        _unheard[:] = [self.actor.add.remote(line)]  # lines arrive in order, so the last one stands for all


def wait_until_heard() -> None:
    """Wait until what this process said has arrived: it would be lost where the process is ended at once."""
    if _unheard:
        ray.wait(_unheard, timeout=HEARD_SECONDS)
        _unheard.clear()


@contextmanager
def console() -> Iterator[Say]:
    """Yield a function for workers to speak with; lines are printed while the block runs."""
    actor: Any = _Lines.remote()
    ended = threading.Event()

    def show() -> None:
        for line in ray.get(actor.take.remote()):
            print(line, flush=True)

    def poll() -> None:
        while not ended.wait(POLL_SECONDS):
            try:
                show()
            except RayError:  # the cluster is going away; the stage itself reports why
                return

    thread = threading.Thread(target=poll, name="dcae15-console", daemon=True)
    thread.start()
    try:
        yield _Speaker(actor)
    finally:
        ended.set()
        thread.join()
        with suppress(RayError):
            show()
            ray.kill(actor)
