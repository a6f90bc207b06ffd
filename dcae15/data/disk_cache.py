"""Copies of remote shards on the local disk, so that no worker of a machine fetches a shard twice while it stays.

Files are named by the SHA-256 of their content, so sets share them and nothing in them can be out of date. Whoever reads them
says how they are checked, each time; what does not match is fetched again. The folder may be removed at any time.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from dcae15.config import ScalingConfig
from dcae15.storage.names import expanded, is_remote, is_temporary, temporary_name

_LOG = logging.getLogger(__name__)
_LOCKS = 256
_ABANDONED_SECONDS = 3_600  # nobody writes a file for this long: its writer was killed


def disk_cache(scaling: ScalingConfig, uri: str) -> DiskCache | None:
    """Return the cache for what lies at ``uri``; None for local folders, and where ``scaling.cache_gib`` is 0."""
    if not is_remote(uri) or not scaling.cache_gib:
        return None
    default = Path(tempfile.gettempdir()) / f"dcae15-cache-{os.getuid()}"
    folder = Path(expanded(scaling.cache_folder)).expanduser() if scaling.cache_folder else default
    return DiskCache(folder, int(scaling.cache_gib * 2**30))


class DiskCache:
    """A folder of files named by their SHA-256, shared by all processes of a machine.

    A full, read-only or otherwise unusable disk is no error: what cannot be kept is fetched again, and one warning is logged.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self._warned = False

    def read(self, sha256: str, fetch: Callable[[], bytes], intact: Callable[[bytes], bool]) -> bytes:
        """Return the content with this checksum: from the disk, or else from ``fetch``, and then kept.

        Several processes or threads that miss the same file fetch it once: the others wait for the first one. ``fetch`` returns it
        checked; ``intact`` tells whether what lies on the disk is it.
        """
        data = self._kept(sha256, intact)
        if data is None:
            with self._lock(sha256):
                data = self._kept(sha256, intact)
                if data is None:
                    data = fetch()
                    self._keep(sha256, data)
        return data

    def _kept(self, sha256: str, intact: Callable[[bytes], bool]) -> bytes | None:
        path = self.folder / sha256
        try:
            data = path.read_bytes()
            if intact(data):
                os.utime(path)  # what was read last is removed last
                return data
            path.unlink(missing_ok=True)
        except FileNotFoundError:
            pass
        except OSError as error:
            self._warn(error)
        return None

    def _keep(self, sha256: str, data: bytes) -> None:
        """Write a file atomically; not synced, since a file that lost its content is not taken for intact."""
        if len(data) > self.limit:
            return
        temporary = self.folder / temporary_name()
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._make_room(len(data))
            try:
                temporary.write_bytes(data)
                temporary.replace(self.folder / sha256)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            self._warn(error)

    def _make_room(self, needed: int) -> None:
        """Remove the least recently read files until ``needed`` more bytes are within the limit."""
        files, now = [], time.time()
        for entry in os.scandir(self.folder):
            with contextlib.suppress(FileNotFoundError):
                found = entry.stat()
                abandoned = is_temporary(entry.name) and now - found.st_mtime > _ABANDONED_SECONDS
                if abandoned:
                    Path(entry.path).unlink()
                elif not entry.name.startswith("."):
                    files.append((found.st_mtime, found.st_size, entry.path))
        used = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if used + needed <= self.limit:
                return
            Path(path).unlink(missing_ok=True)
            used -= size

    @contextlib.contextmanager
    def _lock(self, sha256: str) -> Iterator[None]:
        """Let one process or thread fetch a file; a killed one lets go. Where locks do not work, several may fetch it."""
        path = self.folder / f".lock-{int(sha256[:8], 16) % _LOCKS:02x}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = path.open("wb")
        except OSError as error:
            self._warn(error)
            yield
            return
        with file:
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            _LOG.warning(
                "shards are not kept in %s (%s): they are fetched again when they are needed again; free some space, or set "
                "scaling.cache_folder",
                self.folder,
                error.strerror or error,
            )
