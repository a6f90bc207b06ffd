"""URI to file system: whole-file reads and atomic writes, the same for local folders and object stores.

All functions take a local path or a URI (s3://, gs:// or another scheme that fsspec knows). Transient errors are
retried; every other becomes a `StorageError` that says what to do.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from pathlib import Path
from typing import Any, BinaryIO

import xxhash

from dcae15.errors import StorageError
from dcae15.storage import local, remote
from dcae15.storage.attempts import attempt, is_denied, is_missing
from dcae15.storage.contents import HEAD_BYTES, pointer, stand_in
from dcae15.storage.faults import fault_of_file
from dcae15.storage.names import FileInfo, canonical, expanded, is_remote, join, resolve, temporary_name
from dcae15.storage.ranges import open_range, read_range
from dcae15.storage.remote import environment
from dcae15.storage.web import host_of, shown

CHECK_SECONDS = 10.0  # how long check_access retries: before any work, a typo is likelier than a hiccup


def read_bytes(uri: str) -> bytes:
    """Return the content of a file. Raises StorageError: the file does not exist or cannot be read."""
    uri = canonical(uri)
    return attempt(uri, "read", lambda: remote.read(uri) if is_remote(uri) else local.path_of(uri).read_bytes())


def write_bytes(uri: str, data: bytes | memoryview) -> None:
    """Write a file atomically, and the folders above it: readers see the old file or the whole new one.

    Raises:
        StorageError: the file cannot be written; what was there before is intact.
    """
    uri = canonical(uri)
    attempt(uri, "write", lambda: _write(uri, data))


def create_bytes(uri: str, data: bytes) -> bool:
    """Write a file only if there is none: for locks and claims.

    Returns:
        True for exactly one of several racing creators, False for all others.

    Raises:
        StorageError: the file cannot be written.
    """
    uri = canonical(uri)
    mark = uuid.uuid4().hex

    def create() -> bool:
        return remote.create(uri, data, mark) if is_remote(uri) else local.create(local.path_of(uri), data)

    return attempt(uri, "create", create)


def read_json(uri: str) -> Any:
    """Return the value in a JSON file. Raises StorageError: the file does not exist, cannot be read or is not JSON."""
    data = read_bytes(uri)
    try:
        return json.loads(data)
    except ValueError as error:
        if found := "" if data.lstrip()[:1] in (b"{", b"[") else stand_in(data[:HEAD_BYTES]):
            raise StorageError(f"{uri} is not valid JSON. It is {found}.") from error
        raise StorageError(f"{uri} is not valid JSON ({error}). Restore it, or run again what wrote it.") from error


def write_json(uri: str, value: Any) -> None:
    """Write a value as JSON (sorted keys, indented), atomically. Raises StorageError: the file cannot be written."""
    write_bytes(uri, (json.dumps(value, sort_keys=True, indent=2) + "\n").encode())


def open_read(uri: str) -> BinaryIO:
    """Open a file for reading, seekable; a remote one reads 8 MiB ahead, so that sequential reads are few requests.

    Raises:
        StorageError: the file does not exist or cannot be read. Also raised later, while reading, for instance when
            a remote file was overwritten since it was opened.
    """
    uri = canonical(uri)
    return attempt(uri, "open", lambda: remote.open_read(uri) if is_remote(uri) else local.path_of(uri).open("rb"))


def file_info(uri: str) -> FileInfo:
    """Return size and version of one file, as `list_files` does of many; its path is empty.

    Raises:
        StorageError: the file does not exist or cannot be asked.
    """
    uri = canonical(uri)
    return attempt(uri, "look for", lambda: remote.info(uri) if is_remote(uri) else local.info(uri))


def exists(uri: str) -> bool:
    """Tell whether there is such a file, or a folder that holds at least one file.

    Raises:
        StorageError: the storage cannot be asked, for instance because there is no such bucket.
    """
    uri = canonical(uri)
    return attempt(uri, "look for", lambda: remote.exists(uri) if is_remote(uri) else local.exists(uri))


def list_files(uri: str) -> list[FileInfo]:
    """List all files below a folder, recursively, sorted by path; [] when there is no such folder.

    Local symbolic links are followed. Unfinished files and the directory markers of object stores are left out.

    Raises:
        StorageError: the folder cannot be listed.
    """
    uri = canonical(uri)
    files = attempt(uri, "list", lambda: remote.files(uri) if is_remote(uri) else list(local.files(uri)))
    return sorted(files, key=lambda file: file.path)


def remove(uri: str) -> None:
    """Remove a file or a whole folder; nothing there is fine.

    A local folder vanishes at once. A remote one goes file by file: remove first what marks it as complete.

    Raises:
        StorageError: it cannot be removed, or it is a bucket, the root or the home folder.
    """
    uri = canonical(uri)
    if uri in {"/", str(Path.home())} or (is_remote(uri) and "/" not in uri.partition("://")[2]):
        raise StorageError(f"Refusing to remove all of {uri}. Name a folder in it.")
    attempt(uri, "remove", lambda: remote.remove(uri) if is_remote(uri) else local.remove(local.path_of(uri)))


def remove_unfinished(uri: str) -> None:
    """Remove what killed writers left below a folder; call it when nobody writes there. Object stores keep no such rests.

    Raises:
        StorageError: it cannot be removed.
    """
    uri = canonical(uri)
    if not is_remote(uri):
        attempt(uri, "clean", lambda: local.remove_unfinished(local.path_of(uri)))


def sha256(data: bytes | memoryview) -> str:
    """Return the SHA-256 of the data, 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def xxh3(data: bytes | memoryview) -> str:
    """Return the XXH3 of the data, 32 hexadecimal digits: finds damage about twenty times as fast as SHA-256, but no forgery."""
    return xxhash.xxh3_128_hexdigest(data)


def check_access(uri: str) -> None:
    """Make sure that a storage root can be written, read and cleaned, before any work starts.

    Raises:
        StorageError: no such scheme or bucket, wrong credentials, read-only, or unreachable; says which.
    """
    uri = canonical(uri)
    probe, data = join(uri, temporary_name()), uuid.uuid4().bytes
    try:
        attempt(uri, "write to", lambda: _write(probe, data), CHECK_SECONDS)
    except StorageError as error:
        if is_remote(uri) and is_denied(error.__cause__) and remote.is_readable(uri):
            raise StorageError(
                f"{uri} is read-only: it can be listed but not written. Give the user behind AWS_ACCESS_KEY_ID the "
                "permission to write there, or choose another place."
            ) from error.__cause__
        raise
    found = read_bytes(probe)
    remove(probe)
    if found != data:
        raise StorageError(f"{uri} returned other bytes than were written there. Do not use this storage.")


def _write(uri: str, data: bytes | memoryview) -> None:
    if is_remote(uri):
        remote.write(uri, bytes(data))
    else:
        local.write(local.path_of(uri), data)
