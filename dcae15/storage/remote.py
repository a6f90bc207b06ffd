"""Object stores through fsspec: one connection per process, no cached listings, one request per read."""

from __future__ import annotations

import contextlib
import functools
import os
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, cast

import fsspec

from dcae15.errors import StorageError
from dcae15.storage import web
from dcae15.storage.attempts import attempt, error_code
from dcae15.storage.names import FileInfo, is_temporary

READ_AHEAD_BYTES = 8 * 2**20  # what an open file fetches beyond what was asked for

# Each request is retried on its own, which saves long uploads; what still fails is repeated as a whole by attempt().
S3_RETRIES = {"mode": "standard", "total_max_attempts": 3}
_S3_OPTIONS = {
    "max_concurrency": 1,  # a read is one request, so it sees one version of the object
    "config_kwargs": {"retries": S3_RETRIES, "connect_timeout": 5, "read_timeout": 60, "max_pool_connections": 32},
}
_UPLOAD_CONCURRENCY = 8
_REMOVE_CONCURRENCY = 16
_VERSIONS = ("ETag", "etag", "md5", "md5Hash", "LastModified", "last_modified", "mtime", "updated")
_MACHINE_VARIABLES = re.compile(r".*PROFILE|.*_FILE|AWS_CONTAINER_.*|AWS_EXECUTION_ENV")


def environment() -> dict[str, str]:
    """Return the AWS variables that remote workers need, and complete those of this process.

    Variables that name files or roles of this machine (AWS_PROFILE, *_FILE, AWS_CONTAINER_*) are left out.
    The values are secrets: hand them to workers, never to a log or a manifest.
    """
    # Servers other than AWS refuse the checksum trailers that recent clients send by default.
    os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    os.environ.setdefault("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")
    names = [name for name in os.environ if name.startswith("AWS_") and not _MACHINE_VARIABLES.fullmatch(name)]
    return {name: os.environ[name] for name in names}


def read(uri: str) -> bytes:
    """Return one version of an object, whole."""
    return cast(bytes, _filesystem(uri).cat_file(uri))


def read_range(uri: str, offset: int, size: int) -> bytes:
    """Return a part of an object, in one request; less where the object ends before."""
    return cast(bytes, _filesystem(uri).cat_file(uri, start=offset, end=offset + size))


def info(uri: str) -> FileInfo:
    """Return size and version of an object; its path is empty."""
    return _info("", _filesystem(uri).info(uri))


def write(uri: str, data: bytes) -> None:
    """Replace an object atomically: one PUT, or a multipart upload that commits at the end."""
    options = {"max_concurrency": _UPLOAD_CONCURRENCY} if uri.startswith("s3://") else {}
    _filesystem(uri).pipe_file(uri, data, **options)


def create(uri: str, data: bytes, mark: str) -> bool:
    """Write an object only if there is none; True for exactly one of several racing creators.

    The mark is the creator's own, and the same in all its attempts.
    """
    filesystem = _filesystem(uri)
    options = {"Metadata": {"creator": mark}} if uri.startswith("s3://") else {}
    try:
        filesystem.pipe_file(uri, data, mode="create", **options)
    except OSError as error:
        if not isinstance(error, FileExistsError) and error_code(error) not in {"PreconditionFailed", "412"}:
            raise
        # An attempt that was repeated because its answer got lost finds its own object.
        return bool(options) and filesystem.metadata(uri).get("creator") == mark
    return True


def open_read(uri: str) -> BinaryIO:
    """Open an object; every later fetch is retried and explained like all other operations."""
    file = _filesystem(uri).open(uri, "rb", block_size=READ_AHEAD_BYTES, cache_type="readahead")
    fetch = file.cache.fetcher
    file.cache.fetcher = lambda start, end: attempt(uri, "read", lambda: fetch(start, end))
    return file


def exists(uri: str) -> bool:
    """Tell whether there is such an object, or one below this name."""
    try:
        return _filesystem(uri).info(uri)["type"] == "file" or bool(files(uri))
    except FileNotFoundError as error:
        if error_code(error) == "NoSuchBucket":
            raise
        return False


def files(uri: str) -> list[FileInfo]:
    """List all objects below a name, without the markers (dir/) that some writers make."""
    filesystem = _filesystem(uri)
    prefix = filesystem._strip_protocol(uri) + "/"
    try:
        found = filesystem.find(uri, detail=True)
    except FileNotFoundError as error:
        if error_code(error) == "NoSuchBucket":
            raise
        return []
    return [
        _info(path, details)
        for name, details in found.items()
        if name.startswith(prefix) and not name.endswith("/") and not is_temporary(path := name.removeprefix(prefix))
    ]


def remove(uri: str) -> None:
    """Remove an object and all below its name, markers included."""
    filesystem = _filesystem(uri)
    path = filesystem._strip_protocol(uri)

    def remove_one(name: str) -> None:
        # Not rm(): it expands *, ? and [ in names, and is silent about objects that it may not remove.
        with contextlib.suppress(FileNotFoundError):
            filesystem.rm_file(name)

    names = {path, *(name for name in filesystem.find(uri) if name.startswith(path + "/"))}
    with ThreadPoolExecutor(_REMOVE_CONCURRENCY) as pool:
        list(pool.map(remove_one, sorted(names)))


def is_readable(uri: str) -> bool:
    """Tell whether the folder can be listed, even if it is empty."""
    try:
        _filesystem(uri).ls(uri)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _info(path: str, details: dict[str, Any]) -> FileInfo:
    version = next((str(details[name]) for name in _VERSIONS if details.get(name)), "")
    return FileInfo(path, int(details["size"]), version)


def _filesystem(uri: str) -> Any:
    """Return the file system of a URI, made anew after a fork and when the AWS variables have changed."""
    return _connect(uri.partition("://")[0], os.getpid(), hash(frozenset(environment().items())))


def _web_options() -> dict[str, Any]:
    import aiohttp  # what fsspec reads the web with

    # Its own limit is five minutes for a whole file, which a dead host would cost and a large file may need.
    limits = aiohttp.ClientTimeout(total=None, sock_connect=web.CONNECT_SECONDS, sock_read=web.READ_SECONDS)
    return {"client_kwargs": {"timeout": limits}}


@functools.lru_cache(maxsize=4)
def _connect(scheme: str, process: int, variables: int) -> Any:
    try:
        kind = fsspec.get_filesystem_class(scheme)
    except ValueError as error:
        raise StorageError(f"There is no storage scheme {scheme}://. Use a local folder, s3:// or gs://.") from error
    except ImportError as error:
        raise StorageError(f"{scheme}:// needs a package that is not installed: {error}.") from error
    options = _S3_OPTIONS if scheme == "s3" else _web_options() if scheme in ("http", "https") else {}
    filesystem: Any = kind(use_listings_cache=False, skip_instance_cache=True, **options)
    if scheme == "s3":
        filesystem.retries = 1  # attempt() does it, with jitter and for more kinds of errors
    return filesystem
