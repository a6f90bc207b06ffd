"""The driver's side of tracking: starts the runs of a pipeline and its stages, or continues unfinished ones."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dcae15.artifacts import environment
from dcae15.config import Config, active_fields, fingerprint, leaves
from dcae15.errors import ConfigError
from dcae15.redaction import redact
from dcae15.tracking import database
from dcae15.tracking.tracker import Status, TrackerSpec

if TYPE_CHECKING:
    from mlflow import MlflowClient

_log = logging.getLogger(__name__)
_MOST_PARAMS = 100  # MLflow's limit of one batch
_STAGE, _FINGERPRINT, _HOST, _PROCESS = "dcae15.stage", "dcae15.fingerprint", "dcae15.host", "dcae15.process"
_PARENT = "mlflow.parentRunId"


def start_pipeline_run(config: Config, storage_root: str, name: str) -> TrackerSpec:
    """Start the run above all stages, or continue the unfinished one of the same name and config.

    Creates the database and the experiment where they are missing; must therefore run in the driver, before any worker
    tracks. Runs that a killed driver of this machine left behind as RUNNING are marked KILLED. Every field of the
    configuration is recorded as a parameter, credentials masked.

    Returns:
        What ``Tracker`` and ``start_stage_run`` need; an empty spec when tracking is switched off.

    Raises:
        ConfigError: the tracking URI cannot be used.
    """
    digest = fingerprint("pipeline", {"name": name, **active_fields(config, config)})
    # MLflow's names have no brackets: autoencoder.phases[0].name is autoencoder.phases.0.name there.
    params = {path.replace("[", ".").replace("]", ""): value for path, value, _ in leaves(config, config)}
    return start_run(config, storage_root, name, "pipeline", digest, params)


def start_run(
    config: Config, storage_root: str, name: str, stage: str, digest: str, params: Mapping[str, Any]
) -> TrackerSpec:
    """Start a run above others, or continue the unfinished one of the same kind and digest; see `start_pipeline_run`."""
    if not config.tracking.enabled:
        return TrackerSpec()
    uri = database.choose_uri(config.tracking.uri, storage_root)
    files = database.artifact_location(uri, storage_root)
    try:
        database.prepare(uri)
        client = database.open_client(uri)
        experiment_id = _experiment(client, config.tracking.experiment, files)
        _mark_abandoned(client, experiment_id)
        run_id = _start(client, experiment_id, name, stage, digest, params)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            f"MLflow cannot track to {redact(uri)}: {_reason(error)}; "
            "correct tracking.uri, start the server, or go without: tracking.enabled=false"
        ) from error
    return TrackerSpec(uri, experiment_id, run_id)


def start_stage_run(
    parent: TrackerSpec, stage: str, fingerprint: str, params: Mapping[str, Any], name: str = ""
) -> TrackerSpec:
    """Start a run below another, or continue the unfinished one of the same stage and fingerprint.

    Args:
        parent: the pipeline's run, or a stage's run when this is one of its trials.
        stage: kind of work, such as ``train_autoencoder``.
        fingerprint: 16 hex digits of the stage's result.
        params: recorded as parameters, credentials masked; a continued run keeps the values it started with.
        name: name of the run in MLflow; the stage when empty.

    Returns:
        The run's spec; an empty one when the parent is not tracked, or (with a warning) when the server fails now.
    """
    if not parent.run_id:
        return TrackerSpec()
    try:
        client = database.open_client(parent.uri)
        run_id = _start(client, parent.experiment_id, name or stage, stage, fingerprint, params, parent.run_id)
    except Exception as error:
        _log.warning("tracking failed; stage %s goes on untracked: %s", stage, _reason(error))
        return TrackerSpec()
    return TrackerSpec(parent.uri, parent.experiment_id, run_id)


def finish_tree(spec: TrackerSpec, status: Status) -> None:
    """End a run whose process is gone, and all that it left running below as KILLED; trouble with the server is only logged."""
    if not spec.run_id:
        return
    try:
        _end(database.open_client(spec.uri), spec.experiment_id, spec.run_id, status)
    except Exception as error:
        _log.warning("tracking failed; a run is left as running: %s", _reason(error))


def _end(client: MlflowClient, experiment_id: str, run_id: str, status: Status) -> None:
    left = client.search_runs([experiment_id], f"tags.`{_PARENT}` = '{run_id}' and attributes.status = 'RUNNING'")
    for run in left:
        _end(client, experiment_id, run.info.run_id, "KILLED")
    client.set_terminated(run_id, status)


def _experiment(client: MlflowClient, name: str, artifact_location: str | None) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name, artifact_location)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)  # another driver was faster
            assert found is not None
    if found.lifecycle_stage != "active":
        raise ConfigError(
            f"tracking.experiment is '{name}', which was deleted in MLflow; restore it there or choose another name"
        )
    return found.experiment_id


def _start(
    client: MlflowClient,
    experiment_id: str,
    name: str,
    stage: str,
    fingerprint: str,
    params: Mapping[str, Any],
    parent_run_id: str = "",
) -> str:
    owner = {_HOST: socket.gethostname(), _PROCESS: str(os.getpid())}
    if parent_run_id:
        owner[_PARENT] = parent_run_id
    unfinished = client.search_runs(
        [experiment_id],
        f"tags.`{_STAGE}` = '{stage}' and tags.`{_FINGERPRINT}` = '{fingerprint}' and attributes.status != 'FINISHED'",
        max_results=1,
        order_by=["attributes.start_time DESC"],
    )
    if unfinished:
        run = unfinished[0]
        client.update_run(run.info.run_id, status="RUNNING")
        for key, value in owner.items():
            client.set_tag(run.info.run_id, key, value)
    else:
        tags = {_STAGE: stage, _FINGERPRINT: fingerprint, **owner, **_environment()}
        run = client.create_run(experiment_id, tags=tags, run_name=name)
    _record_params(client, run.info.run_id, {k: v for k, v in params.items() if k not in run.data.params})
    return run.info.run_id


def _record_params(client: MlflowClient, run_id: str, params: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    entries = [Param(key, redact(str(value))) for key, value in params.items()]
    for start in range(0, len(entries), _MOST_PARAMS):
        client.log_batch(run_id, params=entries[start : start + _MOST_PARAMS])


def _mark_abandoned(client: MlflowClient, experiment_id: str) -> None:
    """Mark runs KILLED whose driver on this machine is gone without having ended them."""
    running = client.search_runs(
        [experiment_id], f"tags.`{_HOST}` = '{socket.gethostname()}' and attributes.status = 'RUNNING'"
    )
    for run in running:
        if not _alive(int(run.data.tags[_PROCESS])):
            client.set_terminated(run.info.run_id, "KILLED")


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError as error:
        return isinstance(error, PermissionError)  # somebody else's
    return True


@cache
def _environment() -> dict[str, str]:
    tags = {"dcae15.environment": ", ".join(f"{name} {value}" for name, value in environment().items())}
    if commit := _commit(Path(__file__)):
        tags["mlflow.source.git.commit"] = commit
    return tags


def _commit(file: Path) -> str:
    """Return the commit of the checkout that tracks this file; empty without git, or when installed elsewhere."""
    try:
        for arguments in (["ls-files", "--error-unmatch", file.name], ["rev-parse", "HEAD"]):
            answer = subprocess.run(
                ["git", *arguments], cwd=file.parent, capture_output=True, text=True, timeout=10, check=True
            )
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.strip()


def _reason(error: Exception) -> str:
    return redact(str(error).split("\n", 1)[0])
