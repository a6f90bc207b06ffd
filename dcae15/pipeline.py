"""The pipeline: plan, claim, run, report. It names no stage; each step is skipped when its result is there."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dcae15 import artifacts, storage, tracking
from dcae15.artifacts.claims import claim
from dcae15.cluster import Cluster
from dcae15.config import Config
from dcae15.errors import ArtifactError, ConfigError, Dcae15Error, command
from dcae15.plan import Plan, Step, describe, plan, require_inputs
from dcae15.report.data import Made
from dcae15.stages import FOREIGN, STAGES
from dcae15.stages.base import Context, Row, Stage

LATEST = "latest.json"
"""File below the storage that names the artifacts of the last finished pipeline by step, and its report."""

OnStep = Callable[[Step, str, float], None]
"""Takes a step, ``runs``, ``done`` or ``reused``, and the seconds that it took."""


def dry_run(config: Config, stage: Stage | None = None, given: Mapping[str, str] | None = None) -> str:
    """Return the plan of the pipeline, or of one stage, as text, without starting Ray.

    Raises:
        ConfigError: the stage does not belong to this configuration, or something would stop it late.
    """
    config = config.changed(storage=storage.resolve(config.storage))
    planned = plan(config, given, _absent(config, stage, given) if stage else ())
    steps = _steps_of(planned, stage) if stage else planned.steps
    require_ready(steps)
    return describe(steps, config)


def run_pipeline(config: Config) -> str:
    """Run every step that is not done yet and write the report; return the report's URI."""
    config = config.changed(storage=storage.resolve(config.storage))
    storage.check_access(config.storage)
    steps = plan(config).steps
    require_ready(steps)
    _say_notes(steps)
    seconds, parent = _run_tracked(config, steps)
    uri = finish_report(config, steps, seconds, parent)
    latest = {step.name: step.output.uri for step in steps}
    storage.write_json(storage.join(config.storage, LATEST), {**latest, "report": uri})
    return uri


def finish_report(
    config: Config, steps: Sequence[Step], seconds: Mapping[str, float], parent: tracking.TrackerSpec
) -> str:
    """Return the URI of the report of finished steps; it is written unless it is there and nothing ran now."""
    from dcae15.report.gather import report_uri, write_report

    uri = report_uri(config, steps[-1].output.fingerprint)
    if not seconds and storage.exists(uri):
        return uri
    made = [
        Made(
            step.name,
            step.output.uri,
            step.output.fingerprint,
            step.inputs,
            step.facts,
            "done" if step.name in seconds else "reused",
            seconds.get(step.name, 0.0),
            step.stage.history,
            step.arm or step.stage.name.rpartition("_")[2],
        )
        for step in steps
    ]
    return write_report(config, made, parent)


def run_stage(config: Config, stage: Stage, given: Mapping[str, str]) -> None:
    """Run one stage, whose inputs exist; print its artifacts and the next command.

    Raises:
        ArtifactError: an input is missing; the message names the script that makes it.
        ConfigError: the stage does not belong to this configuration.
    """
    config = config.changed(storage=storage.resolve(config.storage))
    storage.check_access(config.storage)
    absent = _absent(config, stage, given)
    if absent:
        print(f"{stage.name}: without {', '.join(absent)}, which are not there", flush=True)
    planned = plan(config, given, absent)
    steps = _steps_of(planned, stage)
    require_ready(steps)
    require_inputs(steps, planned, given)
    _say_notes(steps)
    _run_tracked(config, steps)
    made = [step.output.uri for step in steps]
    for uri in made:
        print(f"artifact: {uri}")
    after = planned.steps[planned.steps.index(steps[-1]) + 1 :]
    if after:
        reads = after[0].inputs.items() if given else ()  # what was given is not in the configuration
        inputs = "".join(f" {role}={uri}" for role, uri in reads if uri in made or role in given)
        print(f"next: {command(after[0].stage.name)}{inputs} with the same configuration")


def _steps_of(planned: Plan, stage: Stage) -> list[Step]:
    """Return the steps of a stage, and those that import given weights for it."""
    if stage.name in planned.left_out:
        raise ConfigError(f"there is nothing to do for {stage.name}: {planned.left_out[stage.name]}")
    return [step for step in planned.steps if step.stage in (stage, FOREIGN)]


def find(config: Config, role: str, given: Mapping[str, str]) -> str:
    """Return the URI of an artifact that is given, or else that this configuration made; foreign weights are imported.

    Raises:
        ArtifactError: it is not there; the message names the script that makes it.
        ConfigError: this configuration does not make it.
    """
    config = config.changed(storage=storage.resolve(config.storage))
    planned = plan(config, given)
    step = next((step for step in planned.steps if step.role == role), None)
    if step is None:
        if role in given:
            return given[role]
        maker = next(stage for stage in STAGES if stage.role == role)
        raise ConfigError(
            f"there is no {maker.makes.KIND} of this configuration: {planned.left_out[maker.name]}; or give {role}=URI"
        )
    if step.stage is FOREIGN and not step.done:
        step.stage.run(Context(config, Cluster(config), tracking.TrackerSpec()), step.inputs, step.output)
    if not step.done:
        raise ArtifactError(
            f"there is no {role} of this configuration at {step.output.uri}; run `{command(step.stage.name)}` with the "
            f"same configuration first, or pass {role}=URI"
        )
    return step.output.uri


def _absent(config: Config, stage: Stage, given: Mapping[str, str] | None) -> list[str]:
    """Return the optional inputs of a stage that nobody made, where some others are given to it."""
    if not (stage.optional and given and set(given) & set(stage.reads)):
        return []
    steps = {step.role: step for step in plan(config, given).steps}
    return [role for role in stage.optional if role in steps and role not in given and not steps[role].done]


