"""Files that hold many images: which split they are of, and how their indexes become one table."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dcae15 import storage
from dcae15.data.sources import splits
from dcae15.data.sources.common import SCHEMA, Container, Listing, pc, rows, state_of
from dcae15.data.sources.layout import UNLABELLED
from dcae15.errors import DataError
from dcae15.storage import FileInfo

COMPRESSED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")
_NUMBERS = re.compile(r"\d+")


def split_containers(kind: str, uri: str, files: Sequence[FileInfo]) -> list[Container]:
    """Return a container for each file of ``train`` and ``val``; those of ``test`` have no labels and are left out.

    Raises:
        DataError: a tar is compressed, some names say the split and others do not, or all are of ``test``.
    """
    packed = [info.path for info in files if info.path.lower().endswith(COMPRESSED)]
    if packed:
        raise DataError(
            f"'{uri}' has '{packed[0]}': images in a compressed tar cannot be read one by one. Decompress it to .tar."
        )
    found = [(info, splits.of_file(info.path or PurePosixPath(uri).name)) for info in files]
    named = [(info, split) for info, split in found if split in ("train", "val")]
    unnamed = [info for info, split in found if not split]
    if named and unnamed:
        raise DataError(
            f"'{uri}' has files whose names begin with train or val, and others, for example '{unnamed[0].path}': "
            f"rename them or move them away, so that it is clear what they are for."
        )
    if not named and not unnamed:
        raise DataError(
            f"'{uri}' has files of test only, for example '{files[0].path}': training needs labelled images."
        )
    containers: list[Container] = []
    for info, split in named or [(info, "") for info in unnamed]:
        place = storage.join(uri, info.path) if info.path else uri
        stem = PurePosixPath(info.path or uri).with_suffix("").as_posix() if info.path else PurePosixPath(uri).stem
        containers.append(Container(kind, place, stem, place, 0, info.size, split, state_of(info)))
    return containers


def require_one_set(uri: str, containers: Sequence[Container]) -> None:
    """Raise DataError when the files lie in folders that look like sets of their own, as configurations on a hub do.

    Folders whose names say a split, or differ in numbers only, are parts of one set; so are those of different splits.
    """
    folders: dict[str, dict[str, str]] = {}
    for container in containers:
        parts = [part for part in container.stem.split("/")[:-1] if part != "data" and not splits.of_folder(part)]
        folders.setdefault(container.split, {}).setdefault(_NUMBERS.sub("0", "/".join(parts)), "/".join(parts))
    found = max(folders.values(), key=len)
    if len(found) > 1:
        names = sorted(found.values())
        first = next(name for name in names if name)
        raise DataError(
            f"'{uri}' holds {len(names)} sets side by side: {', '.join(repr(name or '.') for name in names[:4])}"
            f"{', ...' if len(names) > 4 else ''}. They may hold the same images. Name one of them, data.source="
            f"{uri.rstrip('/')}/{first}, or take all as one with data.join=true."
        )


def joined(listing: Listing, tables: Sequence[pa.Table]) -> tuple[pa.Table, Callable[[int], tuple[Container, int]]]:
    """Return the indexes of all containers as one table, and what tells the container of a row, and its row there."""
    starts = np.cumsum([0, *(table.num_rows for table in tables)])

    def container_of(row: int) -> tuple[Container, int]:
        place = int(np.searchsorted(starts, row, side="right")) - 1
        return listing.containers[place], row - int(starts[place])

    return pa.concat_tables([table.replace_schema_metadata() for table in tables]), container_of


def by_split(
    containers: Sequence[Container],
    class_names: Sequence[str],
    labels: NDArray[Any],
    places: Sequence[tuple[Any, Any]],
    alternatives: Iterable[Sequence[pa.Array | pa.ChunkedArray]],
    captions: Sequence[pa.Array | pa.ChunkedArray] | None = None,
) -> dict[str, pa.Table]:
    """Return the images of each split; ``train`` holds those of containers that say none.

    Ids are as a folder in ImageNet's layout would give them: ``split/class/name``, or ``class/name``.
    Without classes the class is left out.

    Args:
        containers: all of them.
        class_names: the index of a name is its label.
        labels: of all images, container by container.
        places: for each container, the offsets and sizes of its images.
        alternatives: for each container, the names of its images; the first choice that makes all ids different is taken.
        captions: for each container, the captions of its images, if any have one.
    """
    classes = pa.array(class_names, pa.string()).take(pa.array(labels))
    tables: dict[str, pa.Table] = {}
    for names in alternatives:
        parts: dict[str, list[pa.Table]] = {"train": []}
        start = 0
        for i, (container, (offsets, sizes), own_names) in enumerate(zip(containers, places, names, strict=True)):
            own = slice(start, start + len(own_names))
            folders = [container.split] if container.split else []
            folders += [] if tuple(class_names) == (UNLABELLED,) else [classes[own]]
            ids = pc.binary_join_element_wise(*folders, own_names, "/")
            said = captions[i] if captions else None
            part = rows(ids, labels[own], container.uri, offsets, sizes, container.state, said)
            parts.setdefault(container.split or "train", []).append(part)
            start = own.stop
        tables = {
            split: pa.concat_tables([SCHEMA.empty_table(), *some]).unify_dictionaries() for split, some in parts.items()
        }
        ids = pa.concat_tables([table.select(["id"]) for table in tables.values()]).column("id")
        if pc.count_distinct(ids).as_py() == len(ids):
            break
    return tables
