"""Tar files that are never unpacked: where the bytes of their members are."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from dcae15 import storage
from dcae15.data.sources.common import Container
from dcae15.data.sources.pictures import SUFFIXES
from dcae15.errors import DataError

BLOCK = 512
REMOTE_AHEAD = 8 << 20  # members are smaller: a tar is fetched whole, in few requests
LOCAL_AHEAD = 16 << 10
SPARSE_AHEAD = 4 << 10  # where members are large, only their headers are worth fetching
MOST_PADDING = 1 << 20  # writers fill their last record with zeros: 10 KiB as a rule, more with a large blocking factor

_WANTED = (*SUFFIXES, ".cls", ".json")


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file in a tar: its path there, and where its bytes are in the file that holds the tar."""

    path: str
    offset: int
    size: int


@contextmanager
def open_tar(tar: Container, *, large_members: bool = False) -> Iterator[BinaryIO]:
    """Open a container that is a tar, for `members`."""
    ahead = REMOTE_AHEAD if storage.is_remote(tar.uri) else LOCAL_AHEAD
    with storage.open_range(tar.uri, tar.offset, tar.size, SPARSE_AHEAD if large_members else ahead) as file:
        yield file


def members(tar: Container, file: BinaryIO) -> Iterator[Member]:
    """Yield the regular files in the order of the tar; GNU and PAX long names are understood.

    Raises:
        DataError: it is no tar file, compressed, damaged, or cut off; or an image or label has no bytes of its own.
    """
    for member in _headers(tar, file):
        end = member.offset_data + member.size
        if end > tar.size:
            raise DataError(
                f"{tar.name} is cut off: its member '{member.name}' ends at byte {end}, the tar after {tar.size}. "
                f"Fetch the file again."
            )
        path = member.name.removeprefix("./")
        if member.isreg() and not member.issparse():
            yield Member(path, tar.offset + member.offset_data, member.size)
        elif not member.isdir() and "/." not in f"/{path}" and path.lower().endswith(_WANTED):
            what = "hard link" if member.islnk() else "symbolic link" if member.issym() else "sparse or special file"
            raise DataError(
                f"{tar.name}: '{path}' is a {what}, whose bytes are not there. Pack the tar anew with the files themselves "
                f"(tar --hard-dereference --dereference, without --sparse)."
            )


def read_member(tar: Container, file: BinaryIO, member: Member) -> bytes:
    """Return the bytes of a member, between two steps of `members`."""
    file.seek(member.offset - tar.offset)
    return file.read(member.size)


def _headers(container: Container, file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    start = file.read(BLOCK)
    if start[:2] in (b"\x1f\x8b", b"BZ") or start[:6] == b"\xfd7zXZ\x00" or start[:4] == b"\x28\xb5\x2f\xfd":
        raise DataError(
            f"{container.name} is compressed, so its images cannot be read one by one. Decompress it to a plain .tar."
        )
    if len(start) == BLOCK and not start.strip(b"\0"):
        _require_end(container, file, 0)  # an empty tar, or one whose beginning is missing
        return
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue]  # else they pile up
                yield member
            end = tar.offset
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise DataError(f"{container.name} is no tar file, damaged or cut off ({error}). Fetch it again.") from error
    _require_end(container, file, end)


def _require_end(tar: Container, file: BinaryIO, end: int) -> None:
    """Make sure that the tar ends at ``end``: tarfile takes a header that it cannot read, or a hole of zeros, for the end."""
    file.seek(end)
    mark = file.read(BLOCK)
    if len(mark) < BLOCK:
        raise DataError(
            f"{tar.name} is cut off: it ends after {tar.size} bytes without the mark of its end. Fetch it again."
        )
    if mark.strip(b"\0"):
        raise DataError(f"{tar.name} is damaged: what follows byte {end} is no header of a member. Fetch it again.")
    rest = tar.size - end - BLOCK
    if rest > MOST_PADDING or file.read(rest).strip(b"\0"):
        raise DataError(
            f"{rest} bytes follow the end mark of {tar.name} at byte {end}: a part is missing, as in a download that was "
            f"not completed, or tars were joined. Fetch it again, or take joined tars apart."
        )
