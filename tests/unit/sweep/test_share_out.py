"""How many trials run at once, and what each may use of the cluster."""

import pytest

from dcae15.cluster import Resources
from dcae15.config import build, from_overrides
from dcae15.errors import ConfigError
from dcae15.sweep.file import Sweep
from dcae15.sweep.schedulers import share_out

LAPTOP, GPUS = Resources(2, 0, local=True), Resources(64, 16, local=False, cpus_per_gpu=4)
GROWS = Resources(4, 0, local=False)
WORKERS, GPU, NO_GPU = "scaling.num_workers=2", "scaling.use_gpu=yes", "scaling.use_gpu=no"


def shared(cluster, *words, **sweep):
    return share_out(Sweep("mine", **sweep), build([from_overrides(words)])[0], cluster)


@pytest.mark.parametrize(
    ("cluster", "sweep", "words", "concurrent", "share"),
    [
        (LAPTOP, {}, (), 2, (1, 0)),
        (LAPTOP, {"cpus_per_trial": 2}, (), 1, (2, 0)),
        (LAPTOP, {"concurrent": 1}, (), 1, (1, 0)),
        (Resources(8, 0, True), {"cpus_per_trial": 3}, (), 2, (3, 0)),  # two CPUs are left over
        (GPUS, {}, (), 16, (4, 1)),
        (GPUS, {"gpus_per_trial": 8, "cpus_per_trial": 99}, (), 2, (32, 8)),
        (GPUS, {"gpus_per_trial": 4, "concurrent": 2}, (), 2, (16, 4)),
        (GPUS, {"gpus_per_trial": 99, "cpus_per_trial": 4}, (NO_GPU,), 16, (4, 16)),
        (Resources(4, 8, True), {}, (), 8, (1, 1)),  # fewer CPUs than trials
        (GROWS, {"concurrent": 3, "cpus_per_trial": 8}, (), 3, (8, 0)),
        (GROWS, {"concurrent": 2, "gpus_per_trial": 8}, (GPU,), 2, (8, 8)),
        (LAPTOP, {"cpus_per_trial": 2}, (WORKERS,), 1, (2, 0)),
        (LAPTOP, {"gpus_per_trial": 8}, (NO_GPU,), 2, (1, 0)),  # of no matter where no GPUs are wanted
    ],
    ids=str,
)
def test_as_many_trials_as_fit(cluster, sweep, words, concurrent, share):
    found, part = shared(cluster, *words, **sweep)
    assert found == concurrent
    assert (part.cpus, part.gpus, part.local) == (*share, cluster.local)
    scaling = build([from_overrides(words)])[0].scaling
    assert part.uses_gpu(scaling) == cluster.uses_gpu(scaling), "stages compute where the sweep does"


@pytest.mark.parametrize(
    ("cluster", "sweep", "words", "message"),
    [
        (LAPTOP, {"cpus_per_trial": 99}, (), "cpus_per_trial is 99, the cluster has 2 CPUs; lower it"),
        (
            GPUS,
            {"gpus_per_trial": 17},
            (),
            "has 16 GPUs; lower it, or say with 'concurrent' how many trials the cluster",
        ),
        (LAPTOP, {"concurrent": 3}, (), "concurrent is 3, and cpus_per_trial 1: together 3 CPUs, the cluster has 2"),
        (LAPTOP, {"gpus_per_trial": 2}, (), "gpus_per_trial is 2, and the cluster has no GPUs; set scaling.use_gpu=no"),
        (LAPTOP, {}, (GPU,), "has 0 GPUs; start the sweep on a cluster with GPUs, or set scaling.use_gpu=no"),
        (LAPTOP, {}, (WORKERS,), "scaling.num_workers=2 needs more than cpus_per_trial 1, the share of a trial"),
        (GPUS, {}, ("scaling.num_workers=8",), "scaling.num_workers=8 needs more than gpus_per_trial 1"),
        (
            Resources(8, 2, True),
            {},
            (WORKERS, GPU),
            "scaling.num_workers=2 needs more than gpus_per_trial 1, the share",
        ),
    ],
    ids=str,
)
def test_more_than_there_is(cluster, sweep, words, message):
    with pytest.raises(ConfigError) as caught:
        shared(cluster, *words, **sweep)
    assert message in str(caught.value)
