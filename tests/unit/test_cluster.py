"""How a cluster's resources are shared out."""

import pytest
import ray

from dcae15.config import Config, ScalingConfig
from dcae15.orchestration.cluster import Cluster, Session


@pytest.mark.parametrize(
    ("cluster", "encoders", "plans", "expected"),
    [
        (Cluster(2, 0, local=True), [1, 0], 10, (2, 2, 1.0)),  # one thread on each CPU of a laptop
        (Cluster(8, 0, local=True), [1, 0], 3, (3, 3, 1.0)),  # never more than there are shards
        (Cluster(8, 0, local=True), [1, 2], 10, (1, 2, 4.0)),
        (Cluster(16, 0, local=False), [1, 0], 100, (1, 16, 1.0)),  # a cluster begins small and grows
        (Cluster(64, 4, local=False), [1, 0], 100, (1, 4, 1.0)),
        (Cluster(64, 0, local=False), [2, 8], 100, (2, 8, 8.0)),
        (Cluster(1, 0, local=True), [1, 0], 1, (1, 1, 1.0)),
    ],
)
def test_encoders_share_the_cpus_or_have_a_gpu_each(cluster, encoders, plans, expected):
    assert cluster.encoders(ScalingConfig(encoders=encoders), plans) == expected


def test_one_training_worker_has_all_cpus_and_each_gpu_has_one():
    assert Cluster(8, 0, local=True).training_workers(ScalingConfig()) == (1, 8)
    assert Cluster(64, 8, local=False).training_workers(ScalingConfig()) == (8, 8)
    assert Cluster(8, 0, local=True).training_workers(ScalingConfig(num_workers=2)) == (2, 4)


def test_a_lone_machine_without_gpus_trains_in_its_own_process_unless_workers_are_asked_for():
    assert Cluster(8, 0, local=True).trains_in_process(ScalingConfig())
    assert not Cluster(8, 0, local=True).trains_in_process(ScalingConfig(num_workers=1))
    assert not Cluster(8, 0, local=True).trains_in_process(ScalingConfig(cpus_per_worker=2))
    assert not Cluster(8, 1, local=True).trains_in_process(ScalingConfig())
    assert not Cluster(8, 0, local=False).trains_in_process(ScalingConfig())


def test_a_share_of_a_cluster_is_neither_joined_nor_left():
    share = Cluster(1, 0, local=True)
    with Session(Config(storage="/nowhere"), share) as session:
        assert session.cluster(trains=False) is share
        assert session.cluster(trains=True) is share
        assert not ray.is_initialized()
