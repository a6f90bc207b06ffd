"""Local folders: atomic writes that survive kill -9 and full disks."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from dcae15.storage.names import FileInfo, actual, is_temporary, printable, temporary_name


def path_of(uri: str) -> Path:
    """Return the path of a canonical local place."""
    return Path(actual(uri))


def write(path: Path, data: bytes | memoryview) -> None:
    """Replace a file atomically; makes its folder."""
    with _staged(path, data) as temporary:
        temporary.replace(path)


def create(path: Path, data: bytes) -> bool:
    """Write a file only if there is none; True for exactly one of several racing creators."""
    with _staged(path, data) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
    return True


def exists(path: str) -> bool:
    """Tell whether there is such a file, or a folder that holds at least one file."""
    return path_of(path).is_file() or any(files(path))


def info(path: str) -> FileInfo:
    """Return size and version of a file; its path is empty."""
    return _info("", path_of(path).stat())


def files(folder: str, prefix: str = "", above: tuple[str, ...] = ()) -> Iterator[FileInfo]:
    """Yield all files below a folder, through symbolic links, in no order; nothing if it is no folder.

    Their paths are printable, see `dcae15.storage.names.printable`. Links that lead nowhere are files of no bytes.
    """
    folder = folder if above else actual(folder)
    real = os.path.realpath(folder)
    if real in above:
        return  # a link to a folder that holds it
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if is_temporary(entry.name):
            continue
        name = prefix + printable(entry.name)
        try:
            is_folder, is_file = entry.is_dir(), entry.is_file()
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            is_folder = is_file = False  # a link to itself
        if is_folder:
            yield from files(entry.path, f"{name}/", (*above, real))
        elif is_file:
            with contextlib.suppress(FileNotFoundError):  # removed in the meantime
                yield _info(name, entry.stat())
        elif entry.is_symlink():  # named, so that its picture is missed when it is read
            yield FileInfo(name, 0, "broken link")


def remove(path: Path) -> None:
    """Remove a file or a folder, the folder for all observers at once."""
    with contextlib.suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path.rename(path.with_name(temporary_name())))
        else:
            path.unlink()


def remove_unfinished(folder: Path) -> None:
    """Remove the temporary files and folders below a folder that their makers did not live to remove."""
    for path in [path for path in folder.rglob(".*") if is_temporary(path.name)]:
        remove(path)


def _info(path: str, status: os.stat_result) -> FileInfo:
    return FileInfo(path, status.st_size, f"{status.st_mtime_ns:x}")


@contextlib.contextmanager
def _staged(path: Path, data: bytes | memoryview) -> Iterator[Path]:
    """Yield a complete, synced temporary file beside its destination; afterwards it is gone or renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(temporary_name())
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # makes the new name durable; not every file system can
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
