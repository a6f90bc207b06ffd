"""Tars of pictures without labels: their classes are said by folders in them, by names, or by the tars; or there are none."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

import pyarrow as pa

from dcae15.data.sources import common, labels, splits
from dcae15.data.sources.common import Container, Listing, Selection, Source, pc
from dcae15.data.sources.containers import by_split
from dcae15.data.sources.layout import OF_TEST, UNLABELLED, Folder, Layout, Place, arrange
from dcae15.data.sources.leaving import LeftOut, leave

_PART = re.compile(r"[-_.]?\d+$")  # at the end of the name of a tar that is one of several
_WNID = re.compile(r"n\d{8}")


def tables_of(
    containers: Sequence[Container], tables: Sequence[pa.Table], classes: labels.Classes
) -> dict[str, pa.Table]:
    """Return the images of each split, with ids made of their classes and names, see `containers.by_split`."""
    paths = [t.column("path") for t in tables]
    short = [pc.replace_substring_regex(p, pattern=r"^.*/", replacement="") for p in paths]
    long = [pc.binary_join_element_wise(c.stem, p, "/") for c, p in zip(containers, paths, strict=True)]
    places = [(t.column("offset"), t.column("size")) for t in tables]
    captions = [t.column("caption") for t in tables]
    return by_split(containers, classes.names, classes.labels, places, [short, long], captions)


def by_place(
    listing: Listing,
    tables: Sequence[pa.Table],
    selection: Selection,
    left: Sequence[LeftOut],
    others: Mapping[str, int],
) -> Source:
    """Take the classes from where the images are: folders in the tars, names, or the tars; else all are one class.

    Raises:
        DataError: see `layout.arrange`.
    """
    containers = listing.containers
    paths = [table.column("path").to_pylist() for table in tables]
    folders = [_folders(container, own) for container, own in zip(containers, paths, strict=True)]
    captions = sum(table.num_rows - table.column("caption").null_count for table in tables)
    how = "none" if 2 * captions > sum(map(len, paths)) and selection.labels == "auto" else selection.labels
    found = arrange(listing.uri, Counter(folder for own in folders for folder in own), how, selection.join)
    names, what = _names(containers, paths, folders, found, how)
    left = [*left]
    away: dict[Place, list[str]] = defaultdict(list)
    parts: list[tuple[Container, pa.Table]] = []
    texts: list[str] = []
    for container, table, own, where, said in zip(containers, tables, paths, folders, names, strict=True):
        places = [found.places[folder] for folder in where]
        for split in ("train", "val"):
            rows = [row for row, place in enumerate(places) if place.split == split]
            if rows:
                parts.append((replace(container, split=split if found.splits else ""), table.take(pa.array(rows))))
                texts += [said[row] for row in rows]
        for path, place in zip(own, places, strict=True):
            if place.split not in ("train", "val"):
                away[place].append(path)
    for place, some in away.items():
        left += leave(place.reason or OF_TEST, some, place.mending, expected=not place.mending)
    nothing = pa.chunked_array([pa.nulls(len(texts), pa.int64())])
    classes = labels.assign(
        listing.uri, nothing, pa.chunked_array([pa.array(texts, pa.string())]), sorted(set(texts)), str
    )
    images = tables_of([container for container, _ in parts], [table for _, table in parts], classes)
    if "val" in images:
        in_split = {s: [classes.names[i] for i in pc.unique(t.column("label")).to_pylist()] for s, t in images.items()}
        common.require_known(listing.uri, in_split["train"], in_split["val"])
    return common.select(listing, classes.names, images, selection, left, others, [what, *found.notes])


def has_folders(paths: Sequence[str]) -> bool:
    """Tell whether most images of tars lie in several folders."""
    folders = [path.rpartition("/")[0] for path in paths]
    return len(set(folders)) > 1 and 2 * sum(map(bool, folders)) > len(folders)


def _folders(container: Container, paths: Sequence[str]) -> list[Folder]:
    """Return the folder of each image, below that of its tar's split; one that is called like the tar says nothing more."""
    name, head = PurePosixPath(container.stem).name, (container.split,) if container.split else ()
    folders = [tuple(path.split("/")[:-1]) for path in paths]
    skipped = 1 if all(folder[:1] == (name,) for folder in folders) else 0
    return [head + folder[skipped:] for folder in folders]


def _names(
    containers: Sequence[Container],
    paths: Sequence[Sequence[str]],
    folders: Sequence[Sequence[Folder]],
    found: Layout,
    how: str,
) -> tuple[Sequence[Sequence[str]], str]:
    """Return the class of each image of each tar, and what said it."""
    if found.labelled:
        return [[found.places[folder].name for folder in own] for own in folders], f"layout in the tars: {found.form}"
    wnids = [labels.wnids(own) for own in paths]
    if how != "none" and all(len(some) == len(own) for some, own in zip(wnids, paths, strict=True)):
        return wnids, "classes: the WordNet ids that all names of images begin with"
    if how != "none" and (tars := _tar_classes(containers, how)):
        return [[name] * len(own) for name, own in zip(tars, paths, strict=True)], "classes: the names of the tars"
    return [[UNLABELLED] * len(own) for own in paths], "no labels are taken, so that all images are one class"


def _tar_classes(containers: Sequence[Container], how: str) -> list[str]:
    """Return the name of each tar, without a number at its end, if these are classes; [] else.

    They are where each tar of a split has another, or a WordNet id; and where the user says so.
    """
    names = [PurePosixPath(container.stem).name for container in containers]
    if all(_WNID.fullmatch(name) for name in names):
        return names
    bare = [_PART.sub("", name) for name in names]
    pairs = {(container.split, name) for container, name in zip(containers, bare, strict=True)}
    distinct = len(pairs) == len(containers) and len(set(bare)) > 1 and not any(map(splits.of_folder, bare))
    return bare if all(bare) and (distinct or (how != "auto" and len(set(bare)) > 1)) else []
