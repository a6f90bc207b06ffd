"""Ray is there for the stages that use it, and gone while the driver trains."""

from __future__ import annotations

import pytest
import ray

from dcae15.config import build, from_overrides
from dcae15.orchestration.cluster import Session

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]


@pytest.fixture(autouse=True)
def local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def test_ray_is_left_while_the_driver_trains_and_joined_again():
    config, _ = build([])
    with Session(config) as session:
        first = session.cluster(trains=True)  # which asks Ray what there is
        assert not ray.is_initialized()
        assert first.local
        assert session.cluster(trains=False) == first
        job = ray.get_runtime_context().get_job_id()
        node = ray.get_runtime_context().get_node_id()
        assert session.cluster(trains=False) == first
        assert (ray.get_runtime_context().get_job_id(), ray.get_runtime_context().get_node_id()) == (job, node)
        assert session.cluster(trains=True) == session.cluster(trains=True) == first
        assert not ray.is_initialized()
        assert session.cluster(trains=False) == first
        assert ray.get_runtime_context().get_node_id() != node
        assert ray.get(ray.remote(lambda: 1).remote()) == 1
    assert not ray.is_initialized()


def test_ray_stays_where_workers_train_and_is_left_after_an_error():
    config, _ = build([from_overrides(["scaling.num_workers=1"])])
    with pytest.raises(ValueError, match="the stage"), Session(config) as session:
        for trains in (True, False, True):
            session.cluster(trains=trains)
            assert ray.is_initialized()
        raise ValueError("the stage")
    assert not ray.is_initialized()
