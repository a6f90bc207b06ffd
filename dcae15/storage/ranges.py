"""Parts of files: byte ranges, and files that read ahead by so much and no more."""

from __future__ import annotations

import io
from typing import BinaryIO, cast

from dcae15.errors import StorageError
from dcae15.storage import local, remote
from dcae15.storage.attempts import attempt
from dcae15.storage.names import canonical, is_remote


def read_range(uri: str, offset: int, size: int) -> bytes:
    """Return ``size`` bytes of a file from ``offset`` on; of a remote one in a single request.

    Raises:
        StorageError: the file does not exist, cannot be read, or ends before.
    """
    uri = canonical(uri)

    def read() -> bytes:
        if is_remote(uri):
            return remote.read_range(uri, offset, size) if size else b""
        with local.path_of(uri).open("rb") as file:
            file.seek(offset)
            return file.read(size)

    data = attempt(uri, "read", read)
    if len(data) != size:
        raise StorageError(
            f"Cannot read {uri}: it ends before byte {offset + size}, after {len(data)} of the {size} bytes asked for "
            f"from {offset} on. It is cut off, or was replaced since it was listed: restore it, and run again."
        )
    return data


def open_range(uri: str, offset: int, size: int, ahead: int) -> BinaryIO:
    """Open a part of a file as a file of its own; each fetch takes ``ahead`` bytes or what was asked for, if more.

    Raises:
        StorageError: while reading, see `read_range`.
    """
    return cast(BinaryIO, io.BufferedReader(_Range(canonical(uri), offset, size), ahead))


class _Range(io.RawIOBase):
    """A window onto a file."""

    def __init__(self, uri: str, offset: int, size: int) -> None:
        self._uri, self._offset, self._size, self._at = uri, offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence])
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        wanted = min(len(buffer), max(0, self._size - self._at))
        buffer[:wanted] = read_range(self._uri, self._offset + self._at, wanted)
        self._at += wanted
        return wanted
