"""This machine: its CPUs and GPUs, without starting Ray, and how its computing threads wait for each other."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dcae15.cluster.resources import Resources

CGROUPS = Path("/sys/fs/cgroup")
TASKS = Path("/proc/self/task")
SPIN = {
    "GOMP_SPINCOUNT": "10000",  # GNU's OpenMP, in torch's wheels for Linux: half a millisecond; its own 300,000 are ten
    "KMP_BLOCKTIME": "1",  # LLVM's and Intel's, elsewhere: milliseconds; their own is 200
}
"""How long a computing thread that waits for another one stays awake. Read when torch is loaded."""
CHECK_SECONDS = 1.0
PUSHED_ASIDE = 0.15
"""Above this share of the time, all threads together, they wait for a core: other processes have it."""


def set_spin() -> None:
    """Set how long threads wait awake, unless the user said anything about that."""
    if "OMP_WAIT_POLICY" not in os.environ:  # which the counts would override
        for name, value in SPIN.items():
            os.environ.setdefault(name, value)


def ray_address() -> str:
    """Return the address of the cluster that the environment names, or ``local`` where this machine is all there is."""
    return os.environ.get("RAY_ADDRESS") or "local"


def this_machine() -> Resources:
    """Return what this machine offers to this process; a local Ray is told the same."""
    import torch

    gpus = torch.cuda.device_count()  # of CUDA_VISIBLE_DEVICES, which asking does not initialise
    cpus = usable_cpus()
    return Resources(cpus, gpus, local=True, cpus_per_gpu=cpus // gpus if gpus else 0)


def usable_cpus(cgroups: Path = CGROUPS) -> int:
    """Return how many CPUs this process may use: what it is bound to, and what its container is allowed."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    files = [(cgroups / "cpu.max",), (cgroups / "cpu" / "cpu.cfs_quota_us", cgroups / "cpu" / "cpu.cfs_period_us")]
    for quota_and_period in files:  # of version 2, of version 1
        try:
            quota, period = " ".join(path.read_text() for path in quota_and_period).split()
            if quota != "max" and int(quota) > 0:
                cpus = min(cpus, int(quota) // int(period))
        except (OSError, ValueError):
            continue
    return max(1, cpus)


@contextmanager
def computing(threads: int) -> Iterator[None]:
    """Compute with so many threads of torch within, which leave their cores to others where others want them."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(ended,), name="dcae15-neighbours", daemon=True)
    watches = threads > 1 and pushed_aside() is not None
    if watches:
        watcher.start()
    try:
        yield
    finally:
        ended.set()
        if watches:
            watcher.join()
        torch.set_num_threads(before)


def pushed_aside() -> dict[str, float] | None:
    """Return how many seconds each thread of this process was ready and had no core; None where Linux does not say it."""
    waited: dict[str, float] = {}
    try:
        for task in TASKS.iterdir():
            try:
                waited[task.name] = int((task / "schedstat").read_text().split()[1]) / 1e9
            except (ProcessLookupError, FileNotFoundError):  # it has ended meanwhile
                if task.exists():
                    return None
    except OSError:
        return None
    return waited


def _watch(ended: threading.Event) -> None:
    """Switch to short waits while this process's threads are pushed aside, and back."""
    before, then = pushed_aside() or {}, time.monotonic()
    short: ShortWaits | None = None
    while not ended.wait(CHECK_SECONDS):
        waited, now = pushed_aside() or {}, time.monotonic()
        seconds = sum(value - before.get(name, 0.0) for name, value in waited.items())
        busy = seconds > PUSHED_ASIDE * (now - then)
        before, then = waited, now
        if busy and short is None:
            short = ShortWaits()
        elif not busy and short is not None:
            short = short.end()
    if short is not None:
        short.end()


class ShortWaits:
    """While it is there, computing threads soon sleep where they wait for each other.

    Awake they go on at once, and a small network has hundreds of such places in a step. But where another process has pushed one
    thread aside, those that wait for it awake keep it from the other core: training falls to a tenth of its speed.

    GNU's OpenMP reads ``GOMP_SPINCOUNT`` only once. But it waits for at most a hundredth of that while it has more threads than
    CPUs. So a second pool of threads, asleep, is the switch. The threads that compute stay the same, and so does every bit of the
    result. Where there are fewer of them than CPUs, or another OpenMP, nothing changes.
    """

    def __init__(self) -> None:
        self._over, started = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._hold, args=(started,), name="dcae15-short-waits", daemon=True)
        self._thread.start()
        started.wait()

    def _hold(self, started: threading.Event) -> None:
        import torch

        try:
            torch.zeros(1 << 20).add_(1)  # large enough to start this thread's own pool
        finally:
            started.set()
        self._over.wait()

    def end(self) -> None:
        """Let threads wait awake again."""
        self._over.set()
        self._thread.join()