def require_ready(steps: Sequence[Step]) -> None:
    """Raise ConfigError now for what would stop one of the steps late."""
    for step in steps:
        if not step.done:
            step.stage.ready(step.view)


def _say_notes(steps: Sequence[Step]) -> None:
    for step in steps:
        for note in step.notes:
            print(f"{step.name}: {note}", flush=True)


def _run_tracked(config: Config, steps: Sequence[Step]) -> tuple[dict[str, float], tracking.TrackerSpec]:
    """Run the steps that are not done, on one cluster; nothing is started when all are.

    Returns:
        Seconds of the steps that ran, by name, and the tracked run.
    """
    if all(step.done for step in steps):
        for step in steps:
            _announce(step, "reused")
        return {}, tracking.TrackerSpec()
    parent = tracking.start_pipeline_run(config, config.storage, config.name)
    outcome: tracking.Status = "FAILED"
    try:
        with Cluster(config) as cluster:
            seconds = Runner(config, steps, cluster, parent).run()
        outcome = "FINISHED"
    except KeyboardInterrupt:
        outcome = "KILLED"
        raise
    finally:
        tracking.Tracker(parent).finish(outcome)
    return seconds, parent


def _announce(step: Step, what: str) -> None:
    name = step.output.fingerprint
    print(f"{step.name}: {what} {name}" + (f": {step.output.uri}" if what == "reused" else ""), flush=True)


def track_counts(tracker: tracking.Tracker, manifest: Mapping[str, Any], seconds: float | None) -> None:
    """Track what a finished image or latent set holds; other artifacts track their own numbers.

    They are ``images`` (of all splits, and ``images.<split>``), ``shards``, ``bytes``, ``images_per_second``,
    ``rejected.<reason>``, and the least and largest root mean square of a latent channel. Without ``seconds`` (it was begun before)
    there is no rate.
    """
    if "splits" not in manifest:
        return
    counts = artifacts.set_counts(dict(manifest))
    total = sum(counts.images.values())
    metrics: dict[str, float] = {"images": total, "shards": counts.shards, "bytes": counts.bytes}
    metrics |= {f"images.{split}": count for split, count in counts.images.items()}
    metrics |= {f"rejected.{reason}": count for reason, count in counts.rejected.items()}
    if seconds:
        metrics["images_per_second"] = total / seconds
    if counts.latent_rms:
        metrics |= {"latent_rms_least": min(counts.latent_rms), "latent_rms_most": max(counts.latent_rms)}
        tracker.dict({"mean": manifest["statistics"]["mean"], "rms": counts.latent_rms}, "channels.json")
    tracker.metrics(metrics, step=0)


class Runner:
    """Runs the steps of a plan that are not done; of several processes that want the same result one makes it.

    ``on_row`` is called with each row of quality over training, in order, as soon as it is measured or found; ``on_step`` when a
    step begins, ends or is reused.
    """

    def __init__(
        self,
        config: Config,
        steps: Sequence[Step],
        cluster: Cluster,
        parent: tracking.TrackerSpec,
        on_row: Callable[[Row], None] = lambda row: None,
        on_step: OnStep = lambda step, what, seconds: None,
    ) -> None:
        self._config, self._steps, self._cluster, self._parent = config, steps, cluster, parent
        self._on_row, self._on_step = on_row, on_step
        self._images = 0.0  # of the last row

    def run(self) -> dict[str, float]:
        """Return the seconds of each step that ran here; one that another process made meanwhile is not among them."""
        seconds: dict[str, float] = {}
        for step in self._steps:
            if not step.done:
                name = f"{step.stage.makes.KIND}-{step.output.fingerprint}"
                with claim(
                    self._config.storage, name, lambda line, step=step: print(f"{step.name}: {line}", flush=True)
                ):
                    if not step.done:
                        _announce(step, "runs")
                        self._on_step(step, "runs", 0.0)
                        seconds[step.name] = self._run(step)
                        self._on_step(step, "done", seconds[step.name])
                        print(f"{step.name}: done in {seconds[step.name]:.0f} s: {step.output.uri}", flush=True)
            if step.name not in seconds:
                _announce(step, "reused")
                self._on_step(step, "reused", 0.0)
            for row in step.stage.curve(step.output.uri):
                self._take(row)
        return seconds

    def _run(self, step: Step) -> float:
        began, joining = time.perf_counter(), self._cluster.seconds_joining
        continued = storage.exists(step.output.uri)
        child = tracking.start_stage_run(self._parent, step.name, step.output.fingerprint, dict(step.facts))
        reached: Callable[[int], None] | None = None
        along = next((other for other in self._steps if other.stage.along == step.role), None)
        if along is not None and (measure := along.stage.at_milestone):
            beside = Context(along.view.config, self._cluster, child, self._take)
            reached = functools.partial(measure, beside, along.inputs, along.output)
        try:
            context = Context(step.view.config, self._cluster, child, self._take, reached)
            step.stage.run(context, step.inputs, step.output)
        except BaseException as error:
            tracking.Tracker(child).finish("FAILED" if isinstance(error, Exception) else "KILLED")
            if isinstance(error, Dcae15Error):
                raise type(error)(f"{step.name}: {error}") from error
            raise
        seconds = time.perf_counter() - began - (self._cluster.seconds_joining - joining)
        tracker = tracking.Tracker(child)
        track_counts(tracker, artifacts.read_manifest(step.output.uri), None if continued else seconds)
        tracker.finish("FINISHED")
        return seconds

    def _take(self, row: Row) -> None:
        if row["images"] > self._images:
            self._images = row["images"]
            self._on_row(row)
