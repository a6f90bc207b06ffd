"""Ray is there for what uses it, and gone while the driver trains."""

from __future__ import annotations

import pytest
import ray

from dcae15.cluster import Cluster, Pool
from dcae15.config import Config, build, from_overrides
from dcae15.tracking import TrackerSpec

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]


@pytest.fixture(autouse=True)
def local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def train(cluster: Cluster, config: Config) -> list[bool]:
    """Return whether Ray was there while this process trained; a worker leaves no note here."""
    there = []

    def note(config: Config, **stage: object) -> None:
        there.append(ray.is_initialized())

    cluster.train(note, config, TrackerSpec(), uri="/nowhere", fingerprint="x")
    return there


def node() -> str:
    return ray.get_runtime_context().get_node_id()


def test_ray_is_left_while_the_driver_trains_and_joined_again(tmp_path):
    config, _ = build([from_overrides([f"storage={tmp_path}"])])
    with Cluster(config) as cluster:
        assert not ray.is_initialized(), "nothing needs it yet"
        first = cluster.resources
        assert first.local and not first.grows and not ray.is_initialized(), "nor what only asks"
        assert cluster.join() == first
        offered = ray.cluster_resources()
        assert (offered["CPU"], offered.get("GPU", 0)) == (first.cpus, first.gpus), "Ray counts as we do"
        assert cluster.join() == first
        before = node()
        assert train(cluster, config) == [False]
        assert dict(cluster.map("test", lambda: str, [1, 2], Pool(1, 1))) == {0: "1", 1: "2"}
        assert not ray.is_initialized(), "one worker needs it as little"
        assert dict(cluster.map("test", lambda: str, [1, 2], Pool(2, 2))) == {0: "1", 1: "2"}
        assert node() != before and cluster.resources == first
        assert train(cluster, config) == [False]
    assert not ray.is_initialized()


def test_ray_stays_where_workers_train_and_is_left_after_an_error(tmp_path):
    config, _ = build([from_overrides([f"storage={tmp_path}", "scaling.num_workers=1"])])
    with pytest.raises(ValueError, match="the stage"), Cluster(config) as cluster:
        cluster.join()
        before = node()
        assert train(cluster, config) == []
        assert node() == before
        raise ValueError("the stage")
    assert not ray.is_initialized()
