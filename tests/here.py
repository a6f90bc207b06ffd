"""A cluster that does everything in this process, one thing after the other."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Any

from dcae15.cluster import Cluster, Pool, Resources
from dcae15.config import Config


class Here(Cluster):
    """Never starts Ray; notes how often items were mapped."""

    def __init__(self, config: Config | None = None) -> None:
        super().__init__(config or Config(), Resources(1, 0, local=True))
        self.mapped: list[str] = []

    def map(
        self, name: str, make_worker: Callable[[], Callable[[Any], Any]], items: Iterable[Any], pool: Pool, **_: Any
    ) -> Generator[tuple[int, Any], None, None]:
        items = list(items)
        self.mapped += [name] * len(items)
        work = make_worker() if items else None
        for place, item in enumerate(items):
            yield place, work(item)
