"""Items in this process, where a pool would be one worker: no other process to start, and none to wait for."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Any

from dcae15.cluster.machine import computing
from dcae15.cluster.resources import Pool


def results(
    make_worker: Callable[[], Callable[[Any], Any]], items: Iterable[Any], pool: Pool
) -> Generator[tuple[int, Any, Any], None, None]:
    """Yield (place, item, result), as `dcae15.cluster.map.Crew` does; nothing of the worker is left at the end.

    Where native code kills the worker, this process ends with it. What was finished is in the storage then.
    """
    import torch

    with computing(pool.threads):
        work = make_worker()
        try:
            for place, item in enumerate(items):
                yield place, item, work(item)
        finally:
            del work
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()  # a later stage may train in other processes on the same GPU
