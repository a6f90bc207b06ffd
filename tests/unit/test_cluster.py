"""How a cluster's resources are shared out."""

import pytest
import ray

from dcae15.cluster import Cluster, Pool, Resources
from dcae15.config import Config, ScalingConfig


@pytest.mark.parametrize(
    ("resources", "encoders", "expected"),
    [
        (Resources(2, 0, local=True), [1, 0], Pool(1, 1, 2.0)),  # a laptop: this process, with all CPUs
        (Resources(8, 0, local=True), [2, 0], Pool(8, 8, 1.0)),  # several were asked for: one thread on each CPU
        (Resources(8, 1, local=True), [1, 0], Pool(1, 1, 1.0, 1.0)),
        (Resources(8, 0, local=True), [1, 2], Pool(1, 2, 4.0)),
        (Resources(16, 0, local=False), [1, 0], Pool(1, 16, 1.0)),  # a share of a cluster
        (
            Resources(16, 0, local=False, grows=True),
            [1, 0],
            Pool(1, 0, 1.0),
        ),  # begins small, and grows with the cluster
        (Resources(0, 0, local=False, grows=True), [1, 0], Pool(1, 0, 1.0)),
        (Resources(64, 4, local=False, grows=True), [1, 0], Pool(1, 0, 1.0, 1.0)),
        (Resources(64, 4, local=False), [1, 0], Pool(1, 4, 1.0, 1.0)),
        (Resources(64, 0, local=False, grows=True), [2, 8], Pool(2, 8, 8.0)),
        (Resources(1, 0, local=True), [1, 0], Pool(1, 1, 1.0)),
    ],
)
def test_encoders_share_the_cpus_or_have_a_gpu_each(resources, encoders, expected):
    assert resources.encoders(ScalingConfig(encoders=encoders)) == expected


@pytest.mark.parametrize(("cpus", "actors", "each"), [(1, 2, 0.5), (2, 3, 0.66), (8, 12, 0.66)])
def test_decoders_are_half_as_many_again_as_the_cpus_and_fit(cpus, actors, each):
    assert Resources(cpus, 0, local=True).decoders() == Pool(actors, actors, each)
    assert actors * each <= cpus


def test_decoders_begin_where_there_is_nothing_yet():
    assert Resources(0, 0, local=False, grows=True).decoders() == Pool(2, 0, 0.66)


def test_one_training_worker_has_all_cpus_and_each_gpu_has_one():
    assert Resources(8, 0, local=True).training_workers(ScalingConfig()) == (1, 8)
    assert Resources(64, 8, local=False).training_workers(ScalingConfig()) == (8, 8)
    assert Resources(8, 0, local=True).training_workers(ScalingConfig(num_workers=2)) == (2, 4)


def test_a_lone_machine_without_gpus_trains_in_its_own_process_unless_workers_are_asked_for():
    assert Resources(8, 0, local=True).trains_in_process(ScalingConfig())
    assert not Resources(8, 0, local=True).trains_in_process(ScalingConfig(num_workers=1))
    assert not Resources(8, 0, local=True).trains_in_process(ScalingConfig(cpus_per_worker=2))
    assert not Resources(8, 1, local=True).trains_in_process(ScalingConfig())
    assert not Resources(8, 0, local=False).trains_in_process(ScalingConfig())


def test_a_share_of_a_cluster_is_neither_joined_nor_left_and_does_not_grow():
    share = Resources(1, 0, local=False, grows=True)
    with Cluster(Config(storage="/nowhere"), share) as cluster:
        assert cluster.join() == cluster.resources == Resources(1, 0, local=False)
        assert not ray.is_initialized()
