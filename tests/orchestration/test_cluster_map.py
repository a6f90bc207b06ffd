"""Many items over actors on a real Ray: order, errors, deaths, growth, cost. One Ray for all tests of this file.

Its head has no CPUs, and the test of growth adds the only other node: all tests before it run on a node of their own.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from ray.cluster_utils import Cluster as Nodes
from ray.exceptions import RayTaskError

from dcae15.cluster import Cluster, Pool
from dcae15.cluster.connection import ENVIRONMENT
from dcae15.config import Config
from dcae15.errors import DataError
from tests.scripts import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import tests

ONE, TWO = Pool(1, 1), Pool(2, 2)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, os.environ.get(name, value))
        patch.setenv("RAY_AUTH_MODE", "disabled")
        nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        patch.setenv("RAY_ADDRESS", nodes.address)
        try:
            yield nodes
        finally:
            nodes.shutdown()


@pytest.fixture
def cluster(bare: Cluster, nodes: Nodes) -> Cluster:
    """A cluster with the CPUs of one node, also where the test of growth, which adds it, is not among those that run."""
    if not ray.cluster_resources().get("CPU"):
        nodes.add_node(num_cpus=2)
    return bare


@pytest.fixture(scope="module")
def bare(nodes: Nodes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster without any CPU at first, which is joined: see the first test."""
    with Cluster(Config(storage=str(tmp_path_factory.mktemp("storage")))) as cluster:
        cluster.join()
        yield cluster


def run(cluster: Cluster, make, items, pool: Pool = ONE, **options) -> dict[int, object]:
    return dict(cluster.map("test", make, items, pool, unit="things", **options))


def test_a_pool_grows_onto_nodes_that_join_later(bare, nodes, tmp_path):
    def where(item: int) -> str:
        (tmp_path / str(item)).touch()
        while len(list(tmp_path.iterdir())) < 2:  # two run side by side, or this never ends
            threading.Event().wait(0.02)
        return ray.get_runtime_context().get_node_id()

    assert bare.resources.cpus == 0
    with ThreadPoolExecutor(1) as thread:
        found = thread.submit(run, bare, lambda: where, range(2), Pool(least=1, most=0))
        wait_until(lambda: bool(living()), 60, "an actor is asked for, which has nowhere to run")
        node = nodes.add_node(num_cpus=2)
        assert set(found.result(120).values()) == {node.node_id}


def test_results_come_with_the_places_of_their_items_and_workers_can_speak_meanwhile(cluster, capsys):
    with cluster.console() as say:

        def work(item: int) -> int:
            if item == 0:
                say("the first one")
            return 2 * item

        assert run(cluster, lambda: work, iter(range(20)), total=20) == {i: 2 * i for i in range(20)}
    lines = capsys.readouterr().out.splitlines()
    assert "the first one" in lines
    [last] = [line for line in lines if line.startswith("test: 20/20 things  ")]
    assert last.endswith("things/s  ETA 0:00")


def test_nothing_starts_where_nothing_is_left(cluster, capsys):
    assert run(cluster, lambda: pytest.fail("made"), [], done=3) == {}
    assert capsys.readouterr().out == "test: 3 of 3 things were done before; continuing\n"


class Noting:
    """Notes where it was made and where it is called, with how many threads."""

    def __init__(self) -> None:
        self.made_in = threading.get_ident()

    def __call__(self, item: int) -> tuple[bool, int]:
        return self.made_in == threading.get_ident(), torch.get_num_threads()


@pytest.mark.parametrize(("cpus", "threads"), [(2, 2), (0.5, 1)])
def test_a_worker_computes_in_the_thread_that_made_it_with_the_threads_of_its_cpus(cluster, cpus, threads):
    found = run(cluster, Noting, range(3), Pool(1, 1, cpus)).values()
    assert set(found) == {(True, threads)}


def failing(item: int) -> int:
    if item == 2:
        raise DataError("thing 2 cannot be made; mend it")
    return 1 // (item - 3)


def no_weights():
    raise DataError("no weights at /nowhere")


def test_what_a_worker_raises_arrives_as_it_was_and_mistakes_with_their_trace(cluster):
    with pytest.raises(DataError, match=r"^thing 2 cannot be made; mend it$"):
        run(cluster, lambda: failing, range(3))
    with pytest.raises(DataError, match=r"^no weights at /nowhere$"):
        run(cluster, no_weights, range(3))
    with pytest.raises(RayTaskError, match=r"(?s)in failing.*ZeroDivisionError"):
        run(cluster, lambda: failing, [3])


