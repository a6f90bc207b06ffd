"""A real S3 server on loopback: OpenStack Swift and its S3 API in one process.

Mocks of S3 check no credentials, keep nothing on disk, and accept what real servers refuse. Swift installs from PyPI,
starts in a second and survives kill -9 with its data, so the tests of object storage mean something.

It runs in its own virtual environment, because its pins (see install.py) must not meet those of the project:

    python tests/s3/install.py
    .s3/bin/python tests/s3/server.py --dir /tmp/s3 --port 18100
    export AWS_ENDPOINT_URL=http://127.0.0.1:18100 AWS_ACCESS_KEY_ID=lab:key AWS_SECRET_ACCESS_KEY=labsecret
    export AWS_DEFAULT_REGION=us-east-1 AWS_EC2_METADATA_DISABLED=true

The account, container and object servers listen on the three ports above. Ready is when GET /healthcheck answers 200.
Access keys have the form account:user. The user account:reader (same secret) may do only what a bucket's ACL permits.
The folder's file system must know user.* extended attributes (ext4, xfs, btrfs and overlay do).
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import signal
import socket
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

MODULE = "dcae15_s3_server"  # under which Swift's configuration finds the filters below
STORAGE_SERVERS = ("object", "container", "account")
PIPELINE = (
    "catch_errors gatekeeper healthcheck memory_cache listing_formats bulk conditional_create s3api tempauth copy slo "
    "versioned_writes symlink"
)


def main() -> None:
    """Write the configuration, then serve until killed."""
    parser = argparse.ArgumentParser(description="A real S3 server on loopback (OpenStack Swift)")
    parser.add_argument("--dir", type=Path, required=True, help="folder for data and configuration; kept between runs")
    parser.add_argument("--port", type=int, default=18100, help="port of the S3 API; the next three are used as well")
    parser.add_argument("--access-key", default="lab:key", help="account:user")
    parser.add_argument("--secret-key", default="labsecret")
    parser.add_argument("--die-with-parent", action="store_true", help="end when the starting process ends (Linux)")
    options = parser.parse_args()
    if options.die_with_parent:
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    for port in range(options.port, options.port + 4):
        refuse_used_port(port)
    configure(options.dir.resolve(), options.port, options.access_key, options.secret_key)
    serve(options.dir.resolve())


def refuse_used_port(port: int) -> None:
    """Fail if somebody listens: Swift binds with SO_REUSEPORT, so two servers would share the port in silence."""
    with contextlib.closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))


# ---------------------------------------------------------------------------------------------------- configuration


def configure(folder: Path, port: int, access_key: str, secret_key: str) -> None:
    """Write swift.conf, and for each of the four servers its configuration and its ring (one device, one copy)."""
    (folder / "devices" / "d1").mkdir(parents=True, exist_ok=True)
    (folder / "cache").mkdir(exist_ok=True)
    write(
        folder / "swift.conf",
        """
        [swift-hash]
        swift_hash_path_suffix = tests
        swift_hash_path_prefix = tests
        [storage-policy:0]
        name = p0
        default = yes
        """,
    )
    for offset, name in enumerate(STORAGE_SERVERS, start=1):
        write_ring(folder / f"{name}.ring.gz", port + offset)
        write(
            folder / f"{name}.conf",
            f"""
            [DEFAULT]
            swift_dir = {folder}
            devices = {folder}/devices
            mount_check = false
            bind_ip = 127.0.0.1
            bind_port = {port + offset}
            workers = 0
            fallocate_reserve = 0
            disable_fallocate = true
            log_level = WARNING
            recon_cache_path = {folder}/cache
            [pipeline:main]
            pipeline = {name}-server
            [app:{name}-server]
            use = egg:swift#{name}
            network_chunk_size = 1048576
            disk_chunk_size = 1048576
            """,
        )
    write_proxy_configuration(folder, port, access_key, secret_key)


def write_proxy_configuration(folder: Path, port: int, access_key: str, secret_key: str) -> None:
    """Write the configuration of the proxy server, which speaks S3."""
    account, user = access_key.split(":")
    write(
        folder / "proxy.conf",
        f"""
        [DEFAULT]
        swift_dir = {folder}
        bind_ip = 127.0.0.1
        bind_port = {port}
        workers = 0
        log_level = WARNING
        [pipeline:main]
        pipeline = {PIPELINE} proxy-server
        [app:proxy-server]
        use = egg:swift#proxy
        allow_account_management = true
        account_autocreate = true
        client_chunk_size = 1048576
        object_chunk_size = 1048576
        [filter:memory_cache]
        paste.filter_factory = {MODULE}:memory_cache
        [filter:conditional_create]
        paste.filter_factory = {MODULE}:conditional_create
        [filter:s3api]
        use = egg:swift#s3api
        location = us-east-1
        check_bucket_owner = false
        [filter:versioned_writes]
        use = egg:swift#versioned_writes
        allow_versioned_writes = true
        allow_object_versioning = true
        [filter:tempauth]
        use = egg:swift#tempauth
        user_{account}_{user} = {secret_key} .admin
        user_{account}_reader = {secret_key}
        """,
    )
    with (folder / "proxy.conf").open("a") as file:
        for name in ("catch_errors", "gatekeeper", "healthcheck", "listing_formats", "bulk", "copy", "slo", "symlink"):
            file.write(f"[filter:{name}]\nuse = egg:swift#{name}\n")


def write(path: Path, text: str) -> None:
    """Write a configuration file without the indentation that it has here."""
    path.write_text(textwrap.dedent(text).lstrip())


def write_ring(path: Path, port: int) -> None:
    """Write the ring (Swift's map from names to devices) of one server."""
    from swift.common.ring.builder import RingBuilder

    address = {"ip": "127.0.0.1", "port": port, "replication_ip": "127.0.0.1", "replication_port": port}
    ring = RingBuilder(2, 1, 0)
    ring.add_dev({"region": 1, "zone": 1, "device": "d1", "weight": 1.0, "meta": "", **address})
    ring.rebalance()
    ring.get_ring().save(str(path))


# ------------------------------------------------------------------------------------------------------------ serving


class OneHub:
    """Eventlet as Swift's wsgi module sees it: each of the four servers would choose the hub anew."""

    def __init__(self, eventlet: Any):
        self._eventlet = eventlet
        self.hubs = type("Hubs", (), {"use_hub": staticmethod(lambda *_: None)})

    def __getattr__(self, name: str) -> Any:
        return getattr(self._eventlet, name)


def serve(folder: Path) -> None:
    """Run the four servers as green threads of this process."""
    import eventlet
    from eventlet import hubs
    from swift.common import utils, wsgi

    sys.modules[MODULE] = sys.modules["__main__"]
    utils.monkey_patch()
    hubs.use_hub(utils.get_hub())
    wsgi.eventlet = OneHub(eventlet)
    wsgi.capture_stdio = lambda *_, **__: None
    threads = []
    for name in (*STORAGE_SERVERS, "proxy"):
        configuration, logger, log_name = wsgi._initrp(str(folder / f"{name}.conf"), f"{name}-server", verbose=True)
        utils.FALLOCATE_RESERVE = 0
        listening = wsgi.get_socket(configuration)
        names = {"log_name": log_name}
        threads.append(eventlet.spawn(wsgi.run_server, configuration, logger, listening, global_conf=names))
    print("ready", flush=True)
    for thread in threads:
        thread.wait()


class Cache:
    """The part of memcached that Swift uses, in memory: there is only one proxy to share it with."""

    def __init__(self):
        self._items: dict[str, tuple[str, float]] = {}

    def get(self, key: str, raise_on_error: bool = False) -> Any:
        value, expires = self._items.get(key, ("null", 0.0))
        return json.loads(value) if not expires or expires > time.time() else None

    def set(self, key: str, value: Any, *_: Any, time: float = 0, **__: Any) -> None:
        if len(self._items) > 20_000:
            self._items.clear()
        self._items[key] = (json.dumps(value), now() + time if time else 0.0)

    def incr(self, key: str, delta: int = 1, time: float = 0) -> int:
        value = max(0, (self.get(key) or 0) + int(delta))
        self.set(key, value, time=time)
        return value

    def decr(self, key: str, delta: int = 1, time: float = 0) -> int:
        return self.incr(key, -delta, time)

    def delete(self, key: str, server_key: str | None = None) -> None:
        self._items.pop(key, None)

    def set_multi(self, mapping: dict[str, Any], server_key: str, *_: Any, time: float = 0, **__: Any) -> None:
        for key, value in mapping.items():
            self.set(key, value, time=time)

    def get_multi(self, keys: list[str], server_key: str) -> list[Any]:
        return [self.get(key) for key in keys]


def now() -> float:
    """Return the time in seconds; methods of Cache have a parameter called time."""
    return time.time()


def memory_cache(_: dict[str, str], **__: str) -> Any:
    """Make the WSGI filter that spares the account and container look-ups of every request (half of the CPU time)."""
    cache = Cache()

    def make(app: Any) -> Any:
        def call(environ: dict[str, Any], start_response: Any) -> Any:
            environ["swift.cache"] = cache
            return app(environ, start_response)

        return call

    return make


def conditional_create(_: dict[str, str], **__: str) -> Any:
    """Make the WSGI filter that gives If-None-Match the semantics of AWS.

    Swift tests the condition before it reads the body, so that two racing creators can both win: here each name takes
    one at a time. And AWS names the failed condition in its answer.
    """
    import threading  # after monkey_patch(): local to a green thread

    from eventlet.semaphore import Semaphore
    from swift.common.middleware.s3api import s3response

    locks: dict[str, Semaphore] = {}
    waiting: dict[str, int] = {}
    request = threading.local()
    initialise = s3response.PreconditionFailed.__init__

    def name_condition(self: Any, *args: Any, **kwargs: Any) -> None:
        initialise(self, *args, **{"Condition": getattr(request, "condition", "If-Match"), **kwargs})

    s3response.PreconditionFailed.__init__ = name_condition

    def make(app: Any) -> Any:
        def call(environ: dict[str, Any], start_response: Any) -> Any:
            if not environ.get("HTTP_IF_NONE_MATCH") or environ["REQUEST_METHOD"] not in ("PUT", "POST"):
                return app(environ, start_response)
            name = environ["PATH_INFO"]
            lock = locks.setdefault(name, Semaphore())
            waiting[name] = waiting.get(name, 0) + 1
            try:
                with lock:
                    request.condition = "If-None-Match"
                    return app(environ, start_response)
            finally:
                request.condition = "If-Match"
                waiting[name] -= 1
                if not waiting[name]:
                    del locks[name], waiting[name]

        return call

    return make


if __name__ == "__main__":
    main()
