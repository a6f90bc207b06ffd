"""Many items over a pool of actors that grows with the cluster; what dies is replaced, and an item that kills is named."""

from __future__ import annotations

import math
import pickle
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sized
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from dcae15.cluster.console import wait_until_heard
from dcae15.cluster.machine import computing
from dcae15.cluster.resources import Pool
from dcae15.errors import DataError, Dcae15Error

AHEAD = 2
"""Items that an actor has: one in hand, and one that waits for it."""
RETRIES = 3
"""How often an item is tried again whose worker died, and a worker that died before its first item."""


# The default strategy: not within what a trial of a sweep reserved.
@ray.remote(max_restarts=0, max_task_retries=0, scheduling_strategy="DEFAULT")
class MapWorker:
    """Makes a worker and hands it items, all in one thread.

    A pool of computing threads belongs to the thread that started it, and where two pools exceed the CPUs, OpenMP halves the
    speed of both. Results are pickled: Ray would leave large ones in its object store for as long as the driver uses them.
    """

    def start(self, make_worker: Callable[[], Callable[[Any], Any]], threads: int) -> Dcae15Error | None:
        """Make the worker; return what of ours went wrong."""
        self.threads = threads
        try:
            with computing(threads):
                self.worker = make_worker()
        except Dcae15Error as error:  # returned: raised, Ray would wrap it, and log its trace
            return error
        return None

    def work(self, item: Any) -> bytes:
        """Return the pickled result, or error of ours."""
        try:
            with computing(self.threads):
                result = self.worker(item)
        except Dcae15Error as error:
            result = error
        wait_until_heard()
        return pickle.dumps(result)


@dataclass
class _Item:
    place: int
    item: Any
    deaths: int = 0


@dataclass(eq=False)
class _Member:
    """An actor of the pool, and what it has, oldest first."""

    handle: Any
    has: deque[tuple[Any, _Item]] = field(default_factory=deque)


class Crew:
    """The actors of a pool that are there or on their way, and the items that are left; see `dcae15.cluster.Cluster.map`.

    An actor says first that it has started, and gets items from then on: nothing waits in the hands of one that never comes.
    """

    def __init__(self, name: str, make_worker: Any, items: Iterable[Any], pool: Pool, describe: Callable[[Any], str]):
        self.name, self.pool, self.describe = name, pool, describe
        self.make_worker = ray.put(make_worker)
        self.coming = (_Item(place, item) for place, item in enumerate(items))
        self.left = len(items) if isinstance(items, Sized) else math.inf
        self.again: deque[_Item] = deque()  # before those that are coming
        self.starting: dict[Any, _Member] = {}
        self.working: dict[Any, _Member] = {}  # by each thing that they do
        self.members: set[_Member] = set()  # that have started
        self.died_starting = 0

    def results(self) -> Generator[tuple[int, Any, Any], None, None]:
        """Yield (place, item, result) as they are done."""
        try:
            while True:
                self._staff()
                under_way = [*self.working, *self.starting]
                if not under_way:
                    return
                (done,), _ = ray.wait(under_way, num_returns=1)
                if done in self.starting:
                    self._welcome(done, self.starting.pop(done))
                else:
                    yield from self._settle(self.working[done])
        finally:
            for member in [*self.members, *self.starting.values()]:
                self._dismiss(member)

    def _settle(self, member: _Member) -> Generator[tuple[int, Any, Any], None, None]:
        """Yield the result of the oldest item of an actor: it works in order, and when it dies, that was in its hands."""
        ref, item = member.has[0]
        try:
            result = pickle.loads(ray.get(ref))  # noqa: S301  # ours, from our own actor
        except RayTaskError:
            raise  # a mistake in code
        except RayError as error:
            self._lose(member, error)
            return
        if isinstance(result, Dcae15Error):
            raise result
        member.has.popleft()
        del self.working[ref]
        self._hand_out(member)
        yield item.place, item.item, result

    def _staff(self) -> None:
        """Start actors while there is more to do than those that run can take; dismiss those without work."""
        if not self._has_more():
            idle = [member for member in self.members if not member.has]
            for member in [*idle, *self.starting.values()]:
                self._dismiss(member)
            self.starting.clear()
            self.members.difference_update(idle)
        elif not self.starting:
            for _ in range(int(min(max(self.pool.least, len(self.members)), self._may_come()))):
                handle: Any = MapWorker.options(num_cpus=self.pool.cpus, num_gpus=self.pool.gpus).remote()
                self.starting[handle.start.remote(self.make_worker, self.pool.threads)] = _Member(handle)

    def _may_come(self) -> float:
        """How many more actors there would be work and leave for."""
        return min(self.left, (self.pool.most or math.inf) - len(self.members))

    def _welcome(self, started: Any, member: _Member) -> None:
        try:
            error: Dcae15Error | None = ray.get(started)
        except RayTaskError:
            raise
        except RayError as died:
            self._dismiss(member)
            self.died_starting += 1
            if self.died_starting > RETRIES:
                raise DataError(
                    f"{self.name}: a worker died each time before its first item ({type(died).__name__}). If its memory did "
                    "not suffice, give the workers more, or run fewer at once."
                ) from died
            return
        if error is not None:
            raise error
        self.died_starting = 0
        self.members.add(member)
        self._hand_out(member)

    def _hand_out(self, member: _Member) -> None:
        """Give an actor an item, and one ahead unless another actor may come and begin with that at once."""
        while len(member.has) < AHEAD and self._has_more() and (not member.has or self.left > self._may_come()):
            item = self.again.popleft()
            self.left -= 1
            ref = member.handle.work.remote(item.item)
            member.has.append((ref, item))
            self.working[ref] = member

    def _has_more(self) -> bool:
        if not self.again and (following := next(self.coming, None)) is not None:
            self.again.append(following)
        return bool(self.again)

    def _lose(self, member: _Member, error: RayError) -> None:
        """Take back what a dead actor had; the item in its hands is to blame."""
        blamed = member.has[0][1]
        blamed.deaths += 1
        if blamed.deaths > RETRIES:
            raise DataError(
                f"{self.name}: the worker of {self.describe(blamed.item)} died each time ({type(error).__name__}). If its memory "
                "did not suffice, give the workers more, or run fewer at once; else the file may crash the library that reads "
                "it: look at it."
            ) from error
        for ref, item in reversed(member.has):
            del self.working[ref]
            self.again.appendleft(item)
        self.left += len(member.has)
        self.members.discard(member)
        self._dismiss(member)

    def _dismiss(self, member: _Member) -> None:
        with suppress(RayError):  # it may be dead already
            ray.kill(member.handle)
