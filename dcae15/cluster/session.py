"""The cluster as stages see it: `Cluster.map` for many things, `Cluster.call` for one, `Cluster.train` for training."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Generator, Iterable, Sequence, Sized
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from dcae15 import storage, tracking
from dcae15.cluster.machine import ray_address, this_machine
from dcae15.cluster.progress import Progress
from dcae15.cluster.resources import Pool, Resources
from dcae15.config import Config

if TYPE_CHECKING:
    from dcae15.runtime import Runtime

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class Cluster:
    """Ray for the stages of a pipeline: joined when something needs it, left while the driver itself trains.

    A local Ray's idle processes would take their part of the cores from the training, which needs nothing of them. Nor is a local
    one started for what a single worker does: that is done in this process, unless Ray runs already. What a stage leaves behind
    for another is in the storage, never in Ray. A ``share`` is what the stages may use of a cluster that this process is part of
    already; it is neither joined nor left.
    """

    def __init__(self, config: Config, share: Resources | None = None) -> None:
        self.scaling = config.scaling
        self._config, self._is_share = config, share is not None
        self._resources = replace(share, grows=False) if share else None
        self._connection = ExitStack()
        self._joined = False
        self.seconds_joining = 0.0  # so far; no stage's work

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *error: object) -> None:
        self.leave()

    @property
    def resources(self) -> Resources:
        """What this machine offers, or the cluster did when it was last joined; that is joined to ask, see `join`."""
        if self._resources is None and ray_address() == "local":
            self._resources = this_machine()
        return self._resources or self.join()

    @property
    def device(self) -> str:
        """Where stages compute on the cluster: ``cuda`` or ``cpu``."""
        return "cuda" if self.resources.uses_gpu(self.scaling) else "cpu"

    @property
    def encoders(self) -> Pool:
        """A pool for stages that run a network over shards."""
        return self.resources.encoders(self.scaling)

    @property
    def trains_in_process(self) -> bool:
        """Whether training runs in this process, without Ray."""
        return self.resources.trains_in_process(self.scaling)

    def join(self) -> Resources:
        """Start or join Ray unless that is done; the verbs do it themselves.

        Raises:
            ConfigError: more is asked for than the cluster has, or it cannot be joined.
            StorageError: the workers cannot reach the storage.
        """
        if self._resources is None or not (self._joined or self._is_share):
            from dcae15.cluster.connection import connect

            began = time.perf_counter()
            self._resources = self._connection.enter_context(connect(self._config))
            self.seconds_joining += time.perf_counter() - began
            self._joined = True
        return self._resources

    def _is_here(self, pool: Pool) -> bool:
        """Tell whether this process does the work of a pool: one worker on this machine, where no Ray runs of its own.

        Only Ray knows which GPU is a share's.
        """
        return pool.most == 1 and self.resources.local and not self._joined and not (self._is_share and pool.gpus)

    def console(self) -> AbstractContextManager[Callable[[str], None]]:
        """Yield a picklable function for workers: the driver prints what they say, and they do not wait for it."""
        from dcae15.cluster.console import console

        self.join()
        return console()

    def map(
        self,
        name: str,
        make_worker: Callable[[], Callable[[ItemT], ResultT]],
        items: Iterable[ItemT],
        pool: Pool,
        *,
        unit: str = "images",
        size: Callable[[ItemT], int] = lambda item: 1,
        total: int | None = None,
        done: int = 0,
        describe: Callable[[ItemT], str] = repr,
    ) -> Generator[tuple[int, ResultT], None, None]:
        """Call workers with many items; yield (place among the items, result) as they are done, with a line of progress.

        An item may be worked on twice, when its worker or node dies, so that must be safe. At most two items for each actor
        are under way: neither the driver's work nor what Ray holds grows with the number of items.

        Args:
            name: of the stage, in progress lines.
            make_worker: makes the worker inside an actor, in the thread that will compute; must be picklable. On this machine
                alone, a pool of one is this process.
            items: what to work on; taken one by one, so they may be made on the way. Must be picklable.
            pool: the actors.
            unit: what is counted, in progress lines.
            size: how many of that an item is.
            total: how many of that there are, with those done before; None adds up the sizes of a sequence.
            done: how many of that were done before.
            describe: names an item in messages.

        Raises:
            Dcae15Error: what a worker raised; the others are stopped.
            DataError: an item's workers died each time; it is named.
        """
        if total is None:
            items = items if isinstance(items, Sequence) else list(items)
            total = done + sum(map(size, items))
        progress = Progress(name, unit, total, done)
        if isinstance(items, Sized) and not len(items):
            return
        if self._is_here(pool):
            from dcae15.cluster.here import results

            work = results(make_worker, items, pool)
        else:
            self.join()
            from dcae15.cluster.map import Crew

            work = Crew(name, make_worker, items, pool, describe).results()
        with closing(work):
            for place, item, result in work:
                progress.advance(size(item))
                yield place, result

    def call(self, name: str, function: Callable[..., ResultT], **arguments: Any) -> ResultT:
        """Call a function on the cluster; it has all CPUs of a local machine, some of a node, and a GPU where there are any.

        It is called with the arguments, ``say`` (sends a line to the console) and ``device``, and must be picklable. On this
        machine alone it is called in this process.

        Raises:
            Dcae15Error: what the function raised.
            DataError: its workers died each time.
        """
        resources = self.resources
        cpus = resources.cpus if resources.local else max(1, min(4, resources.cpus // 2))
        pool = Pool(1, 1, cpus, 1.0 if self.device == "cuda" else 0.0)
        if self._is_here(pool):
            from dcae15.cluster.here import results

            work = functools.partial(function, say=functools.partial(print, flush=True), device=self.device)
            [(_, _, result)] = results(lambda: lambda given: work(**given), [arguments], pool)
            return result
        from dcae15.cluster.map import Crew

        with self.console() as say:
            work = functools.partial(function, say=say, device=self.device)
            crew = Crew(name, lambda: lambda given: work(**given), [arguments], pool, lambda _: name)
            [(_, _, result)] = crew.results()
        return result

    def train(
        self, function: Callable[..., None], config: Config, tracker: tracking.TrackerSpec, **arguments: Any
    ) -> None:
        """Call a training function in each of the cluster's training workers, or in this process.

        Args:
            function: called with the configuration, ``runtime``, ``tracker`` and the arguments; must be picklable.
            config: the configuration.
            tracker: where the first worker tracks.
            arguments: for the function; ``uri`` and ``fingerprint`` of what it makes are among them.

        Raises:
            Dcae15Error: what the function raised.
            TrainingError: it failed more often than ``scaling.max_failures``.
        """
        from dcae15.cluster.train import train_in_process, train_on_workers

        resources, uri = self.resources, arguments["uri"]
        resources.check_workers(self.scaling)
        body = functools.partial(_train, function, config, tracker, arguments)
        notes = storage.join(config.storage, ".ray", arguments["fingerprint"])
        if self.trains_in_process:
            self.leave()
            train_in_process(body, resources, self.scaling, uri)
            storage.remove(notes)  # of a killed attempt that had workers
            return
        self.join()
        with self.console() as say:
            train_on_workers(body, resources, self.scaling, uri, notes, say)

    def leave(self) -> None:
        """Leave Ray until something needs it again; a share is not left."""
        self._joined = False
        self._connection.close()


def _train(
    function: Callable[..., None],
    config: Config,
    tracker: tracking.TrackerSpec,
    arguments: dict[str, Any],
    runtime: Runtime,
) -> None:
    tracks = tracking.Tracker(tracker if runtime.rank == 0 else tracking.TrackerSpec())
    function(config, runtime=runtime, tracker=tracks, **arguments)
