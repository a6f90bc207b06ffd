"""URI to file system: whole-file reads and atomic writes, the same for local folders and object stores.

(Signatures only; being written. Errors become StorageError with what to do; transient ones are retried.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, BinaryIO


@dataclass(frozen=True)
class FileInfo:
    """One file below a folder: path relative to that folder, and its size in bytes."""

    path: str
    size: int


def resolve(
    uri: str,
) -> str: ...  # absolute local path without scheme (expands ~, $VAR, file://), or canonical scheme://bucket/key without trailing slash
def join(uri: str, *parts: str) -> str: ...
def read_bytes(uri: str) -> bytes: ...
def write_bytes(uri: str, data: bytes) -> None: ...  # atomic: readers see the old file, or the whole new one
def read_json(uri: str) -> Any: ...
def write_json(uri: str, value: Any) -> None: ...  # sorted keys, indent 2, atomic
def exists(uri: str) -> bool: ...  # a file, or a folder holding at least one file
def list_files(uri: str) -> list[FileInfo]: ...  # recursive, sorted by path, [] when there is no such folder
def remove(uri: str) -> None: ...  # a file or a whole folder; nothing there is fine
def open_read(uri: str) -> BinaryIO: ...  # seekable
def sha256(data: bytes) -> str: ...
