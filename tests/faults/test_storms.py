"""Caching into a bucket while the object store throttles, breaks connections, and goes away: nothing is lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dcae15 import storage
from dcae15.artifacts import LatentSet
from tests.s3.proxy import FaultyProxy
from tests.scripts import REPOSITORY, TINY, Workplace, wait_until, workplace

pytestmark = [pytest.mark.ray, pytest.mark.s3, pytest.mark.timeout(1800)]

WORDS = [
    "--config",
    str(TINY),
    "tracking.enabled=false",
    "arms=[]",
    "data.shard_images=8",
    "data.shapes.images=160",
]
WORDS += ["autoencoder.training.images=64"]
SHARE = 0.15  # of all requests are broken


def artifact(out: str) -> str:
    return next(line.split(": ", 1)[1] for line in out.splitlines() if line.startswith("artifact: "))


def start(place: Workplace, log: Path, proxy: FaultyProxy, *words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, REPOSITORY / "pipelines" / "cache_latents.py", *WORDS, *words]
    with log.open("wb") as out:
        environment = place.environment({"AWS_ENDPOINT_URL": proxy.endpoint})
        return subprocess.Popen(command, cwd=place.folder, env=environment, stdout=out, stderr=subprocess.STDOUT)


def test_a_job_survives_faults_and_continues_after_an_outage(tmp_path, s3_server, s3_root, s3_proxy):
    with workplace(tmp_path / "cwd", s3_server.variables()) as place:
        local = [
            place.run(name, *WORDS, f"storage={tmp_path / 'made'}") for name in ("prepare_images", "train_autoencoder")
        ]
        for done in local:
            assert done.code == 0, done.err
        images, autoencoder = (artifact(done.out) for done in local)
        given = [f"images={images}", f"autoencoder={autoencoder}"]
        calm = place.run("cache_latents", *WORDS, *given, f"storage={tmp_path / 'made'}")
        assert calm.code == 0, calm.err
        expected = LatentSet.open(artifact(calm.out))

        def shards_there() -> int:
            return sum(info.path.endswith(".parquet.json") for info in storage.list_files(s3_root))

        log = tmp_path / "log"
        s3_proxy.share = SHARE
        driver = start(place, log, s3_proxy, *given, f"storage={s3_root}")
        wait_until(lambda: shards_there() >= 2 or driver.poll() is not None, 300, "two shards")
        assert driver.poll() is None, log.read_text()
        s3_proxy.down = True
        assert driver.wait(600) == 1, log.read_text()
        text = log.read_text()
        assert text.count("error: ") == 1, text
        assert "the endpoint cannot be reached" in text, text
        assert "Traceback" not in text
        s3_proxy.down = False
        before = shards_there()
        assert 2 <= before < len(expected.splits["train"].shards) + len(expected.splits["val"].shards)

        driver = start(place, log, s3_proxy, *given, f"storage={s3_root}")
        wait_until(lambda: shards_there() > before or driver.poll() is not None, 300, "another shard")
        s3_proxy.down = True
        seen = len(s3_proxy.requests)
        wait_until(lambda: len(s3_proxy.requests) > seen + 5, 60, "requests during a short outage")
        s3_proxy.down = False
        assert driver.wait(600) == 0, log.read_text()
        assert "were done before; continuing" in log.read_text()
        ours = LatentSet.open(artifact(log.read_text()))
        assert s3_proxy.broken > 10
        assert (ours.splits, ours.statistics) == (expected.splits, expected.statistics)
