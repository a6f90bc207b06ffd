"""A folder of image files: ImageNet's layout, a folder per class, or no classes; nothing is opened."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import pyarrow as pa

from dcae15 import storage
from dcae15.data.sources import common
from dcae15.data.sources.common import Listing, Selection, Source, pc
from dcae15.errors import DataError

UNLABELLED = "images"  # the one class of a folder without class folders

_LAYOUTS = "train/<class>/*.jpg with val/<class>/*.jpg (ImageNet's layout), <class>/*.jpg, or images without classes"


def assemble(listing: Listing, tables: Sequence[pa.Table], selection: Selection) -> Source:
    """Sort the images of a folder (JPEG, PNG, WebP, BMP, GIF, TIFF by suffix) into splits and classes.

    Layouts: ``train/<class>/*`` with ``val/<class>/*`` as ImageNet has it, or ``<class>/*``; class folders may be
    nested below. A folder without class folders (flat, or ``train/*`` and ``val/*``) is taken as one class "images".
    An image's id is its path below the folder.

    Raises:
        DataError: no images there, or not in one of the layouts.
    """
    uri = listing.uri
    images = [info for info in listing.files if common.is_image(info.path)]
    if not images:
        count = len(listing.files)
        found = (
            f"its {count} files have other suffixes than {' '.join(common.SUFFIXES)}" if count else "nothing is there"
        )
        raise DataError(f"No images in '{uri}': {found}. Expected {_LAYOUTS}.")
    splits = _by_split(uri, [info.path for info in images])
    names = {split: sorted(set(classes)) for split, (_, classes) in splits.items()}
    common.require_known(uri, names["train"], names.get("val", []))
    labels = {name: label for label, name in enumerate(names["train"])}
    rows = {}
    for split, (places, classes) in splits.items():
        paths = pa.array([images[i].path for i in places], pa.string())
        uris = pc.binary_join_element_wise(uri.rstrip("/"), paths, "/")
        sizes = [images[i].size for i in places]
        states = [common.state_of(images[i]) for i in places]
        rows[split] = common.rows(paths, [labels[name] for name in classes], uris, [-1] * len(paths), sizes, states)
    taken = sum(len(places) for places, _ in splits.values())
    return common.select(listing, names["train"], rows, len(listing.files) - taken, selection)


def _by_split(uri: str, paths: Sequence[str]) -> dict[str, tuple[list[int], list[str]]]:
    """Return {split: (indices of its images, their classes)}; "val" is missing where the folder has none."""
    has_splits = _has_splits(uri, paths)
    found: dict[str, list[tuple[int, str]]] = {"train": []}
    for i, path in enumerate(paths):
        split, slash, rest = path.partition("/") if has_splits else ("train", "/", path)
        if slash and split in ("train", "val"):
            name, below, _ = rest.partition("/")
            found.setdefault(split, []).append((i, sys.intern(name) if below else ""))
    labelled = any(name for _, name in found["train"])
    splits = {}
    for split, images in found.items():
        kept = [(i, name) for i, name in images if name] if labelled else [(i, UNLABELLED) for i, _ in images]
        if not kept:
            raise DataError(
                f"'{uri}' has class folders in train/, but the images of {split}/ lie in none, for example "
                f"'{paths[images[0][0]]}': move them into {split}/<class>/, or remove {split}/ to hold out a share of train/."
            )
        splits[split] = ([i for i, _ in kept], [name for _, name in kept])
    return splits


def _has_splits(uri: str, paths: Iterable[str]) -> bool:
    """Tell whether train/ and val/ are splits, and not classes."""
    folders, deep_train, inner_train = set(), False, False
    for path in paths:
        parts = path.split("/", 3)
        if len(parts) > 1:
            folders.add(parts[0])
        deep_train |= len(parts) > 2 and parts[0] == "train"
        inner_train |= len(parts) > 2 and parts[1] == "train"
    if folders == {"val"}:
        raise DataError(f"'{uri}' has val/ but no train/ with images. Expected {_LAYOUTS}.")
    if len(folders) == 1 and inner_train:
        raise DataError(
            f"'{uri}' holds the images one folder further down: use data.source={storage.join(uri, *folders)}."
        )
    return "train" in folders and (folders <= {"train", "val"} or deep_train)
