"""A tracker: what a stage may write down, in one MLflow run."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from dcae15.redaction import redact
from dcae15.tracking.database import open_client

if TYPE_CHECKING:
    import numpy as np
    from mlflow import MlflowClient

Status = Literal["FINISHED", "FAILED", "KILLED"]

_log = logging.getLogger(__name__)
_PICTURE = "dcae15.picture."  # tag that holds the last step of a picture
_MOST_METRICS = 1_000  # MLflow's limit of one batch
_MUTE_SECONDS = 60.0


@dataclass(frozen=True)
class TrackerSpec:
    """A run that another process can open; an empty ``run_id`` means that nothing is tracked."""

    uri: str = field(default="", repr=False)  # tracking server or database; may hold a password, therefore not shown
    experiment_id: str = ""  # MLflow's id of the experiment
    run_id: str = ""  # MLflow's id of the run


class Tracker:
    """Where a stage writes down how it goes, in any process: an MLflow run, or nowhere for an empty spec.

    Nothing is contacted before the first value is written. No method raises because the tracking server is in trouble: after a
    failure one warning is logged, values are dropped for a minute, and then it tries again.
    """

    def __init__(self, spec: TrackerSpec = TrackerSpec()) -> None:
        self._spec = spec
        self._client: MlflowClient | None = None
        self._metrics_before: set[str] = set()  # recorded before this process came; their last step is not known yet
        self._last_steps: dict[str, int] = {}
        self._muted_until = 0.0
        self._warned = False

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record numbers at ``step`` images seen; what was recorded before a restart is not repeated."""
        self._safely(lambda client: self._record(client, values, step))

    def picture(self, name: str, image_HWC: np.ndarray, step: int) -> None:
        """Record a picture, uint8 of shape (height, width, 3), at ``step`` images seen; not repeated either."""

        def write(client: MlflowClient) -> None:
            key = _PICTURE + name
            if step > self._last_steps.get(key, -1):
                client.log_image(self._spec.run_id, image_HWC, key=name, step=step, synchronous=True)
                client.set_tag(self._spec.run_id, key, step)
                self._last_steps[key] = step

        self._safely(write)

    def text(self, text: str, path: str) -> None:
        """Store a text file at this path below the run's artifacts."""
        self._safely(lambda client: client.log_text(self._spec.run_id, redact(text), path))

    def dict(self, values: Mapping[str, Any], path: str) -> None:
        """Store a .json or .yaml file at this path below the run's artifacts."""
        self._safely(lambda client: client.log_dict(self._spec.run_id, _redacted(values), path))

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags of the run."""

        def write(client: MlflowClient) -> None:
            for name, value in values.items():
                client.set_tag(self._spec.run_id, name, redact(value))

        self._safely(write)

    def finish(self, status: Status) -> None:
        """End the run."""
        self._muted_until = 0.0  # the last chance to be heard
        self._safely(lambda client: client.set_terminated(self._spec.run_id, status))

    def _safely(self, write: Callable[[MlflowClient], None]) -> None:
        """Write, or warn: hours of training are worth more than a number in a diagram."""
        if not self._spec.run_id or time.monotonic() < self._muted_until:
            return
        try:
            write(self._connected())
        except Exception as error:
            self._muted_until = time.monotonic() + _MUTE_SECONDS
            if not self._warned:
                self._warned = True
                reason = redact(str(error).split("\n", 1)[0])
                _log.warning("tracking failed; values are dropped until it works again, training goes on: %s", reason)

    def _connected(self) -> MlflowClient:
        if self._client is None:
            client = open_client(self._spec.uri)
            data = client.get_run(self._spec.run_id).data
            self._metrics_before = set(data.metrics)
            self._last_steps = {key: int(step) for key, step in data.tags.items() if key.startswith(_PICTURE)}
            self._client = client
        return self._client

    def _record(self, client: MlflowClient, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        for name in self._metrics_before & set(values):
            history = client.get_metric_history(self._spec.run_id, name)
            self._last_steps[name] = max(metric.step for metric in history)
            self._metrics_before.remove(name)
        now = int(time.time() * 1000)
        later = {name: float(value) for name, value in values.items() if step > self._last_steps.get(name, -1)}
        new = [Metric(name, value, now, step) for name, value in later.items()]
        for start in range(0, len(new), _MOST_METRICS):
            client.log_batch(self._spec.run_id, metrics=new[start : start + _MOST_METRICS])
        self._last_steps.update((metric.key, step) for metric in new)


def _redacted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _redacted(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(item) for item in value]
    return redact(value) if isinstance(value, str) else value
