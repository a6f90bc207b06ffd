"""What one worker would do on one machine is done in this process, as Ray's worker does it and without Ray."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from collections.abc import Iterator

import pytest
import ray
import torch

from dcae15.cluster import Cluster, Pool, Resources
from dcae15.cluster.machine import this_machine
from dcae15.config import Config, ScalingConfig
from dcae15.errors import DataError

ONE = Pool(1, 1, 3.0)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with Cluster(Config(storage="/nowhere", scaling=ScalingConfig(use_gpu="no"))) as cluster:
        yield cluster
    assert not ray.is_initialized(), "Ray was started"


def run(cluster: Cluster, make, items, **options) -> dict[int, object]:
    return dict(cluster.map("test", make, items, ONE, unit="things", **options))


def test_resources_and_the_device_are_known_without_ray(cluster):
    assert cluster.resources == this_machine()
    assert (cluster.device, cluster.trains_in_process) == ("cpu", True)
    assert cluster.encoders == Pool(1, 1, cluster.resources.cpus)


@pytest.mark.parametrize("address", ["", "local"])
def test_an_empty_or_local_address_is_this_machine(monkeypatch, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert Cluster(Config(storage="/nowhere")).resources == this_machine()


def test_results_come_with_places_and_progress(cluster, capsys):
    assert run(cluster, lambda: lambda item: (os.getpid(), 2 * item), iter(range(20)), total=20) == {
        i: (os.getpid(), 2 * i) for i in range(20)
    }
    assert capsys.readouterr().out.splitlines()[-1].startswith("test: 20/20 things  ")
    assert run(cluster, lambda: pytest.fail("made"), [], done=3) == {}
    assert capsys.readouterr().out == "test: 3 of 3 things were done before; continuing\n"


def failing(item: int) -> int:
    if item == 2:
        raise DataError("thing 2 cannot be made; mend it")
    return 1 // (item - 3)


def no_weights():
    raise DataError("no weights at /nowhere")


def test_errors_arrive_as_they_were_and_mistakes_with_their_trace(cluster):
    before = torch.get_num_threads()
    with pytest.raises(DataError, match=r"^thing 2 cannot be made; mend it$"):
        run(cluster, lambda: failing, range(3))
    with pytest.raises(DataError, match=r"^no weights at /nowhere$"):
        run(cluster, no_weights, range(3))
    with pytest.raises(ZeroDivisionError) as caught:
        run(cluster, lambda: failing, [3])
    assert caught.traceback[-1].name == "failing"
    assert torch.get_num_threads() == before


class Network:
    """Something large that a worker holds, in a circle as networks with hooks are."""

    def __init__(self) -> None:
        self.me = self

    def work(self, item: int) -> tuple[int, int]:
        return torch.get_num_threads(), threading.get_ident()


def test_the_worker_has_its_threads_and_is_gone_afterwards(cluster):
    before, made = torch.get_num_threads(), []

    def make():
        network = Network()
        made.append(weakref.ref(network))
        return network.work

    assert set(run(cluster, make, range(3)).values()) == {(3, threading.get_ident())}
    assert torch.get_num_threads() == before
    gc.collect()
    assert [reference() for reference in made] == [None]


def test_who_stops_listening_stops_the_work(cluster):
    before, done = torch.get_num_threads(), []
    work = cluster.map("test", lambda: done.append, range(9), ONE)
    next(work)
    work.close()
    assert done == [0] and torch.get_num_threads() == before


def test_an_interrupt_passes(cluster):
    def stop(item: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(cluster, lambda: stop, range(3))


def test_a_function_is_called_with_all_cpus_a_console_and_a_device(cluster, capsys):
    def function(first: int, say, device: str) -> str:
        say(f"{torch.get_num_threads()} threads")
        return f"{first} {device}"

    assert cluster.call("test", function, first=1) == "1 cpu"
    assert capsys.readouterr().out == f"{cluster.resources.cpus} threads\n"


def test_what_needs_several_workers_or_the_gpu_of_a_share_is_rays(monkeypatch, cluster):
    class JoinedError(Exception):
        """Ray was asked for."""

    def join(cluster: Cluster) -> None:
        raise JoinedError

    monkeypatch.setattr(Cluster, "join", join)
    with pytest.raises(JoinedError):
        list(cluster.map("test", lambda: str, range(2), Pool(2, 2)))
    share = Cluster(Config(storage="/nowhere"), Resources(2, 1, local=True))
    with pytest.raises(JoinedError):
        share.call("test", str)
    assert dict(share.map("test", lambda: str, [5], Pool(1, 1))) == {0: "5"}
    with pytest.raises(JoinedError):  # a cluster that is not this machine
        list(
            Cluster(Config(storage="/nowhere"), Resources(2, 0, local=False)).map("test", lambda: str, [5], Pool(1, 1))
        )


def test_the_same_gpu_is_used_as_rays_worker_had(monkeypatch, capsys):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    cluster = Cluster(Config(storage="/nowhere"))
    assert cluster.call("test", lambda say, device: device) == "cuda"
    assert cluster.encoders == Pool(1, 1, 1.0, 1.0) and not ray.is_initialized()