def test_an_error_stops_the_others(cluster, tmp_path):
    def work(item: int) -> None:
        if item:
            (tmp_path / "began").touch()
            while True:
                (tmp_path / "alive").write_text(str(time.monotonic()))
                threading.Event().wait(0.02)
        while not (tmp_path / "began").exists():
            threading.Event().wait(0.02)
        raise DataError("enough")

    before = living()
    with pytest.raises(DataError, match="enough"):
        run(cluster, lambda: work, range(2), TWO)
    wait_until(lambda: living() <= before, 30, "nothing works on")


def living() -> set[str]:
    actors = ray._private.state.state.actor_table(None)
    return {name for name, actor in actors.items() if actor["State"] != "DEAD"}


def dying(folder: Path, deaths: int, item: int) -> tuple[int, int]:
    """Die at item 3, so often; return the item and the process."""
    if item == 3 and len(list(folder.iterdir())) < deaths:
        (folder / str(time.monotonic_ns())).touch()
        os._exit(1)
    return item, os.getpid()


def test_a_worker_that_dies_is_replaced_and_nothing_is_lost(cluster, tmp_path):
    found = run(cluster, lambda: functools.partial(dying, tmp_path, 1), range(6))
    assert {place: item for place, (item, _) in found.items()} == {i: i for i in range(6)}
    assert len({process for _, process in found.values()}) == 2, "another process took over"


def test_an_item_that_kills_its_workers_is_tried_four_times_and_named(cluster, tmp_path):
    work = functools.partial(dying, tmp_path, 100)
    with pytest.raises(
        DataError, match=r"^test: the worker of thing <3> died each time \(ActorDiedError\)\. If its mem"
    ):
        run(cluster, lambda: work, range(6), describe=lambda item: f"thing <{item}>")
    assert len(list(tmp_path.iterdir())) == 4


def test_workers_that_cannot_start_are_not_started_for_ever(cluster):
    with pytest.raises(DataError, match=r"^test: a worker died each time before its first item"):
        run(cluster, lambda: os._exit(1), range(2))


def test_one_function_is_called_with_its_arguments_a_console_and_a_device(cluster, capsys):
    def function(first: int, second: int, say, device: str) -> str:
        say(f"{torch.get_num_threads()} threads")
        return f"{first} {second} {device}"

    assert cluster.call("test", function, first=1, second=2) == "1 2 cpu"
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "(raylet)" not in line] == [
        "1 threads"
    ]  # Ray may tell late how other workers died


def test_a_slow_worker_does_not_hold_up_the_others(cluster, tmp_path):
    def work(item: int) -> int:
        try:
            (tmp_path / "slow").touch(exist_ok=False)
        except FileExistsError:
            (tmp_path / str(item)).touch()
            return item
        while len(list(tmp_path.iterdir())) < 19:  # all but that in its hands and the one that waits for it
            threading.Event().wait(0.02)
        return item

    assert len(run(cluster, lambda: work, range(20), TWO)) == 20


def test_neither_time_nor_the_object_store_grows_with_the_items(cluster):
    def used() -> float:
        return cluster_memory - ray.available_resources().get("object_store_memory", 0)

    def seconds(count: int) -> float:
        items = (np.full(30_000, i) for i in range(count))  # 240 kB each, made one by one: too large to go inline
        results = cluster.map("test", lambda: lambda item: int(item[0]), items, ONE, unit="things", total=count)
        began = 0.0
        for n, (place, result) in enumerate(results):
            began = began or time.perf_counter()  # the actor has started
            assert place == result
            if n % 50 == 49:
                assert used() < 16 * 240_000, "more than what an actor has, and some"
        return time.perf_counter() - began

    cluster_memory = ray.cluster_resources()["object_store_memory"]
    few, many = seconds(50), seconds(400)
    assert many < 4 * 8 * few, "quadratic would be 64 times as long"
    wait_until(lambda: not living(), 30, "no actor is left")
    wait_until(lambda: ray.available_resources()["CPU"] == ray.cluster_resources()["CPU"], 30, "no CPU is taken")
