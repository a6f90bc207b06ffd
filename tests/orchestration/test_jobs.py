"""The same scripts on a running cluster: they join by RAY_ADDRESS, survive the loss of a node, and are Ray jobs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from dcae15.artifacts import LatentSet, read_manifest
from tests.scripts import REPOSITORY, TINY, Workplace, wait_until, workplace

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

RAY = (sys.executable, "-m", "ray.scripts.scripts")
WORDS = ("--config", str(TINY), "tracking.enabled=false", "arms=[]")


@dataclass(frozen=True)
class Head:
    """A running head node with one CPU."""

    place: Workplace
    address: str
    dashboard: str
    working_dir: Path

    @property
    def variables(self) -> dict[str, str]:
        """What a script needs to join."""
        return {"RAY_ADDRESS": self.address, "RAY_AUTH_MODE": "disabled"}

    def environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {**self.place.environment(), "RAY_AUTH_MODE": "disabled", "PATH": path}

    @contextmanager
    def node(self, log: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run ``ray start`` with words, and end what it started."""
        command = [*RAY, "start", "--block", "--disable-usage-stats", "--num-cpus=1", *words]
        with log.open("wb") as out:
            process = subprocess.Popen(command, env=self.environment(), stdout=out, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.dashboard}/api/version", timeout=5) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def job(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run ``ray job`` with words."""
        command = [*RAY, "job", words[0], "--address", self.dashboard, *words[1:]]
        return subprocess.run(command, env=self.environment(), capture_output=True, text=True, timeout=600)

    def submit(self, storage: Path, *words: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        variables = json.dumps({"env_vars": {"DCAE15_STORAGE": str(storage)}})
        script = ("python", "pipelines/full.py", "--config", "tiny.yaml", *words)
        where = ("--working-dir", str(self.working_dir), "--runtime-env-json", variables)
        return self.job("submit", *where, *options, "--", *script)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    folder = tmp_path_factory.mktemp("head")
    working_dir = folder / "code"
    for part in ("dcae15", "pipelines"):
        shutil.copytree(REPOSITORY / part, working_dir / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(TINY, working_dir / "tiny.yaml")
    with workplace(folder / "cwd") as place:
        port, dashboard, client = free_ports(3)
        head = Head(place, f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}", working_dir)
        options = {
            "port": port,
            "node-ip-address": "127.0.0.1",
            "dashboard-host": "127.0.0.1",
            "dashboard-port": dashboard,
            "ray-client-server-port": client,
            "dashboard-agent-listen-port": 0,
            "min-worker-port": 0,
            "max-worker-port": 0,
            "object-store-memory": 200_000_000,
            "temp-dir": place.ray,
        }
        log = folder / "head.log"
        with head.node(log, "--head", *(f"--{name}={value}" for name, value in options.items())) as process:
            wait_until(lambda: head.answers() or process.poll() is not None, 120, "the dashboard answers")
            wait_until(lambda: bool(place.raylets()) or process.poll() is not None, 120, "the head node is there")
            assert process.poll() is None, log.read_text()
            yield head
        wait_until(lambda: not place.ray_processes(), 200, "Ray has ended")


def test_a_script_joins_a_running_cluster_and_goes_on_without_a_lost_node(head, finished, tmp_path):
    sessions, first = head.place.ray_sessions(), head.place.raylets()
    expected = finished.artifacts["cache_latents"]
    storage = finished.copy(tmp_path / "storage", "images", "autoencoder")
    folder = storage / "latents" / expected.name
    words = ("--address", head.address, "--node-ip-address=127.0.0.1", "--object-store-memory=100000000")

    def written() -> set[Path]:
        return set(folder.rglob("*.parquet.json"))

    with head.node(tmp_path / "node", *words, "--min-worker-port=0", "--max-worker-port=0"):
        wait_until(lambda: len(head.place.raylets()) == 2, 60, "a second node")
        (lost,) = head.place.raylets() - first
        log = tmp_path / "log"
        options = (*WORDS, f"storage={storage}", "scaling.encoders=[2,2]")  # one on each node
        run = head.place.start("cache_latents", *options, log=log, variables=head.variables)
        run.wait_for(lambda: head.place.worker("ray::MapWorker", {lost}) > 0, "an encoder on the head")
        ours = head.place.worker("ray::MapWorker", {lost})
        os.kill(ours, signal.SIGSTOP)  # the other node shall have something to lose
        try:
            run.wait_for(lambda: len(written()) >= 3 and head.place.worker("ray::MapWorker", first) > 0, "shards")
            os.kill(lost, signal.SIGKILL)
            wait_until(lambda: not head.place.worker("ray::MapWorker", first), 60, "the node is lost")
            before = {path: path.stat().st_mtime_ns for path in written()}
        finally:
            os.kill(ours, signal.SIGCONT)
        assert not (folder / "manifest.json").exists(), "the node was lost too late"
        run.finish()
    assert head.place.ray_sessions() == sessions, "it started no Ray of its own"
    assert read_manifest(str(folder))["splits"] == read_manifest(str(expected))["splits"]
    assert LatentSet.open(str(folder)).statistics == LatentSet.open(str(expected)).statistics
    again = [path.name for path, then in before.items() if path.stat().st_mtime_ns != then]
    assert len(again) <= 2, "at most the shard in hand and the waiting one are done again"


def test_no_cluster_at_the_address_is_a_sentence(head, tmp_path):
    variables = {**head.variables, "RAY_ADDRESS": f"127.0.0.1:{free_ports(1)[0]}"}
    done = head.place.run("prepare_images", f"storage={tmp_path}", variables=variables)
    assert done.code == 2
    assert "no Ray cluster answers at RAY_ADDRESS" in done.err
    assert "Traceback" not in done.err


def test_a_folder_too_deep_for_sockets_is_a_sentence(head, tmp_path):
    deep = tmp_path / ("d" * 90)
    deep.mkdir()
    variables = {"TMPDIR": str(deep), "RAY_TMPDIR": str(deep)}
    done = head.place.run("prepare_images", f"storage={tmp_path}", "tracking.enabled=false", variables=variables)
    assert done.code == 2
    assert "set RAY_TMPDIR to a folder with a short path" in done.err
    assert "Traceback" not in done.err


def test_a_job_stops_when_told_and_goes_on_when_submitted_again(head, finished, tmp_path):
    storage = finished.copy(tmp_path / "storage", "images")
    words = ("autoencoder.training.images=6400", "arms=[]", "diffusion.enabled=false", "tracking.enabled=false")
    submitted = head.submit(storage, *words, options=("--no-wait", "--submission-id", "first"))
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    wait_until(lambda: any(storage.glob("autoencoder/*/checkpoints/*.pt.json")), 400, "a checkpoint")
    stopped = head.job("stop", "first")
    assert stopped.returncode == 0 and "was stopped" in stopped.stdout + stopped.stderr
    assert not any(storage.glob("autoencoder/*/manifest.json"))

    done = head.submit(storage, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "autoencoder: continues at" in done.stdout, "the job's log shows the progress"
    assert "images  loss" in done.stdout
    report = json.loads((storage / "latest.json").read_text())["report"]
    assert f"report: {report}" in done.stdout
    assert Path(report).exists()


def test_a_job_that_cannot_work_fails(head, tmp_path):
    failed = head.submit(tmp_path / "storage", "autoencoder.training.lr=1")
    assert failed.returncode != 0
    assert "autoencoder.training.learning_rate" in failed.stdout + failed.stderr, "the nearest field is named"
