"""Caching into a bucket while the object store throttles, breaks connections, and goes away: nothing is lost."""

from __future__ import annotations

import pytest

from dcae15 import storage
from dcae15.artifacts import LatentSet
from tests.scripts import TINY, workplace

pytestmark = [pytest.mark.ray, pytest.mark.s3, pytest.mark.timeout(900)]

SHARE = 0.15  # of all requests are broken


def test_a_job_survives_faults_and_continues_after_an_outage(finished, tmp_path, s3_server, s3_root, s3_proxy):
    expected = LatentSet.open(str(finished.artifacts["cache_latents"]))
    words = ["--config", str(TINY), "tracking.enabled=false", "scaling.encoders=[2,0]", f"storage={s3_root}"]
    words += [f"images={finished.artifacts['prepare_images']}"]
    words += [f"autoencoder={finished.artifacts['train_autoencoder']}"]

    def shards_there() -> int:
        return sum(info.path.endswith(".parquet.json") for info in storage.list_files(s3_root))

    with workplace(tmp_path / "cwd", {**s3_server.variables(), "AWS_ENDPOINT_URL": s3_proxy.endpoint}) as place:
        s3_proxy.share = SHARE
        s3_proxy.break_after(".parquet.json", 2)
        driver = place.start("cache_latents", *words, log=tmp_path / "first")
        assert driver.process.wait(400) == 1, driver.log.read_text()
        text = driver.log.read_text()
        assert text.count("error: ") == 1, text
        assert "the endpoint cannot be reached" in text, text
        assert "Traceback" not in text
        s3_proxy.down = False
        before = shards_there()
        assert 2 <= before < len(expected.splits["train"].shards) + len(expected.splits["val"].shards)

        s3_proxy.break_after(".parquet.json", 1)
        driver = place.start("cache_latents", *words, log=tmp_path / "second")
        driver.wait_for(lambda: s3_proxy.down, "another shard")
        seen = len(s3_proxy.requests)
        driver.wait_for(lambda: len(s3_proxy.requests) > seen + 5, "requests during a short outage")
        s3_proxy.down = False
        log = driver.finish()
        assert "were done before; continuing" in log
        ours = LatentSet.open(log.rsplit("artifact: ", 1)[1].splitlines()[0])
        assert s3_proxy.broken > 10
        assert (ours.splits, ours.statistics) == (expected.splits, expected.statistics)
