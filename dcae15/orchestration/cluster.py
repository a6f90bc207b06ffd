"""The Ray cluster: start a local one or join a running one, and share out its resources."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import ray

import dcae15
from dcae15 import storage
from dcae15.command_line import THREADS
from dcae15.config import Config, ScalingConfig
from dcae15.errors import ConfigError, Dcae15Error, StorageError

LOCAL_OBJECT_STORE_BYTES = 1 << 30
CONNECT_SECONDS = 10

ENVIRONMENT = {
    "RAY_worker_niceness": "0",  # workers would run at nice 15 and starve beside other processes
    "RAY_DATA_USE_DATASOURCE_V2": "0",  # the second version starts 32 actors per listing
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "2",  # failures and the end of training are seen sooner
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "900",  # a node may have to boot first
    **THREADS,
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # else harmless lines of Ray's core fill the console; set it to debug Ray itself
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # leave CUDA_VISIBLE_DEVICES alone for processes without GPUs
}


@dataclass(frozen=True)
class Cluster:
    """What the cluster offers now.

    Attributes:
        cpus: CPUs of all nodes.
        gpus: GPUs of all nodes.
        local: whether this process started it.
        cpus_per_gpu: CPUs beside each GPU, on the node with GPUs that has fewest; 0 without GPUs.
    """

    cpus: int
    gpus: int
    local: bool
    cpus_per_gpu: int = 0

    def uses_gpu(self, scaling: ScalingConfig) -> bool:
        """Tell whether stages compute on GPUs."""
        return scaling.use_gpu == "yes" or (scaling.use_gpu == "auto" and self.gpus > 0)

    def trains_in_process(self, scaling: ScalingConfig) -> bool:
        """Tell whether training runs in the driver itself: on a machine without GPUs where nobody asked for workers.

        There a worker process would only add Ray Train's own processes, which take a seventh of a core while they wait.
        """
        return self.local and not scaling.num_workers and not scaling.cpus_per_worker and not self.uses_gpu(scaling)

    def training_workers(self, scaling: ScalingConfig) -> tuple[int, int]:
        """Return (workers, CPUs of each)."""
        workers = scaling.num_workers or (max(1, self.gpus) if self.uses_gpu(scaling) else 1)
        return workers, scaling.cpus_per_worker or max(1, self.cpus // workers)

    def encoders(self, scaling: ScalingConfig, plans: int) -> tuple[int, int, float]:
        """Return (least actors, most actors, CPUs of each) for stages that run a network over shards.

        Without GPUs an actor has one thread: actors side by side lose nothing at the barriers of a thread pool.
        """
        least, most = scaling.encoders
        if self.uses_gpu(scaling):
            most, cpus = most or max(least, self.gpus), 1.0
        else:
            if not most:
                most = max(least, self.cpus)
                least = most if self.local else least  # a local cluster has no nodes to wait for
            cpus = max(1.0, self.cpus // most)
        most = max(1, min(most, plans))
        return min(least, most), most, cpus


@contextmanager
def connect(config: Config) -> Iterator[Cluster]:
    """Start a local Ray, or join the one that RAY_ADDRESS names; leave it at the end.

    Raises:
        ConfigError: more is asked for than the cluster has, or it cannot be joined.
        StorageError: the workers cannot reach the storage.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name, value in storage.environment().items():
        os.environ.setdefault(name, value)
    address = os.environ.get("RAY_ADDRESS", "local")
    local = address == "local"
    in_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
    package = Path(dcae15.__file__).parent
    variables = {**{name: os.environ[name] for name in ENVIRONMENT}, **_public(storage.environment())}
    runtime_env: dict[str, object] = {"env_vars": variables}
    options: dict[str, object] = {}
    if local:
        # Workers import what the script does, wherever it was started from.
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, [str(package.parent), os.environ.get("PYTHONPATH", "")]))
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # the local cluster listens on loopback only
        # Ray Train's workers need the dashboard's process to end without a delay; without workers it only takes time.
        dashboard = bool(config.scaling.num_workers or config.scaling.cpus_per_worker)
        options = {
            "object_store_memory": LOCAL_OBJECT_STORE_BYTES,
            "include_dashboard": dashboard,
            "dashboard_host": "127.0.0.1",
        }
    elif not in_job:
        runtime_env["py_modules"] = [str(package)]  # workers run this code, not an older install
    if not local:
        _require_answer(address)
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=address,
            runtime_env=runtime_env,
            logging_level=logging.WARNING,
            log_to_driver=False,  # see console.py
            configure_logging=True,
            **options,  # pyright: ignore[reportArgumentType]
        )
    except ConnectionError as error:
        raise ConfigError(
            f"no Ray cluster answers at RAY_ADDRESS={address}: {error}; start it with `ray start --head`, "
            "or unset RAY_ADDRESS to use a local one"
        ) from error
    except OSError as error:
        if "AF_UNIX path length" not in str(error):
            raise
        raise ConfigError(
            "Ray keeps sockets below TMPDIR or RAY_TMPDIR, whose path is too long for them; set RAY_TMPDIR to a folder "
            "with a short path (e.g. RAY_TMPDIR=/tmp)"
        ) from error
    try:
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray's own handler exits without a word, and without our cleaning up
        _quieten()
        resources = ray.cluster_resources()
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU")]
        beside = min((int(node.get("CPU", 0) // node["GPU"]) for node in nodes), default=0)
        cluster = Cluster(int(resources.get("CPU", 0)), int(resources.get("GPU", 0)), local, beside)
        if not local:
            _require_storage(config)
        yield cluster
    finally:
        ray.shutdown()


class Session:
    """Ray for the stages of a pipeline, left while the driver itself trains on a local machine.

    A local Ray's idle processes would take their part of the cores from the training, which needs nothing of them. What a
    stage leaves behind for another is in the storage, never in Ray.

    Args:
        config: the configuration.
        share: what the stages may use of a cluster that this process is part of already; then it is neither joined nor left.
    """

    def __init__(self, config: Config, share: Cluster | None = None) -> None:
        self._config, self._share = config, share
        self._connection = ExitStack()
        self._cluster: Cluster | None = None
        self._joined = False

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *error: object) -> None:
        self._leave()

    def cluster(self, *, trains: bool) -> Cluster:
        """Return the cluster for a stage, joined unless the stage trains in this process; raises what `connect` does."""
        if self._share is not None:
            return self._share
        if self._cluster is None or not (self._joined or self._in_process(self._cluster, trains)):
            self._cluster = self._connection.enter_context(connect(self._config))
            self._joined = True
        if self._in_process(self._cluster, trains):
            self._leave()
        return self._cluster

    def _in_process(self, cluster: Cluster, trains: bool) -> bool:
        return trains and cluster.trains_in_process(self._config.scaling)

    def _leave(self) -> None:
        self._joined = False
        self._connection.close()


def check_workers(config: Config, cluster: Cluster, who: str = "this machine") -> None:
    """Raise ConfigError when a local cluster, or a share of it, can never run what the configuration asks for; others may grow."""
    workers, cpus = cluster.training_workers(config.scaling)
    if not cluster.local:
        return
    if workers * cpus > cluster.cpus:
        raise ConfigError(
            f"scaling.num_workers={workers} with scaling.cpus_per_worker={cpus} needs {workers * cpus} CPUs, {who} "
            f"has {cluster.cpus}; lower one of them"
        )
    if config.scaling.use_gpu == "yes" and workers > cluster.gpus:
        raise ConfigError(
            f"scaling.use_gpu=yes with {workers} workers needs {workers} GPUs, {who} has {cluster.gpus}; "
            "set scaling.use_gpu=auto or lower scaling.num_workers"
        )


def user_error(error: BaseException) -> Dcae15Error | None:
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


def _require_answer(address: str) -> None:
    """Raise ConfigError when nobody listens at ``host:port``; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise ConfigError(
            f"no Ray cluster answers at RAY_ADDRESS={address}: {error}; start it with `ray start --head`, "
            "or unset RAY_ADDRESS to use a local one"
        ) from error


def _public(environment: dict[str, str]) -> dict[str, str]:
    """Drop secrets: a runtime environment is shown on dashboards, and nodes bring their own credentials."""
    secret = ("KEY", "SECRET", "TOKEN")
    return {name: value for name, value in environment.items() if not any(word in name for word in secret)}


def _require_storage(config: Config) -> None:
    """Let a worker try the storage, so that missing credentials on the nodes show before any work."""

    @ray.remote(num_cpus=0)
    def check(uri: str) -> str:
        try:
            storage.check_access(uri)
        except StorageError as error:
            return str(error)
        return ""

    message = ray.get(check.remote(config.storage))
    if message:
        raise StorageError(f"a node of the cluster cannot use the storage: {message}")


def _quieten() -> None:
    """Keep Ray's own progress and notices out of ours; they are in its log files."""
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
    for name in ("ray.data", "ray.train", "ray.tune", "ray._common.deprecation", "py.warnings"):
        logging.getLogger(name).setLevel(logging.ERROR)
