"""The original files of ILSVRC 2012: a tar of one tar per class, a tar of validation images, and the development kit."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa

from dcae15 import storage
from dcae15.data.sources import common
from dcae15.data.sources.common import Container, Listing, Selection, Source
from dcae15.data.sources.containers import by_split
from dcae15.data.sources.devkit import DEVKIT, DevelopmentKit, read_devkit
from dcae15.data.sources.leaving import suffix_of
from dcae15.data.sources.pictures import is_picture
from dcae15.data.sources.tars import members, open_tar
from dcae15.errors import DataError
from dcae15.storage import FileInfo

TRAIN, VAL = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
FILES = (TRAIN, VAL, DEVKIT)

_CLASS_TAR = re.compile(r"(?:.*/)?(n\d{8})\.tar")
_VAL_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.[A-Za-z]+")
_CLASS_TARS = pa.schema({"path": pa.string(), "wnid": pa.string(), "offset": pa.int64(), "size": pa.int64()})
_IMAGES = pa.schema({"name": pa.string(), "offset": pa.int64(), "size": pa.int64()})

Remember = Callable[[Container, Callable[[Container], pa.Table]], pa.Table]
"""Returns what the function makes of the container, now or at an earlier time."""


def containers(uri: str, files: Sequence[FileInfo], remember: Remember) -> list[Container]:
    """Return a container for each class's tar inside of the training tar, and one for the validation tar.

    ``remember`` calls `class_tars`, which takes a request for each class, or knows what it returned.

    Raises:
        DataError: a file is missing, or the training tar holds something else than tars of classes.
    """
    infos = {info.path: info for info in files}
    missing = [name for name in (TRAIN, *([DEVKIT] if VAL in infos else [])) if name not in infos]
    if missing:
        why = "its ground truth labels the validation images" if missing == [DEVKIT] else "it holds the training images"
        raise DataError(f"'{uri}' lacks {missing[0]}; {why}. Put {', '.join(FILES)} into one folder.")
    outer = _whole(storage.join(uri, TRAIN), "train", infos[TRAIN])
    found = []
    for tar in remember(outer, class_tars).to_pylist():
        name = f"{tar['path']} in {outer.uri}"
        found.append(replace(outer, name=name, stem=tar["wnid"], offset=tar["offset"], size=tar["size"]))
    if VAL in infos:
        found.append(_whole(storage.join(uri, VAL), "val", infos[VAL]))
    return found


def class_tars(outer: Container) -> pa.Table:
    """Return path, WordNet id, offset and size of each tar in the training tar, whose headers are read.

    Raises:
        DataError: it holds something else than tars of classes, or is damaged or cut off.
    """
    found: dict[str, dict[str, object]] = {}
    with open_tar(outer, large_members=True) as file:
        for member in members(outer, file):
            if "/." in f"/{member.path}":
                continue
            match = _CLASS_TAR.fullmatch(member.path)
            if not match:
                raise DataError(
                    f"{outer.name} holds '{member.path}', which is no <wnid>.tar: this is not the original file."
                )
            if match[1] in found:
                raise DataError(f"{outer.name} holds {match[1]}.tar twice: this is not the original file.")
            found[match[1]] = {"path": member.path, "wnid": match[1], "offset": member.offset, "size": member.size}
    return pa.Table.from_pylist(list(found.values()), _CLASS_TARS)


def _whole(place: str, split: str, info: FileInfo) -> Container:
    return Container("imagenet_tars", place, split, place, 0, info.size, split, common.state_of(info))


def index(container: Container) -> pa.Table:
    """Return name, offset and size of the images of a class's tar or of the validation tar, and how many others it has.

    Raises:
        DataError: the tar is damaged or cut off.
    """
    images: list[dict[str, object]] = []
    others: Counter[str] = Counter()
    with open_tar(container) as file:
        for member in members(container, file):
            if "/." in f"/{member.path}":
                continue
            if is_picture(member.path, lambda: b""):
                name = PurePosixPath(member.path).name
                images.append({"name": name, "offset": member.offset, "size": member.size})
            else:
                others[suffix_of(member.path)] += 1
    return pa.Table.from_pylist(images, _IMAGES).replace_schema_metadata({"others": json.dumps(others)})


def assemble(listing: Listing, tables: Sequence[pa.Table], selection: Selection) -> Source:
    """Join the indexes: training images have the class of their tar, validation images that of the ground truth.

    Class names are WordNet ids, sorted; ids are those of the unpacked ImageNet, ``val/n01440764/ILSVRC2012_val_00000293.JPEG``.

    Raises:
        DataError: the development kit does not fit the validation images.
    """
    classes = sorted({c.stem for c in listing.containers if c.split == "train"})
    labels = {name: label for label, name in enumerate(classes)}
    has_kit = DEVKIT in {info.path for info in listing.files}
    place = storage.join(listing.uri, DEVKIT)
    kit = read_devkit(storage.read_bytes(place), place) if has_kit else DevelopmentKit(place, {}, [], {})
    numbers: list[int] = []
    for container, table in zip(listing.containers, tables, strict=True):
        if container.split == "train":
            numbers += [labels[container.stem]] * table.num_rows
        else:
            names = _val_classes(kit, container, table)
            common.require_known(listing.uri, classes, names, place=VAL)
            numbers += [labels[name] for name in names]
    places = [(table.column("offset"), table.column("size")) for table in tables]
    names = [table.column("name") for table in tables]
    joined = by_split(listing.containers, classes, np.array(numbers, np.int32), places, [names])
    others = Counter(listing.others)
    for table in tables:
        others.update(json.loads(table.schema.metadata[b"others"]))
    counts = {
        container.stem: table.num_rows
        for container, table in zip(listing.containers, tables, strict=True)
        if container.split == "train" and container.stem in (selection.classes or classes)
    }
    return common.select(listing, classes, joined, selection, (), others, _compared(kit, counts))


def _compared(kit: DevelopmentKit, counts: Mapping[str, int]) -> tuple[str, ...]:
    """Return a warning if classes have other numbers of training images than the kit says; subsets do, and damaged tars."""
    others = [wnid for wnid, count in counts.items() if kit.counts.get(wnid, count) != count]
    if not others:
        return ()
    first = others[0]
    return (
        f"warning: {len(others):,} classes have other numbers of training images than {DEVKIT} says, for example {first} "
        f"{counts[first]:,} instead of {kit.counts[first]:,}; if this is no subset of your own, fetch {TRAIN} again",
    )


def _val_classes(kit: DevelopmentKit, container: Container, table: pa.Table) -> list[str]:
    """Return the WordNet id of each validation image."""
    count = len(kit.truth)
    if count != table.num_rows:
        raise DataError(
            f"{container.name} has {table.num_rows} images, but the ground truth in {kit.place} has {count} lines: "
            f"they belong to different editions; fetch both again."
        )
    classes = []
    for name in table.column("name").to_pylist():
        match = _VAL_NAME.fullmatch(name)
        if not match or not 1 <= int(match[1]) <= count:
            raise DataError(
                f"{container.name} holds '{name}', but the ground truth is for ILSVRC2012_val_00000001 to _{count:08d}."
            )
        classes.append(kit.wnid(int(match[1]) - 1))
    return classes
