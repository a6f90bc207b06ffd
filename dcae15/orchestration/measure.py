"""evaluate as a task on the cluster."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import ray
import torch
from ray.exceptions import RayTaskError

from dcae15 import tracking
from dcae15.config import Config
from dcae15.evaluation.evaluate_run import evaluate as measure
from dcae15.evaluation.milestones import Row, measure_milestone
from dcae15.orchestration.cluster import Cluster, user_error
from dcae15.orchestration.console import Say, console

ARMS = {"autoencoder": "structured", "baseline": "baseline", "random": "random"}
"""Roles of autoencoders among a stage's inputs, and the names of their arms in measurements and reports."""


def evaluate(
    config: Config,
    cluster: Cluster,
    tracker: tracking.TrackerSpec,
    inputs: dict[str, str],
    *,
    uri: str,
    fingerprint: str,
) -> None:
    """Run `dcae15.evaluation.evaluate_run.evaluate` in one task; track its headline numbers.

    The task has all CPUs of a local machine, some of a cluster's node, and a GPU where there are any.
    """
    arguments = {
        "images": inputs["images"],
        "autoencoders": {arm: inputs[role] for role, arm in ARMS.items() if role in inputs},
        "samples": inputs.get("samples", ""),
        "uri": uri,
        "fingerprint": fingerprint,
    }
    scalars = _on_cluster(measure, config, cluster, arguments)
    tracking.Tracker(tracker).metrics(scalars, step=0)


def milestone(config: Config, cluster: Cluster, inputs: dict[str, str], uri: str) -> Row:
    """Run `dcae15.evaluation.milestones.measure_milestone` where the training is: in this process, or in one task."""
    arguments: dict[str, Any] = {**inputs, "uri": uri}
    if cluster.trains_in_process(config.scaling):
        return measure_milestone(config, say=functools.partial(print, flush=True), **arguments)
    return _on_cluster(measure_milestone, config, cluster, arguments)


def _on_cluster(
    function: Callable[..., dict[str, float]], config: Config, cluster: Cluster, arguments: dict[str, Any]
) -> dict[str, float]:
    gpu = cluster.uses_gpu(config.scaling)
    cpus = cluster.cpus if cluster.local else max(1, min(4, cluster.cpus // 2))
    task = ray.remote(_task).options(
        num_cpus=cpus,
        num_gpus=1 if gpu else 0,
        max_retries=3,
        scheduling_strategy="DEFAULT",  # not within what a trial of a sweep reserved
    )
    try:
        with console() as say:
            return ray.get(task.remote(function, config, {**arguments, "device": "cuda" if gpu else "cpu"}, cpus, say))
    except RayTaskError as error:
        known = user_error(error)
        if known is None:
            raise
        raise known from None


def _task(
    function: Callable[..., dict[str, float]], config: Config, arguments: dict[str, Any], threads: int, say: Say
) -> dict[str, float]:
    torch.set_num_threads(threads)
    return function(config, say=say, **arguments)
