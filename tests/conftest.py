"""Fixtures that all tests share: a finished pipeline, and the S3 server.

Tests that use `s3_server`, `s3_root` or `s3_proxy` carry the mark `s3`. The server's virtual environment is created on
first use; by hand: python tests/s3/install.py. Where that fails, they fail under CI=true, and are skipped otherwise.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import fsspec
import pytest

from tests.s3 import install
from tests.s3.proxy import FaultyProxy
from tests.scripts import TINY, Done, Workplace, one_at_a_time, wait_until, workplace


@dataclass(frozen=True)
class Finished:
    """A finished tiny pipeline that all test processes share, so nobody writes into it: what it printed, and its storage."""

    folder: Path
    done: Done
    planned: Done

    @property
    def storage(self) -> Path:
        return self.folder / "storage"

    @property
    def artifacts(self) -> dict[str, Path]:
        return self.done.artifacts

    def copy(self, to: Path, *kinds: str) -> Path:
        """Copy the artifacts of some kinds, or of all, into a new storage: by hard links, as artifacts never change."""
        for kind in kinds or ("images", "sources", "autoencoder", "latents", "denoiser", "evaluation"):
            shutil.copytree(self.storage / kind, to / kind, copy_function=os.link)
        return to


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The whole pipeline of tiny.yaml, run once by whichever test process needs it first."""
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "finished"
    folder.mkdir(exist_ok=True)
    with one_at_a_time(folder):
        if not (folder / "done.json").exists():
            shutil.rmtree(folder / "storage", ignore_errors=True)  # of another process that failed
            with workplace(folder / "cwd") as place:
                words = ("full", "--config", str(TINY), f"storage={folder / 'storage'}")
                planned = place.run_here(*words, "--dry-run")
                assert not (folder / "storage").exists(), "a dry run must not write"
                done = place.run(*words)
                assert done.code == 0, done.out + done.err
                assert place.ray_sessions() == 1, "prepare_images starts Ray, and nothing else does"
                wait_until(lambda: not place.ray_processes(), 120, "no process of Ray stays")
                assert list(place.folder.iterdir()) == [], "nothing is written to the working directory"
            (folder / "done.json").write_text(json.dumps([asdict(done), asdict(planned)]))
        done, planned = (Done(**fields) for fields in json.loads((folder / "done.json").read_text()))
    return Finished(folder, done, planned)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    """Where the scripts of a file's tests run."""
    with workplace(tmp_path_factory.mktemp("place") / "cwd") as place:
        yield place


@dataclass(frozen=True)
class S3Server:
    """A running server and the account that owns its buckets; account:reader has the same secret and no rights."""

    endpoint: str
    access_key: str = "lab:key"
    reader_key: str = "lab:reader"
    secret_key: str = field(default_factory=lambda: uuid.uuid4().hex)

    def variables(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        }


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server on loopback, and the AWS variables of this process set to it."""
    try:
        python = install.install()
    except (RuntimeError, OSError) as error:
        reason = f"the S3 server cannot be installed; run: {install.COMMAND}\n{error}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    process, server = start_server(python, tmp_path_factory.mktemp("s3"))
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in server.variables().items():
            patch.setenv(name, value)
        try:
            fsspec.filesystem("s3", skip_instance_cache=True).mkdir("dcae15-tests")
            yield server
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def s3_root(s3_server: S3Server) -> str:
    """A folder of the S3 server that no other test uses: s3://bucket/prefix."""
    return f"s3://dcae15-tests/{uuid.uuid4().hex}"


@pytest.fixture
def s3_proxy(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """A proxy before the S3 server that breaks requests on demand; the AWS variables point to it."""
    with FaultyProxy(s3_server.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


def start_server(python: Path, folder: Path) -> tuple[subprocess.Popen[bytes], S3Server]:
    """Start the server on four free ports; somebody may take one in between, so try several."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "server.log"
    for port in random.Random().sample(range(20_000, 32_000, 4), 10):  # below the ephemeral ports
        server = S3Server(f"http://127.0.0.1:{port}")
        command = [python, Path(__file__).parent / "s3" / "server.py", "--dir", folder / "data", "--port", str(port)]
        keys = ["--access-key", server.access_key, "--secret-key", server.secret_key, "--die-with-parent"]
        with log.open("ab") as output:
            process = subprocess.Popen([*command, *keys], stdout=output, stderr=output)
        if _is_ready(process, server):
            return process, server
        process.kill()
        process.wait()
    pytest.fail(f"the S3 server does not start: {log.read_text()[-2000:]}")


def _is_ready(process: subprocess.Popen[bytes], server: S3Server, seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{server.endpoint}/healthcheck", timeout=5) as answer:
                return answer.status == 200 and process.poll() is None
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    return False
