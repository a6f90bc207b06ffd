"""The bytes of images, in order, wherever they are: with requests under way ahead of need where each takes long.

A file of its own that cannot be read is one bad image. A container of many (a tar, a Parquet file), or storage that fails as
a whole, is an error that stops: else an outage would empty the data set.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pyarrow as pa

from dcae15 import storage
from dcae15.data.images import BadImage
from dcae15.errors import StorageError
from dcae15.redaction import redact

IN_FLIGHT = 32  # requests at once of one reader: memory holds that many files
GIVE_UP_AFTER = 5  # files of a web host in a row that failed in spite of retries: the others are not asked for any more

Place = tuple[str, int, int]


def read_images(images: pa.Table) -> Iterator[bytes | BadImage]:
    """Yield the bytes of each image in order, or why that image cannot be read ("missing", "forbidden", "unreachable", ...).

    Raises:
        StorageError: the storage fails, or a container is gone.
    """
    uris = images.column("uri").cast(pa.string()).to_pylist()
    places = zip(uris, images.column("offset").to_pylist(), images.column("size").to_pylist(), strict=True)
    reader = _Reader()
    return _ahead(places, reader) if any(storage.is_remote(uri) for uri in uris) else map(reader.read, places)


def _ahead(places: Iterable[Place], reader: _Reader) -> Iterator[bytes | BadImage]:
    pending: deque[Future[bytes | BadImage]] = deque()
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        try:
            for place in places:
                if len(pending) == IN_FLIGHT:
                    yield pending.popleft().result()
                pending.append(pool.submit(reader.read, place))
            while pending:
                yield pending.popleft().result()
        finally:  # after an error the rest need not be fetched
            for future in pending:
                future.cancel()


class _Reader:
    """Reads images, and remembers the web hosts that are down, so that not each of their images waits for them."""

    def __init__(self) -> None:
        self._failures: dict[str, int] = {}  # by host: files in a row that failed

    def read(self, place: Place) -> bytes | BadImage:
        uri, offset, size = place
        if offset >= 0:
            return storage.read_range(uri, offset, size)
        try:
            uri = storage.canonical(uri)
        except StorageError as error:  # a listed place that is none
            return BadImage("unreachable", redact(str(error)))
        host = storage.host_of(uri)
        if self._failures.get(host, 0) >= GIVE_UP_AFTER:
            why = f"Did not read {storage.shown(uri)}: {GIVE_UP_AFTER} other files of {host} in a row could not be reached."
            return BadImage("unreachable", why)
        try:
            data = storage.read_bytes(uri)
        except StorageError as error:
            reason = storage.fault_of_file(uri, error)
            if not reason:
                raise
            if host:
                self._failures[host] = self._failures.get(host, 0) + 1 if reason == "unreachable" else 0
            return BadImage(reason, redact(str(error)))
        self._failures[host] = 0
        return data
