"""Runs the scripts of `pipelines/` as users do: in processes of their own, with nothing of this process's settings."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
TINY = REPOSITORY / "tests" / "end_to_end" / "tiny.yaml"
PRIVATE = ("RAY_", "AWS_", "MLFLOW_", "DCAE15_", "PYTEST_")
THREADS = {"GOMP_SPINCOUNT": "0"}
"""Computing threads sleep while they wait for each other: on cores that other tests use too, that is nearly three times as fast
as the short wait that the scripts choose. The results are the same."""


def clean_environment() -> dict[str, str]:
    """The environment without what the machine, the tests or the user set for Ray, storage and tracking."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PRIVATE)} | THREADS


@dataclass(frozen=True)
class Done:
    """What a script did.

    Attributes:
        code: its exit code.
        out: what it printed.
        err: what it printed to stderr.
        seconds: how long it took.
    """

    code: int
    out: str
    err: str
    seconds: float

    def stages(self, what: str) -> list[str]:
        """The stages that were announced as ``runs`` or ``reused``, in order."""
        lines = [line.split() for line in self.out.splitlines()]
        return [words[0].rstrip(":") for words in lines if len(words) > 2 and words[1] == what]


@dataclass(frozen=True)
class Workplace:
    """Where scripts run: a working directory, an environment and a folder for all that Ray writes."""

    folder: Path
    ray: Path
    variables: dict[str, str] = field(default_factory=dict)

    def environment(self, variables: Mapping[str, str] | None = None) -> dict[str, str]:
        return {**clean_environment(), "RAY_TMPDIR": str(self.ray), **self.variables, **(variables or {})}

    def run(self, script: str, *words: str, variables: Mapping[str, str] | None = None, timeout_s: float = 800) -> Done:
        """Run a script of `pipelines/` to its end."""
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, REPOSITORY / "pipelines" / f"{script}.py", *words],
            cwd=self.folder,
            env=self.environment(variables),
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        return Done(done.returncode, done.stdout, done.stderr, time.monotonic() - began)

    def ray_sessions(self) -> int:
        """How many times Ray was started here."""
        return len([path for path in self.ray.rglob("session_*") if path.is_dir() and not path.is_symlink()])

    def ray_processes(self) -> list[str]:
        """Command lines of the processes that belong to a Ray which was started here."""
        return [line for _, line in processes() if str(self.ray) in line]


@contextmanager
def workplace(folder: Path, variables: Mapping[str, str] | None = None) -> Iterator[Workplace]:
    """Yield a workplace below ``folder``; Ray's own folder has a short path, because sockets need one."""
    folder.mkdir(parents=True, exist_ok=True)
    ray = Path(tempfile.mkdtemp(prefix="dc", dir="/tmp"))
    try:
        yield Workplace(folder, ray, dict(variables or {}))
    finally:
        shutil.rmtree(ray, ignore_errors=True)


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait until a condition holds; fail with ``what`` when it does not within the time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.1)


def processes() -> list[tuple[int, str]]:
    """Every process of the machine: its number and its command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append((int(path.parent.name), path.read_bytes().replace(b"\0", b" ").decode(errors="replace")))
        except OSError:  # it has ended meanwhile
            continue
    return found


def parent(pid: int) -> int:
    """The number of the process that started it; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return 0
