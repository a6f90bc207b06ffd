"""The bytes of images, in order, wherever they are: with requests under way ahead of need where each takes long."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pyarrow as pa

from dcae15 import storage
from dcae15.errors import StorageError

IN_FLIGHT = 32  # requests at once of one reader: memory holds that many files

Place = tuple[str, int, int]


def read_images(images: pa.Table) -> Iterator[bytes | None]:
    """Yield the bytes of each image in order; None for a file that does not exist.

    Raises:
        StorageError: a file cannot be read, or a container is gone.
    """
    uris = images.column("uri").cast(pa.string()).to_pylist()
    places = zip(uris, images.column("offset").to_pylist(), images.column("size").to_pylist(), strict=True)
    return _ahead(places) if any(storage.is_remote(uri) for uri in uris) else map(_read, places)


def _ahead(places: Iterable[Place]) -> Iterator[bytes | None]:
    pending: deque[Future[bytes | None]] = deque()
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        try:
            for place in places:
                if len(pending) == IN_FLIGHT:
                    yield pending.popleft().result()
                pending.append(pool.submit(_read, place))
            while pending:
                yield pending.popleft().result()
        finally:  # after an error the rest need not be fetched
            for future in pending:
                future.cancel()


def _read(place: Place) -> bytes | None:
    uri, offset, size = place
    if offset >= 0:
        return storage.read_range(uri, offset, size)
    try:
        return storage.read_bytes(uri)
    except StorageError as error:
        if storage.is_missing(error):
            return None
        raise
