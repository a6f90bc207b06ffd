"""The pipeline: a fold over the stages of a plan. Each is skipped when its result is there, else run on the cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from dcae15 import artifacts, storage, tracking
from dcae15.command_line import Command
from dcae15.config import Config
from dcae15.errors import ArtifactError, ConfigError
from dcae15.losses.perceptual import PERCEPTUAL_SOURCES
from dcae15.orchestration.plan import CONTROLS, IMPORTS, STAGES, Stage, announce, describe, plan

LATEST = "latest.json"
"""File below the storage that names the artifacts of the last finished pipeline by stage, and its report."""


def dry_run(config: Config, given: Mapping[str, str] | None = None, names: Sequence[str] = STAGES) -> str:
    """Return the plan of the named stages as text, without starting Ray."""
    config = replace(config, storage=storage.resolve(config.storage))
    return describe([stage for stage in plan(config, given) if stage.name in (*IMPORTS, *names)], config)


def run_pipeline(config: Config) -> str:
    """Run every stage that is not done yet and write the report; return the report's URI."""
    from dcae15.orchestration.results import report_uri, write_report

    _require_comparable(config)
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
        ConfigError: none of the stages belongs to this configuration.
    """
    config = _prepared(config)
    stages = plan(config, given)
    if not any(stage.name in names for stage in stages):
        raise ConfigError(f"there is nothing to do for {names[0]}: {_why_left_out(config, names[0])}")
    names = [*IMPORTS, *names]
    chosen = [stage for stage in stages if stage.name in names]
    makers = {stage.uri: stage.name for stage in stages}
    for stage in chosen:
        for role, uri in stage.inputs.items():
            if uri in makers and makers[uri] not in names and not artifacts.finished(uri):
                script = "train_autoencoder" if makers[uri] in CONTROLS else makers[uri]
                without = f" (without {' and '.join(f'{name}=URI' for name in given)})" if given else ""
                raise ArtifactError(
                    f"{stage.name} needs {role} at {uri}, which is not there; run `python pipelines/{script}.py` with the "
                    f"same configuration{without} first, or pass {role}=URI"
                )
    _run(config, chosen)
    return [stage.uri for stage in chosen]


def _why_left_out(config: Config, name: str) -> str:
    if not config.diffusion.enabled:
        return "diffusion.enabled is false; set it to true"
    if name == "measure_milestones" and not config.diffusion.milestones:
        return "diffusion.milestones is empty; give the configuration that train_diffusion had"
    return "the images and the autoencoder of given latents must be given, too: images=URI autoencoder=URI"


def run_command(command: Command, name: str) -> None:
    """Do what a stage's script was asked to: print the plan, or run the stage and print its artifact and the next command."""
    config, given = command.config, command.inputs
    if name == "evaluate" and "autoencoder" in given:
        config = _with_what_is_there(config, given)
    names = [name, *CONTROLS] if name == "train_autoencoder" else [name]
    if command.dry_run:
        print(dry_run(config, given, names))
        return
    made = run_stages(config, names, given)
    for uri in made:
        print(f"artifact: {uri}")
    stages = [s for s in plan(config, given) if s.name not in (*IMPORTS, *CONTROLS, *names)]
    following = [s for s in stages if STAGES.index(s.name) > STAGES.index(name)]
    if following:
        reads = following[0].inputs.items() if given else ()  # what was given is not in the configuration
        inputs = "".join(f" {role}={uri}" for role, uri in reads if uri in made or role in given)
        print(f"next: python pipelines/{following[0].name}.py{inputs} with the same configuration")


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


def require_ready(config: Config) -> None:
    """Raise ConfigError now for what would stop a whole pipeline late: see the two checks."""
    _require_comparable(config)
    _require_perceptual_weights(config)


def _require_comparable(config: Config) -> None:
    """Raise ConfigError now, not after days of training, when evaluate could not compare what will be generated."""
    ours, prepared = config.latents.resolution, config.data.resolution
    if config.diffusion.enabled and ours not in (0, prepared):
        raise ConfigError(
            f"latents.resolution is {ours}, so images of {ours} pixels would be generated, which evaluate cannot compare with "
            f"the prepared ones of {prepared}; set data.resolution={ours}, or run the stages one by one and give evaluate "
            f"images=URI of an image set of {ours} pixels"
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
    if all(stage.done for stage in stages):
        for stage in stages:
            announce(stage, "reused")
        return {}, tracking.TrackerSpec()
    from dcae15.orchestration.cluster import Session
    from dcae15.orchestration.fold import Fold

    parent = tracking.start_pipeline_run(config, config.storage, config.name)
    outcome: tracking.Status = "FAILED"
    try:
        with Session(config) as session:
            seconds = Fold(config, stages, session, parent).run()
        outcome = "FINISHED"
    except KeyboardInterrupt:
        outcome = "KILLED"
        raise
    finally:
        tracking.Tracker(parent).finish(outcome)
    return seconds, parent
