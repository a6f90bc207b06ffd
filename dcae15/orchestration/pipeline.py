"""The pipeline: a fold over the stages of a plan. Each is skipped when its result is there, else run on the cluster."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from dcae15 import artifacts, storage, tracking
from dcae15.config import Config
from dcae15.errors import ArtifactError, Dcae15Error
from dcae15.orchestration.plan import Stage, describe, plan
from dcae15.report.data import StageSummary

ROLES = {
    "prepare_images": "images",
    "train_autoencoder": "autoencoder",
    "train_baseline": "baseline",
    "cache_latents": "latents",
    "train_diffusion": "denoiser",
    "sample": "samples",
    "evaluate": "evaluation",
}
"""What each stage makes, as other stages call it."""


def dry_run(config: Config, given: Mapping[str, str] | None = None, only: str | None = None) -> str:
    """Return the plan as text, without starting Ray."""
    config = replace(config, storage=storage.resolve(config.storage))
    return describe(_chosen(plan(config, given), only), config)


def run_pipeline(config: Config) -> str:
    """Run every stage that is not done yet and write the report; return the report's URI."""
    from dcae15.orchestration.results import write_report

    config = _prepared(config)
    summaries = _run(config, plan(config))
    return write_report(config, summaries)


def run_stage(config: Config, name: str, given: Mapping[str, str] | None = None) -> str:
    """Run one stage whose inputs exist; return the URI of its artifact.

    Raises:
        ArtifactError: an input is missing; the message names the script that makes it.
    """
    config = _prepared(config)
    stages = plan(config, given)
    stage = _chosen(stages, name)[0]
    makers = {s.uri: s.name for s in stages}
    for role, uri in stage.inputs.items():
        if uri in makers and not artifacts.finished(uri):
            script = makers[uri].replace("train_baseline", "train_autoencoder")
            raise ArtifactError(
                f"{name} needs {role} at {uri}, which is not there; run `python pipelines/{script}.py` with the same "
                f"configuration first, or pass {role}=URI"
            )
    _run(config, [stage])
    return stage.uri


def _chosen(stages: list[Stage], only: str | None) -> list[Stage]:
    return [stage for stage in stages if only is None or stage.name == only]


def _prepared(config: Config) -> Config:
    storage.check_access(config.storage)
    return replace(config, storage=storage.resolve(config.storage))


def _run(config: Config, stages: Sequence[Stage]) -> list[StageSummary]:
    """Run the stages that are not done, on one cluster; nothing is started when all are."""
    missing = [stage.name for stage in stages if not stage.done]
    if not missing:
        for stage in stages:
            _announce(stage, "reused")
        return [_summary(stage, "reused", 0.0) for stage in stages]
    from dcae15.orchestration.cluster import connect

    summaries = []
    began = time.perf_counter()
    parent = tracking.start_pipeline_run(config)
    outcome = "FAILED"
    try:
        with connect(config) as cluster:
            for stage in stages:
                if stage.done:
                    _announce(stage, "reused")
                    summaries.append(_summary(stage, "reused", 0.0))
                    continue
                _announce(stage, "runs")
                seconds = _run_stage(config, cluster, stage, parent)
                summaries.append(_summary(stage, "done", seconds))
                print(f"{stage.name}: done in {seconds:.0f} s: {stage.uri}", flush=True)
        outcome = "FINISHED"
    except KeyboardInterrupt:
        outcome = "KILLED"
        raise
    finally:
        tracking.finish(parent, outcome)
    print(f"all stages: {time.perf_counter() - began:.0f} s", flush=True)
    return summaries


def _run_stage(config: Config, cluster: Any, stage: Stage, parent: tracking.TrackerSpec | None) -> float:
    began = time.perf_counter()
    child = tracking.start_stage_run(parent, stage.name, stage.fingerprint, stage.facts)
    try:
        _dispatch(config, cluster, stage, child)
    except BaseException as error:
        tracking.finish(child, "FAILED" if isinstance(error, Exception) else "KILLED")
        if isinstance(error, Dcae15Error):
            raise type(error)(f"{stage.name}: {error}") from error
        raise
    tracking.finish(child, "FINISHED")
    return time.perf_counter() - began


def _dispatch(config: Config, cluster: Any, stage: Stage, tracker: tracking.TrackerSpec | None) -> None:
    """Call the stage's function."""
    from dcae15.orchestration import cache, measure, prepare, sample, train

    output = {"uri": stage.uri, "fingerprint": stage.fingerprint}
    match stage.name:
        case "prepare_images":
            prepare.prepare_images(config, cluster, **output)
        case "train_autoencoder":
            train.train_autoencoder(config, cluster, tracker, **stage.inputs, **output)
        case "train_baseline":
            train.train_autoencoder(config, cluster, tracker, masked=False, **stage.inputs, **output)
        case "cache_latents":
            cache.cache_latents(config, cluster, **stage.inputs, **output)
        case "train_diffusion":
            train.train_diffusion(config, cluster, tracker, **stage.inputs, **output)
        case "sample":
            sample.sample(config, cluster, **stage.inputs, **output)
        case "evaluate":
            measure.evaluate(config, cluster, stage.inputs, **output)


def _announce(stage: Stage, what: str) -> None:
    print(f"{stage.name}: {what} {stage.fingerprint}" + (f": {stage.uri}" if what == "reused" else ""), flush=True)


def _summary(stage: Stage, status: str, seconds: float) -> StageSummary:
    return StageSummary(stage.name, status, stage.uri, stage.fingerprint, seconds, dict(stage.facts))
