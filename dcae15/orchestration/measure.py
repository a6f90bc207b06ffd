"""evaluate and measure_milestones: where they are computed, and what is tracked."""

from __future__ import annotations

import functools

from dcae15 import tracking
from dcae15.cluster import Cluster
from dcae15.config import Config
from dcae15.evaluation.measure import evaluate as measure
from dcae15.evaluation.milestones import Row, measure_milestone

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
    """Run `dcae15.evaluation.measure.evaluate` in one task; track its headline numbers.

    The task has all CPUs of a local machine, some of a cluster's node, and a GPU where there are any.
    """
    arguments = {
        "images": inputs["images"],
        "autoencoders": {arm: inputs[role] for role, arm in ARMS.items() if role in inputs},
        "denoiser": inputs.get("denoiser", ""),
        "samples": inputs.get("samples", ""),
        "uri": uri,
        "fingerprint": fingerprint,
    }
    scalars = cluster.call("evaluate", measure, config=config, **arguments)
    tracking.open_tracker(tracker).metrics(scalars, step=0)


def milestone(config: Config, cluster: Cluster, inputs: dict[str, str], uri: str) -> Row:
    """Run `dcae15.evaluation.milestones.measure_milestone` where the training is: in this process, or in one task."""
    arguments = {**inputs, "config": config, "uri": uri}
    if cluster.trains_in_process:
        return measure_milestone(say=functools.partial(print, flush=True), **arguments)
    return cluster.call("measure_milestones", measure_milestone, **arguments)
