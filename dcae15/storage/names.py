"""Names of places: local paths, URIs, and the temporary names that nobody lists."""

from __future__ import annotations

import os
import re
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from dcae15.errors import StorageError
from dcae15.storage.attempts import AWS_VARIABLES

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_BROKEN_SCHEME = re.compile(r"(s3|s3a|gs|gcs|az|abfs|hdfs|https?):/(?!/)")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]+|arn:aws[a-z-]*:s3.*")
_ESCAPED = re.compile(rb"\\x([89a-f][0-9a-f])")
_VARIABLE = re.compile(r"\$(?:[A-Za-z_]\w*|\{[^}]*\})", re.ASCII)
_TEMPORARY = re.compile(r"(?:^|/)\.tmp-[0-9a-f]{32}(?:/|$)")


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One file below a folder."""

    path: str  # relative to that folder
    size: int  # its bytes
    # changes when the file is written anew: time of the last change, or what the object store gives; may be empty
    version: str = field(default="", compare=False)


def resolve(uri: str) -> str:
    """Make what a user typed canonical.

    Args:
        uri: a local path (with ~ and $VARIABLES), file://path, or scheme://bucket/key.

    Returns:
        An absolute local path without scheme, or scheme://bucket/key without trailing slash.

    Raises:
        StorageError: an environment variable is not set, or the URI is malformed or holds credentials.
    """
    return canonical(expanded(uri))


def expanded(uri: str) -> str:
    """Put the values of $VARIABLES into what a user typed, and leave it as it is otherwise.

    It is for the moment when a text comes from the user: values may hold a $ themselves, so nothing is expanded twice.

    Raises:
        StorageError: an environment variable is not set.
    """
    if unset := next((name for name in _VARIABLE.findall(uri) if name.strip("${}") not in os.environ), ""):
        raise StorageError(f"The environment variable {unset} in a storage path is not set. Set it.")
    return os.path.expandvars(uri)


def join(uri: str, *parts: str) -> str:
    """Append path parts to a URI; slashes around the parts do not matter.

    Raises:
        StorageError: a part would leave the folder (..).
    """
    for part in parts:
        if ".." in part.split("/"):
            raise StorageError(f"{part!r} would leave the folder {uri}. Remove the '..' from the name.")
    names = [name for part in parts if (name := part.strip("/"))]
    return "/".join([uri.rstrip("/"), *names]) if names else uri


def canonical(uri: str) -> str:
    """Do what `resolve` does, but leave every $ in a name alone. Raises StorageError: the URI is malformed or holds credentials."""
    if not uri:
        raise StorageError("An empty path names no storage. Give a folder, or s3://bucket/folder.")
    match = _SCHEME.match(uri)
    if match and match[1].lower() != "file":
        return _canonical_remote(match[1].lower(), match[2])
    if _BROKEN_SCHEME.match(uri):
        raise StorageError(f"{uri} lacks a slash after the scheme. Write {uri.replace(':/', '://', 1)}.")
    try:
        path = Path(match[2] if match else uri).expanduser()
    except RuntimeError as error:
        raise StorageError(f"The home folder in {uri} cannot be found. Write the full path.") from error
    # Path.resolve would replace symbolic links; and abspath keeps two leading slashes.
    return printable("/" + os.path.abspath(path).lstrip("/"))  # noqa: PTH100


def printable(path: str) -> str:
    r"""Return a local path that any text can hold: bytes that are no UTF-8 become ``\xff``, which `actual` takes back."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return os.fsencode(path).decode("utf-8", "backslashreplace")
    return path


def actual(path: str) -> str:
    """Return the local path that a printable one stands for: names that exist as they are written stay so."""
    if "\\x" not in path:
        return path
    found = ""
    for part in path.split("/"):
        raw = os.fsdecode(_ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), part.encode()))
        is_raw = raw != part and not os.path.lexists(f"{found}{part}") and os.path.lexists(f"{found}{raw}")
        found += f"{raw if is_raw else part}/"
    return found[:-1]


def _canonical_remote(scheme: str, rest: str) -> str:
    scheme = "s3" if scheme == "s3a" else scheme
    rest = rest if scheme in ("http", "https") else rest.strip("/")
    bucket = rest.partition("/")[0]
    # Secret keys may hold slashes, so the @ after them may come late; only names of access points hold colons.
    in_bucket = scheme == "s3" and not bucket.startswith("arn:") and re.search("[:@]", bucket)
    if in_bucket or re.match(r"[^/]*:[^/]*@", rest):
        raise StorageError(
            f"The {scheme}:// URI holds credentials, which would end up in logs and manifests. "
            f"Remove them, and set {AWS_VARIABLES} instead."
        )
    if not bucket or (scheme == "s3" and not _BUCKET.fullmatch(bucket)):
        raise StorageError(f"{scheme}://{bucket} names no valid bucket. Write {scheme}://bucket/folder.")
    if "?versionId=" in rest and scheme not in ("http", "https"):
        raise StorageError(f"{scheme}://{rest} asks for a version of an object. Name the object alone.")
    return f"{scheme}://{rest}"


def is_remote(uri: str) -> bool:
    """Tell a canonical remote URI from an absolute local path."""
    return "://" in uri


def temporary_name() -> str:
    """Return a fresh name for an unfinished file or folder, which listings leave out."""
    return f".tmp-{uuid.uuid4().hex}"


def is_temporary(path: str) -> bool:
    """Tell whether a part of the path is a temporary name."""
    return _TEMPORARY.search(path) is not None
