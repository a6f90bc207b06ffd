"""Start a local Ray or join a running one."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray

from dcae15 import storage
from dcae15.cluster.machine import SPIN, ray_address, set_spin, this_machine
from dcae15.cluster.resources import Resources
from dcae15.config import Config
from dcae15.errors import ConfigError, StorageError

LOCAL_OBJECT_STORE_BYTES = 1 << 30
CONNECT_SECONDS = 10
NO_ANSWER = (
    "no Ray cluster answers at RAY_ADDRESS={address}: {error}; start it with `ray start --head`, or unset RAY_ADDRESS to use a "
    "local one"
)

ENVIRONMENT = {
    "RAY_worker_niceness": "0",  # workers would run at nice 15 and starve beside other processes
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "2",  # failures and the end of training are seen sooner
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "900",  # a node may have to boot first
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # else harmless lines of Ray's core fill the console; set it to debug Ray itself
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # leave CUDA_VISIBLE_DEVICES alone for processes without GPUs
}


@contextmanager
def connect(config: Config) -> Iterator[Resources]:
    """Start a local Ray, or join the one that RAY_ADDRESS names; leave it at the end.

    Raises:
        ConfigError: more is asked for than the cluster has, or it cannot be joined.
        StorageError: the workers cannot reach the storage.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name, value in storage.environment().items():
        os.environ.setdefault(name, value)
    set_spin()
    address = ray_address()
    local = address == "local"
    machine = this_machine() if local else None
    in_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
    package = Path(__file__).parents[1]
    passed = [name for name in (*ENVIRONMENT, *SPIN, "OMP_WAIT_POLICY") if name in os.environ]
    variables = {**{name: os.environ[name] for name in passed}, **_public(storage.environment())}
    runtime_env: dict[str, object] = {"env_vars": variables}
    options: dict[str, object] = {}
    if machine:
        # Workers import what the script does, wherever it was started from.
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, [str(package.parent), os.environ.get("PYTHONPATH", "")]))
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # the local cluster listens on loopback only
        # Ray Train's workers need the dashboard's process to end without a delay; without workers it only takes time.
        dashboard = bool(config.scaling.num_workers or config.scaling.cpus_per_worker)
        options = {
            "num_cpus": machine.cpus,
            "num_gpus": machine.gpus,
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
        raise ConfigError(NO_ANSWER.format(address=address, error=error)) from error
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
        if not machine:
            _require_storage(config)
        yield machine or _offered()
    finally:
        ray.shutdown()


def _offered() -> Resources:
    """Return what the cluster that was joined offers now."""
    resources = ray.cluster_resources()
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU")]
    beside = min((int(node.get("CPU", 0) // node["GPU"]) for node in nodes), default=0)
    return Resources(int(resources.get("CPU", 0)), int(resources.get("GPU", 0)), False, beside, grows=True)


def _require_answer(address: str) -> None:
    """Raise ConfigError when nobody listens at ``host:port``; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise ConfigError(NO_ANSWER.format(address=address, error=error)) from error


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
    for name in ("ray.train", "ray.tune", "ray._common.deprecation", "py.warnings"):
        logging.getLogger(name).setLevel(logging.ERROR)
