"""Plain functions on many items, as Ray tasks; results come back one by one."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from dcae15.errors import DataError, Dcae15Error

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

_LEAST_AHEAD = 64  # tasks that wait or run, so that a cluster which can grow sees what for


def fan_out(
    stage: str,
    function: Callable[[ItemT], ResultT],
    items: Sequence[ItemT],
    cpus: int,
    unit: str,
    describe: Callable[[ItemT], str],
) -> Iterator[tuple[int, ResultT]]:
    """Call a function for each item on the cluster; yield (place in items, result) as they are done.

    A task whose worker or node dies is repeated, so the function must be safe to repeat.

    Args:
        stage: name in progress lines.
        function: called in a worker; must be picklable.
        items: its arguments; must be picklable.
        cpus: CPUs of the cluster; some more tasks than that are under way at once.
        unit: what an item is, in progress lines.
        describe: names an item in messages.

    Raises:
        Dcae15Error: what the function raised; tasks that wait are cancelled.
        DataError: the workers of a task died each time; its item is named.
    """

    @ray.remote(num_cpus=1, max_retries=3, scheduling_strategy="DEFAULT")  # see measure.py
    def call(item: bytes) -> bytes:
        try:
            return pickle.dumps(function(pickle.loads(item)))  # noqa: S301  # ours, from the driver
        except Dcae15Error as error:  # Ray would wrap it, and log its trace
            return pickle.dumps(error)

    began = printed = time.perf_counter()
    running: dict[Any, int] = {}
    following, done = 0, 0
    try:
        while done < len(items):
            while following < len(items) and len(running) < max(_LEAST_AHEAD, 2 * cpus):
                running[call.remote(pickle.dumps(items[following]))] = following
                following += 1
            (ready,), _ = ray.wait(list(running), num_returns=1)
            place = running.pop(ready)
            result = _result(stage, ready, lambda place=place: describe(items[place]))
            if isinstance(result, Dcae15Error):
                raise result
            done += 1
            now = time.perf_counter()
            if now - printed > 3 or done == len(items):
                printed = now
                eta = int((now - began) / done * (len(items) - done))
                print(f"{stage}: {done:,}/{len(items):,} {unit}  ETA {eta // 60}:{eta % 60:02d}", flush=True)
            yield place, result
    finally:
        for task in running:
            ray.cancel(task)


def _result(stage: str, task: Any, what: Callable[[], str]) -> Any:
    """Return what a task returned."""
    try:
        data: Any = ray.get(task)
    except RayTaskError:
        raise  # a mistake in code
    except RayError as error:
        raise DataError(
            f"{stage}: the worker of {what()} died each time ({type(error).__name__}). If its memory did not suffice, "
            f"give the workers more, or run fewer at once; else the file may crash the library that reads it: look at it."
        ) from error
    return pickle.loads(data)  # noqa: S301  # ours, from a task
