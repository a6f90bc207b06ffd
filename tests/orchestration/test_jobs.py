"""The same script on a running cluster: it joins by RAY_ADDRESS, and it is a Ray job with exit code, logs and stop."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dcae15 import artifacts
from tests.scripts import REPOSITORY, TINY, Workplace, wait_until, workplace

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1800)]


@dataclass(frozen=True)
class Head:
    """A running head node."""

    place: Workplace
    address: str
    dashboard: str
    working_dir: Path

    def environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {**self.place.environment(), "RAY_AUTH_MODE": "disabled", "PATH": path}

    def job(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run ``ray job`` with words."""
        command = [
            sys.executable,
            "-m",
            "ray.scripts.scripts",
            "job",
            words[0],
            "--address",
            self.dashboard,
            *words[1:],
        ]
        return subprocess.run(command, env=self.environment(), capture_output=True, text=True, timeout=900)

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
            "num-cpus": 2,
            "object-store-memory": 300_000_000,
            "temp-dir": place.ray,
        }
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
        with (folder / "head.log").open("wb") as log:
            process = subprocess.Popen(
                [*command, *(f"--{name}={value}" for name, value in options.items())],
                env=head.environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_until(
                lambda: head.job("list").returncode == 0 or process.poll() is not None, 120, "the dashboard answers"
            )
            assert process.poll() is None, (folder / "head.log").read_text()
            yield head
        finally:
            process.terminate()
            process.wait(60)
            wait_until(lambda: not place.ray_processes(), 300, "Ray has ended")


def test_the_script_joins_a_running_cluster(head, tmp_path):
    sessions = head.place.ray_sessions()
    words = ("--config", str(TINY), f"storage={tmp_path / 'storage'}")
    done = head.place.run(
        "prepare_images", *words, variables={"RAY_ADDRESS": head.address, "RAY_AUTH_MODE": "disabled"}
    )
    assert done.code == 0, done.err
    assert head.place.ray_sessions() == sessions, "it started no Ray of its own"
    (folder,) = (tmp_path / "storage" / "images").iterdir()
    assert artifacts.ImageSet.open(str(folder)).splits["train"].count == 300


def test_no_cluster_at_the_address_is_a_sentence(head, tmp_path):
    variables = {"RAY_ADDRESS": f"127.0.0.1:{free_ports(1)[0]}", "RAY_AUTH_MODE": "disabled"}
    done = head.place.run("prepare_images", f"storage={tmp_path}", variables=variables)
    assert done.code == 2
    assert "no Ray cluster answers at RAY_ADDRESS" in done.err
    assert "Traceback" not in done.err


def test_a_folder_too_deep_for_sockets_is_a_sentence(head, tmp_path):
    deep = tmp_path / ("d" * 90)
    deep.mkdir()
    variables = {"TMPDIR": str(deep), "RAY_TMPDIR": str(deep)}
    done = head.place.run("prepare_images", f"storage={tmp_path}", variables=variables)
    assert done.code == 2
    assert "set RAY_TMPDIR to a folder with a short path" in done.err
    assert "Traceback" not in done.err


def test_a_job_stops_when_told_and_goes_on_when_submitted_again(head, tmp_path):
    storage = tmp_path / "storage"
    words = ("autoencoder.training.images=8000", "autoencoder.training.checkpoint_images=320", "arms=[]")
    submitted = head.submit(storage, *words, options=("--no-wait", "--submission-id", "first"))
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    wait_until(lambda: any(storage.glob("autoencoder/*/checkpoints/*.pt.json")), 600, "a checkpoint")
    stopped = head.job("stop", "first")
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    status = head.job("status", "first")
    assert "was stopped" in status.stdout + status.stderr
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
