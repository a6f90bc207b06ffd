"""Runs the scripts of `pipelines/` as users do: in processes of their own, with nothing of this process's settings."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
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

    @property
    def artifacts(self) -> dict[str, Path]:
        """Where each stage said that its artifact is."""
        found = re.findall(r"^(\w+): (?:done in \d+ s|reused \w+): (\S+)$", self.out, re.MULTILINE)
        return {stage: Path(uri) for stage, uri in found}

    @property
    def artifact(self) -> str:
        """The last artifact that a stage's script printed."""
        return re.findall(r"^artifact: (\S+)$", self.out, re.MULTILINE)[-1]


def run_here(script: Path, words: Sequence[str]) -> tuple[int, str, str]:
    """Run a script in this process, which spares the start of Python and torch; return exit code, stdout and stderr.

    For commands that start no Ray. What they change in this process is put back.
    """
    variables, handler, path, argv = dict(os.environ), signal.getsignal(signal.SIGTERM), list(sys.path), sys.argv
    sys.argv, code = [str(script), *words], 0
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        finally:
            os.environ.clear()
            os.environ.update(variables)
            signal.signal(signal.SIGTERM, handler)
            sys.path[:], sys.argv = path, argv
    return code, out.getvalue(), err.getvalue()


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

    def start(self, script: str, *words: str, log: Path, variables: Mapping[str, str] | None = None) -> Background:
        """Start a script of `pipelines/` in the background; its output is appended to ``log``."""
        command = [sys.executable, REPOSITORY / "pipelines" / f"{script}.py", *words]
        with log.open("ab") as out:
            environment = self.environment(variables)
            process = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=out, stderr=subprocess.STDOUT)
        return Background(self, process, log)

    def run_here(self, script: str, *words: str) -> Done:
        """As `run`, in this process: for commands that must not start Ray."""
        before, variables, began, sessions = Path.cwd(), dict(os.environ), time.monotonic(), self.ray_sessions()
        os.environ.clear()
        os.environ.update(self.environment())
        os.chdir(self.folder)
        try:
            done = run_here(REPOSITORY / "pipelines" / f"{script}.py", words)
        finally:
            os.chdir(before)
            os.environ.clear()
            os.environ.update(variables)
        assert self.ray_sessions() == sessions, f"{script} started Ray"
        assert "Traceback" not in done[2], done[2]
        return Done(*done, time.monotonic() - began)

    def ray_sessions(self) -> int:
        """How many times Ray was started here."""
        return len([path for path in self.ray.rglob("session_*") if path.is_dir() and not path.is_symlink()])

    def ray_processes(self) -> list[str]:
        """Command lines of the processes that belong to a Ray which was started here."""
        return [line for _, line in processes() if str(self.ray) in line]

    def raylets(self) -> set[int]:
        """The processes of the nodes of this place's Ray."""
        return {pid for pid, line in processes() if "raylet/raylet" in line and str(self.ray) in line}

    def worker(self, title: str, skip: Collection[int] = ()) -> int:
        """The process of a worker of this place's Ray whose title starts so, and whose raylet is not to be skipped; or 0."""
        raylets = self.raylets() - set(skip)
        found = (pid for pid, line in processes() if line.startswith(title) and parent(pid) in raylets)
        return next(found, 0)


@dataclass(frozen=True)
class Background:
    """A script that runs in the background."""

    place: Workplace
    process: subprocess.Popen[bytes]
    log: Path

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for a condition while the script runs."""
        wait_until(lambda: condition() or self.process.poll() is not None, 400, what, every=0.01)
        assert condition(), f"ended with {self.process.poll()} before: {what}\n{self.log.read_text()[-3000:]}"

    def end(self, number: int) -> int:
        """Send a signal to the driver; wait until it and its Ray are gone, and return its exit code."""
        self.process.send_signal(number)
        code = self.process.wait(200)
        wait_until(lambda: not self.place.ray_processes(), 200, "Ray ends with its driver")
        return code

    def finish(self) -> str:
        """Wait for success; return all that was printed."""
        code = self.process.wait(400)
        assert code == 0, self.log.read_text()[-3000:]
        return self.log.read_text()


@contextmanager
def workplace(folder: Path, variables: Mapping[str, str] | None = None) -> Iterator[Workplace]:
    """Yield a workplace below ``folder``; Ray's own folder has a short path, because sockets need one."""
    folder.mkdir(parents=True, exist_ok=True)
    ray = Path(tempfile.mkdtemp(prefix="dc", dir="/tmp"))
    try:
        yield Workplace(folder, ray, dict(variables or {}))
    finally:
        shutil.rmtree(ray, ignore_errors=True)


def wait_until(condition: Callable[[], bool], seconds: float, what: str, every: float = 0.1) -> None:
    """Wait until a condition holds; fail with ``what`` when it does not within the time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(every)


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Hold a lock that test processes share."""
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


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
