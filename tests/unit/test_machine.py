"""What this machine is said to have, and how computing threads wait on it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
import torch

from dcae15.cluster import machine
from tests.scripts import REPOSITORY, wait_until


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in (*machine.SPIN, "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # so that it is put back at the end
        monkeypatch.delenv(name)
    return monkeypatch


def test_threads_wait_awake_for_a_short_time_unless_the_user_said_otherwise(environment):
    machine.set_spin()
    assert {name: os.environ[name] for name in machine.SPIN} == machine.SPIN
    environment.setenv("GOMP_SPINCOUNT", "7")
    machine.set_spin()
    assert os.environ["GOMP_SPINCOUNT"] == "7"


def test_the_users_wait_policy_is_not_overridden(environment):
    environment.setenv("OMP_WAIT_POLICY", "passive")
    machine.set_spin()
    assert not set(machine.SPIN) & set(os.environ)


@pytest.mark.parametrize(
    ("files", "most"),
    [
        ({}, 1 << 20),
        ({"cpu.max": "max 100000\n"}, 1 << 20),
        ({"cpu.max": "150000 100000\n"}, 1),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "300000 100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1 << 20),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
        ({"cpu.max": "odd\n"}, 1 << 20),
    ],
)
def test_cpus_are_those_that_the_process_is_bound_to_and_its_container_allows(files, most, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert machine.usable_cpus(tmp_path) == min(8, most)


def test_gpus_are_those_that_torch_sees(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(machine, "usable_cpus", lambda: 9)
    found = machine.this_machine()
    assert (found.cpus, found.gpus, found.local, found.cpus_per_gpu, found.grows) == (9, 2, True, 4, False)


def test_threads_are_set_within_and_put_back():
    before = torch.get_num_threads()
    with machine.computing(3):
        assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == before
    with pytest.raises(ValueError, match="mistake"), machine.computing(3):
        raise ValueError("mistake")
    assert torch.get_num_threads() == before


def names() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


def test_waits_are_short_as_long_as_threads_are_pushed_aside(monkeypatch):
    clock = {"waited": 0.0, "each": 0.0}

    def pushed_aside() -> dict[str, float]:
        clock["waited"] += clock["each"]
        return {"1": clock["waited"]}

    monkeypatch.setattr(machine, "pushed_aside", pushed_aside)
    monkeypatch.setattr(machine, "CHECK_SECONDS", 0.01)
    with machine.computing(2):
        assert "dcae15-neighbours" in names() and "dcae15-short-waits" not in names()
        clock["each"] = 100.0
        wait_until(lambda: "dcae15-short-waits" in names(), 60, "short waits", every=0.005)
        clock["each"] = 0.0
        wait_until(lambda: "dcae15-short-waits" not in names(), 60, "long waits again", every=0.005)
        clock["each"] = 100.0
        wait_until(lambda: "dcae15-short-waits" in names(), 60, "short waits", every=0.005)
    assert not {"dcae15-short-waits", "dcae15-neighbours"} & set(names()), "nothing stays"


def test_one_thread_waits_for_nobody_and_where_linux_says_nothing_nobody_watches(monkeypatch, tmp_path):
    with machine.computing(1):
        assert "dcae15-neighbours" not in names()
    monkeypatch.setattr(machine, "TASKS", tmp_path / "nothing")
    with machine.computing(2):
        assert "dcae15-neighbours" not in names()


@pytest.mark.skipif(not machine.TASKS.is_dir(), reason="Linux says how long threads wait for a core")
def test_a_thread_without_a_core_is_noticed():
    """Two threads that are bound to one core wait for each other, whatever else runs."""
    code = """
import os, subprocess, sys, threading
from dcae15.cluster.machine import pushed_aside
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
before = pushed_aside()
child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
try:
    for i in range(3 * 10**7): pass
finally:
    child.kill(); child.wait()
print(sum(pushed_aside().values()) - sum(before.values()))
"""
    assert float(run(code)) > 0.1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="torch has GNU's OpenMP on Linux only")
def test_the_switch_works_with_torchs_openmp():
    """A thread that waits for work a millisecond burns the core when it waits awake, and does not when waits are short."""
    code = """
import os, time, torch
from dcae15.cluster.machine import ShortWaits
torch.set_num_threads(len(os.sched_getaffinity(0)))
x = torch.zeros(1 << 16)
def burnt():
    before = time.process_time()
    for _ in range(300):
        x.add_(1); time.sleep(0.001)
    return time.process_time() - before
burnt()
awake = burnt(); short = ShortWaits(); asleep = burnt(); short.end(); again = burnt()
print(awake / asleep, again / asleep)
"""
    ratios = [float(word) for word in run(code, GOMP_SPINCOUNT="20000").split()]
    assert min(ratios) > 2, ratios


def run(code: str, **variables: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    environment |= {"PYTHONPATH": str(REPOSITORY), **variables}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout
