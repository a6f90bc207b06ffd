"""The pipeline: a fold over the stages of a plan. Each is skipped when its result is there, else run on the cluster."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from dcae15 import artifacts, storage, tracking
from dcae15.command_line import Command
from dcae15.config import PERCEPTUAL_SOURCES, Config
from dcae15.errors import ArtifactError, ConfigError, Dcae15Error
from dcae15.export.importing import import_autoencoder
from dcae15.models.presets import autoencoder_spec
from dcae15.orchestration.plan import CONTROLS, IMPORTS, STAGES, Stage, describe, plan

LATEST = "latest.json"
"""File below the storage that names the artifacts of the last finished pipeline by stage, and its report."""


def dry_run(config: Config, given: Mapping[str, str] | None = None, names: Sequence[str] = STAGES) -> str:
    """Return the plan of the named stages as text, without starting Ray."""
    config = replace(config, storage=storage.resolve(config.storage))
    return describe([stage for stage in plan(config, given) if stage.name in (*IMPORTS, *names)], config)


def run_pipeline(config: Config) -> str:
    """Run every stage that is not done yet and write the report; return the report's URI."""
    from dcae15.orchestration.results import report_uri, write_report

    config = _prepared(config)
    stages = plan(config)
    seconds, parent = _run(config, stages)
    uri = report_uri(config, stages)
    if seconds or not storage.exists(uri):
        write_report(config, stages, seconds, parent)
    latest = {stage.name: stage.uri for stage in stages}
    storage.write_json(storage.join(config.storage, LATEST), {**latest, "report": uri})
    return uri


def run_stages(config: Config, names: Sequence[str], given: Mapping[str, str] | None = None) -> list[str]:
    """Run stages whose inputs exist; return the URIs of their artifacts.

    Raises:
        ArtifactError: an input is missing; the message names the script that makes it.
    """
    config = _prepared(config)
    stages = plan(config, given)
    names = [*IMPORTS, *names]
    chosen = [stage for stage in stages if stage.name in names]
    makers = {stage.uri: stage.name for stage in stages}
    for stage in chosen:
        for role, uri in stage.inputs.items():
            if uri in makers and makers[uri] not in names and not artifacts.finished(uri):
                script = "train_autoencoder" if makers[uri] in CONTROLS else makers[uri]
                raise ArtifactError(
                    f"{stage.name} needs {role} at {uri}, which is not there; run `python pipelines/{script}.py` with the "
                    f"same configuration first, or pass {role}=URI"
                )
    _run(config, chosen)
    return [stage.uri for stage in chosen]


def run_command(command: Command, name: str) -> None:
    """Do what a stage's script was asked to: print the plan, or run the stage and print its artifact and the next command."""
    config, given = command.config, command.inputs
    if name == "evaluate" and "autoencoder" in given:
        config = _with_what_is_there(config, given)
    names = [name, *CONTROLS] if name == "train_autoencoder" else [name]
    if command.dry_run:
        print(dry_run(config, given, names))
        return
    for uri in run_stages(config, names, given):
        print(f"artifact: {uri}")
    following = [s.name for s in plan(config, given) if s.name not in (*IMPORTS, *CONTROLS, *names)]
    following = [s for s in following if STAGES.index(s) > STAGES.index(name)]
    if following:
        print(f"next: python pipelines/{following[0]}.py with the same configuration")


def _with_what_is_there(config: Config, given: Mapping[str, str]) -> Config:
    """Leave out controls and generated images that nobody made for a given autoencoder; say so."""
    config = replace(config, storage=storage.resolve(config.storage))
    missing = {stage.name for stage in plan(config, given) if stage.name != "evaluate" and not stage.done}
    absent = [
        *(["its baseline"] if "train_baseline" in missing else []),
        *(["its control with random masks"] if "train_random" in missing else []),
        *(["generated images"] if missing & {"train_diffusion", "sample"} else []),
    ]
    if absent:
        print(f"evaluate: without {', '.join(absent)}, which are not there", flush=True)
    return replace(
        config,
        baseline=config.baseline and "train_baseline" not in missing,
        random_control=config.random_control and "train_random" not in missing,
        diffusion=replace(
            config.diffusion, enabled=config.diffusion.enabled and not missing & {"train_diffusion", "sample"}
        ),
    )


def _prepared(config: Config) -> Config:
    storage.check_access(config.storage)
    _require_perceptual_weights(config)
    return replace(config, storage=storage.resolve(config.storage))


def _require_perceptual_weights(config: Config) -> None:
    """Raise ConfigError when a file of LPIPS is missing: said now, not after the images are prepared."""
    shared = config.autoencoder.losses.perceptual
    needed = {"autoencoder": shared} if shared.weight or (shared.vgg and shared.heads) else {}
    for i, phase in enumerate(config.autoencoder.phases):
        if phase.losses.perceptual.weight:
            needed[f"autoencoder.phases[{i}]"] = phase.losses.perceptual
    for path, perceptual in needed.items():
        for name in ("vgg", "heads"):
            uri = getattr(perceptual, name)
            if not storage.exists(uri):
                raise ConfigError(
                    f"{path}.losses.perceptual.{name} is {uri}, which does not exist; {PERCEPTUAL_SOURCES[name]}"
                )


def _run(config: Config, stages: Sequence[Stage]) -> tuple[dict[str, float], tracking.TrackerSpec]:
    """Run the stages that are not done, on one cluster; nothing is started when all are.

    Returns:
        Seconds of the stages that ran, by name, and the tracked run.
    """
    seconds: dict[str, float] = {}
    if all(stage.done for stage in stages):
        for stage in stages:
            _announce(stage, "reused")
        return seconds, tracking.TrackerSpec()
    from dcae15.orchestration.cluster import connect

    parent = tracking.start_pipeline_run(config, config.storage, config.name)
    outcome: tracking.Status = "FAILED"
    try:
        with connect(config) as cluster:
            for stage in stages:
                if stage.done:
                    _announce(stage, "reused")
                    continue
                _announce(stage, "runs")
                seconds[stage.name] = _run_stage(config, cluster, stage, parent)
                print(f"{stage.name}: done in {seconds[stage.name]:.0f} s: {stage.uri}", flush=True)
        outcome = "FINISHED"
    except KeyboardInterrupt:
        outcome = "KILLED"
        raise
    finally:
        tracking.open_tracker(parent).finish(outcome)
    return seconds, parent


def _run_stage(config: Config, cluster: Any, stage: Stage, parent: tracking.TrackerSpec) -> float:
    began = time.perf_counter()
    child = tracking.start_stage_run(parent, stage.name, stage.fingerprint, stage.facts)
    try:
        _dispatch(config, cluster, stage, child)
    except BaseException as error:
        tracking.open_tracker(child).finish("FAILED" if isinstance(error, Exception) else "KILLED")
        if isinstance(error, Dcae15Error):
            raise type(error)(f"{stage.name}: {error}") from error
        raise
    tracking.open_tracker(child).finish("FINISHED")
    return time.perf_counter() - began


def _dispatch(config: Config, cluster: Any, stage: Stage, tracker: tracking.TrackerSpec) -> None:
    """Call the stage's function."""
    from dcae15.orchestration import cache, measure, prepare, sample, train

    output = {"uri": stage.uri, "fingerprint": stage.fingerprint}
    match stage.name:
        case name if name in IMPORTS:
            graph, name = autoencoder_spec(config.autoencoder), config.autoencoder.preset
            import_autoencoder(
                stage.inputs["weights"], graph, uri=stage.uri, fingerprint=stage.fingerprint, preset=name
            )
        case "prepare_images":
            prepare.prepare_images(config, cluster, **output)
        case "train_autoencoder":
            train.train_autoencoder(config, cluster, tracker, **stage.inputs, **output)
        case "train_baseline":
            train.train_autoencoder(config, cluster, tracker, masks="none", **stage.inputs, **output)
        case "train_random":
            train.train_autoencoder(config, cluster, tracker, masks="random", **stage.inputs, **output)
        case "cache_latents":
            cache.cache_latents(config, cluster, **stage.inputs, **output)
        case "train_diffusion":
            train.train_diffusion(config, cluster, tracker, **stage.inputs, **output)
        case "sample":
            sample.sample(config, cluster, **stage.inputs, **output)
        case "evaluate":
            measure.evaluate(config, cluster, tracker, stage.inputs, **output)


def _announce(stage: Stage, what: str) -> None:
    print(f"{stage.name}: {what} {stage.fingerprint}" + (f": {stage.uri}" if what == "reused" else ""), flush=True)
