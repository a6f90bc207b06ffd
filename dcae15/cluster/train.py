"""Training: in this process, or in workers of Ray Train. What fails is tried again from the last checkpoint."""

from __future__ import annotations

import itertools
import traceback
import uuid
from collections.abc import Callable
from typing import Any

import torch

from dcae15 import storage
from dcae15.cluster.machine import computing
from dcae15.cluster.resources import Resources
from dcae15.config import ScalingConfig
from dcae15.errors import ArtifactError, ConfigError, Dcae15Error, TrainingError, WeightsError
from dcae15.runtime import LocalRuntime, ProcessGroupRuntime, Runtime

Body = Callable[[Runtime], None]
"""What every training process does."""
HOPELESS = (ConfigError, ArtifactError, TrainingError, WeightsError)
"""Errors that every worker meets at the same point; to try again would not help."""


def train_in_process(body: Body, resources: Resources, scaling: ScalingConfig, uri: str) -> None:
    """Train here: no other processes to start, to wait for, or to share cores with."""
    runtime = LocalRuntime(device=torch.device("cpu"))
    with computing(resources.cpus):
        for restart in itertools.count(1):
            try:
                body(runtime)
                return
            except HOPELESS:
                raise
            except Exception as error:
                if restart > scaling.max_failures:
                    if isinstance(error, Dcae15Error):
                        raise
                    raise TrainingError(_stopped(uri, f"{traceback.format_exc().strip()}\nits")) from error
                runtime.say(f"training stopped ({error}); restart {restart} of {scaling.max_failures}")


def train_on_workers(
    body: Body, resources: Resources, scaling: ScalingConfig, uri: str, folder: str, say: Callable[[str], None]
) -> None:
    """Train in workers of Ray Train, which keeps its own notes in ``folder``; ``say`` reaches the console from there."""
    from ray.train import FailureConfig, RunConfig
    from ray.train import ScalingConfig as Workers
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    workers, cpus = resources.training_workers(scaling)
    gpu = resources.uses_gpu(scaling)
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"body": body, "threads": cpus, "say": say},
        scaling_config=Workers(
            num_workers=workers, use_gpu=gpu, resources_per_worker={"CPU": cpus, **({"GPU": 1} if gpu else {})}
        ),
        run_config=RunConfig(
            # Our checkpoints make a run continue; Ray's own snapshot of an earlier run of the same name must not interfere.
            name=uuid.uuid4().hex[:8],
            storage_path=folder,
            failure_config=FailureConfig(max_failures=scaling.max_failures, controller_failure_limit=3),
        ),
    )
    try:
        error = trainer.fit().return_value
    except TrainingFailedError as failed:
        known = _user_error(failed)
        if known is not None:
            raise known from None
        raise TrainingError(_stopped(uri, f"{failed}; its")) from failed
    finally:
        storage.remove(folder)  # with what killed attempts left
    if error is not None:
        raise error


def _stopped(uri: str, why: str) -> str:
    return f"training at {uri} stopped: {why} checkpoints are kept, the same command continues it"


def _worker(given: dict[str, Any]) -> Dcae15Error | None:
    """Train in one worker; what to try again would not help is returned: raised, Ray would do it."""
    try:
        with computing(given["threads"]):
            given["body"](_WorkerRuntime(given["say"]))
    except HOPELESS as error:
        return type(error)(str(error))
    return None


class _WorkerRuntime(ProcessGroupRuntime):
    """One worker of a `ray.train.torch.TorchTrainer`; see `dcae15.runtime.Runtime`."""

    def __init__(self, say: Callable[[str], None]) -> None:
        import ray.train.torch

        super().__init__(ray.train.torch.get_device())
        self._say = say

    def say(self, line: str) -> None:
        """Send the line to the driver's console."""
        self._say(line)

    def preempted(self) -> bool:
        """Ask Ray whether a node of this run will be taken away; a barrier of about 25 ms."""
        import ray.train

        return ray.train.get_preemption_info() is not None


def _user_error(error: BaseException) -> Dcae15Error | None:
    """Return the error of ours that a Ray error wraps, if there is one."""
    seen: set[int] = set()
    queue: list[BaseException | None] = [error]
    while queue:
        current = queue.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, Dcae15Error):
            for kind in type(current).__mro__:  # a Ray task error inherits from the error that it wraps
                if kind.__module__ == "dcae15.errors":
                    cause = getattr(current, "cause", current)
                    return kind(str(cause if isinstance(cause, Dcae15Error) else current))
        queue += [current.__cause__, current.__context__, getattr(current, "cause", None)]
        queue += [getattr(current, "controller_failure", None), *getattr(current, "worker_failures", {}).values()]
    return None
