"""The training stages on Ray Train."""

from __future__ import annotations

import traceback
import uuid
from collections.abc import Callable
from typing import Any

import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError

from dcae15 import storage, tracking
from dcae15.config import Config
from dcae15.errors import ArtifactError, ConfigError, Dcae15Error, TrainingError, WeightsError
from dcae15.orchestration.cluster import Cluster, check_workers, user_error
from dcae15.orchestration.console import console
from dcae15.orchestration.runtime import RayRuntime
from dcae15.training import stages


def train_autoencoder(config: Config, cluster: Cluster, tracker: tracking.TrackerSpec, **stage: Any) -> None:
    """Run `dcae15.training.stages.train_autoencoder` on the cluster's workers."""
    _fit(stages.train_autoencoder, config, cluster, tracker, stage)


def train_diffusion(config: Config, cluster: Cluster, tracker: tracking.TrackerSpec, **stage: Any) -> None:
    """Run `dcae15.training.stages.train_diffusion` on the cluster's workers."""
    _fit(stages.train_diffusion, config, cluster, tracker, stage)


def _fit(
    function: Callable[..., None],
    config: Config,
    cluster: Cluster,
    tracker: tracking.TrackerSpec,
    stage: dict[str, Any],
) -> None:
    check_workers(config, cluster)
    ray_folder = storage.join(config.storage, ".ray", stage["fingerprint"])
    if cluster.trains_in_process(config.scaling):
        _fit_in_process(function, config, cluster, tracker, stage)
        storage.remove(ray_folder)  # of a killed attempt that had workers
        return
    workers, cpus = cluster.training_workers(config.scaling)
    gpu = cluster.uses_gpu(config.scaling)
    # Our checkpoints make a run continue; Ray's own snapshot of an earlier run of the same name must not interfere.
    loop = {"function": function, "config": config, "tracker": tracker, "stage": stage, "threads": cpus}
    scaling = ScalingConfig(
        num_workers=workers, use_gpu=gpu, resources_per_worker={"CPU": cpus, **({"GPU": 1} if gpu else {})}
    )
    run = RunConfig(
        name=uuid.uuid4().hex[:8],
        storage_path=ray_folder,
        failure_config=FailureConfig(max_failures=config.scaling.max_failures, controller_failure_limit=3),
    )
    try:
        with console() as say:
            result = TorchTrainer(
                _worker, train_loop_config={**loop, "say": say}, scaling_config=scaling, run_config=run
            ).fit()
    except TrainingFailedError as error:
        known = user_error(error)
        if known is not None:
            raise known from None
        raise TrainingError(
            f"training at {stage['uri']} stopped: {error}; its checkpoints are kept, the same command continues it"
        ) from error
    finally:
        storage.remove(ray_folder)  # with what killed attempts left
    if isinstance(result.return_value, Dcae15Error):
        raise result.return_value


def _fit_in_process(
    function: Callable[..., None],
    config: Config,
    cluster: Cluster,
    tracker: tracking.TrackerSpec,
    stage: dict[str, Any],
) -> None:
    """Train in this process (Ray Train's local mode): no other processes to start, to wait for, or to share cores with.

    What fails is tried again from the last checkpoint as often as Ray Train would do it.
    """
    loop = {"function": function, "config": config, "tracker": tracker, "stage": stage, "threads": cluster.cpus}
    trainer = TorchTrainer(
        _worker, train_loop_config={**loop, "say": _print, "alone": True}, scaling_config=ScalingConfig(num_workers=0)
    )
    threads, restarts = torch.get_num_threads(), 0
    try:
        while True:
            try:
                result = trainer.fit().return_value
            except Exception as error:
                restarts += 1
                if restarts > config.scaling.max_failures:
                    if isinstance(error, Dcae15Error):
                        raise
                    raise TrainingError(
                        f"training at {stage['uri']} stopped: {traceback.format_exc().strip()}\nits checkpoints are kept, the "
                        "same command continues it"
                    ) from error
                _print(f"training stopped ({error}); restart {restarts} of {config.scaling.max_failures}")
                continue
            if isinstance(result, Dcae15Error):
                raise result
            return
    finally:
        torch.set_num_threads(threads)


def _print(line: str) -> None:
    print(line, flush=True)


def _worker(loop: dict[str, Any]) -> Dcae15Error | None:
    """Train in one worker.

    An error that every worker meets at the same point is returned: raised, Ray would try again what cannot get better.
    """
    torch.set_num_threads(loop["threads"])
    runtime = RayRuntime(loop["say"], alone=loop.get("alone", False))
    tracker = tracking.Tracker(loop["tracker"] if runtime.rank == 0 else tracking.TrackerSpec())
    try:
        loop["function"](loop["config"], runtime=runtime, tracker=tracker, **loop["stage"])
    except (ConfigError, ArtifactError, TrainingError, WeightsError) as error:
        return type(error)(str(error))
    return None
