"""Sources: which images a folder holds, their classes and their splits; nothing is opened."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from dcae15 import storage
from dcae15.errors import ConfigError, DataError

SUFFIXES = (".jpeg", ".jpg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
UNLABELLED = "images"  # the one class of a folder without class folders

_HOLD_OUT_FROM = 5  # a class gives a validation image as soon as it has this many
_LAYOUTS = "train/<class>/*.jpg with val/<class>/*.jpg (ImageNet's layout), <class>/*.jpg, or images without classes"


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One image file.

    Attributes:
        id: Path below the source folder: stays the same when the folder moves.
        uri: Where to read the file.
        label: Index into the source's class names.
    """

    id: str
    uri: str
    label: int


@dataclass(frozen=True)
class Source:
    """A listed folder: the images of both splits, sorted by id.

    Attributes:
        uri: The folder.
        class_names: Sorted; the index of a name is its label.
        train: Training images.
        val: Validation images; empty where the folder has none and none could be held out.
        ignored: Files that are not taken: hidden, without an image suffix, or outside of the layout.
    """

    uri: str
    class_names: tuple[str, ...]
    train: tuple[SourceImage, ...]
    val: tuple[SourceImage, ...]
    ignored: int


def list_folder(uri: str, *, val_fraction: float, limit: int, seed: int) -> Source:
    """List a folder of images (JPEG, PNG, WebP, BMP, GIF, TIFF by suffix).

    Layouts: ``train/<class>/*`` with ``val/<class>/*`` as ImageNet has it, or ``<class>/*``; class folders may be
    nested below. A folder without class folders (flat, or ``train/*`` and ``val/*``) is taken as one class "images".
    Without ``val/``, the images of every class whose hashed ids come first are held out: the choice depends on nothing
    but seed and ids. Classes of fewer than five images are kept whole for training where their share rounds to nothing.

    Args:
        uri: Path or URI of the folder.
        val_fraction: Share of every class that is held out when there is no ``val/``, in [0, 1).
        limit: Most images per split, spread evenly over the classes; 0 means all.
        seed: Seed of the held-out share.

    Raises:
        ConfigError: ``val_fraction`` or ``limit`` is out of range.
        DataError: No images there, or not in one of the layouts.
        StorageError: The folder cannot be read.
    """
    if not 0 <= val_fraction < 1:
        raise ConfigError(f"data.val_fraction is {val_fraction}: use a share in [0, 1).")
    if limit < 0:
        raise ConfigError(f"data.limit is {limit}: use 0 for all images, or the number of images per split.")
    files = [info.path for info in storage.list_files(uri)]
    images = sorted(path for path in files if _is_image(path))
    if not images:
        found = f"its {len(files)} files have other suffixes than {' '.join(SUFFIXES)}" if files else "nothing is there"
        raise DataError(f"No images in '{uri}': {found}. Expected {_LAYOUTS}.")

    splits = _by_class(uri, images)
    class_names = tuple(sorted(splits["train"]))
    taken = sum(len(ids) for classes in splits.values() for ids in classes.values())
    if "val" not in splits:
        held_out = {name: _hold_out(ids, val_fraction, seed) for name, ids in splits["train"].items()}
        splits["val"] = {name: sorted(held_out[name]) for name in class_names}
        splits["train"] = {name: [i for i in ids if i not in held_out[name]] for name, ids in splits["train"].items()}
    unknown = sorted(set(splits["val"]) - set(class_names))
    if unknown:
        raise DataError(
            f"'{uri}' has {len(unknown)} classes in val/ that train/ lacks, for example '{unknown[0]}': "
            f"use the same class folders in both."
        )
    train, val = (_select(uri, splits[split], class_names, limit) for split in ("train", "val"))
    return Source(uri, class_names, train, val, ignored=len(files) - taken)


def _is_image(path: str) -> bool:
    pure = PurePosixPath(path)
    return pure.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in pure.parts)


def _by_class(uri: str, images: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """Sort image paths into {split: {class: paths}}; "val" is missing where the folder has none."""
    parts = [PurePosixPath(path).parts for path in images]
    folders = {p[0] for p in parts if len(p) > 1}
    if folders == {"val"}:
        raise DataError(f"'{uri}' has val/ but no train/ with images. Expected {_LAYOUTS}.")
    has_splits = "train" in folders and (
        folders <= {"train", "val"} or any(p[0] == "train" and len(p) > 2 for p in parts)
    )
    if len(folders) == 1 and any(len(p) > 2 and p[1] == "train" for p in parts):
        inner = storage.join(uri, *folders)
        raise DataError(f"'{uri}' holds the images one folder further down: use data.source={inner}.")

    split_files: dict[str, list[tuple[str, tuple[str, ...]]]] = defaultdict(list)
    for path, p in zip(images, parts, strict=True):
        if not has_splits:
            split_files["train"].append((path, p))
        elif p[0] in ("train", "val") and len(p) > 1:
            split_files[p[0]].append((path, p[1:]))
    labelled = any(len(p) > 1 for _, p in split_files["train"])
    splits: dict[str, dict[str, list[str]]] = {}
    for split, paths in split_files.items():
        classes: dict[str, list[str]] = defaultdict(list)
        for path, p in paths:
            if not labelled:
                classes[UNLABELLED].append(path)
            elif len(p) > 1:
                classes[p[0]].append(path)
        if not classes:
            raise DataError(
                f"'{uri}' has class folders in train/, but the images of {split}/ lie in none, for example "
                f"'{paths[0][0]}': move them into {split}/<class>/, or remove {split}/ to hold out a share of train/."
            )
        splits[split] = dict(classes)
    return splits


def _hold_out(ids: Sequence[str], val_fraction: float, seed: int) -> set[str]:
    """Return the ids of one class that validate: the share whose hashes come first."""
    count = round(len(ids) * val_fraction)
    if val_fraction > 0 and len(ids) >= _HOLD_OUT_FROM:
        count = max(1, count)
    return set(sorted(ids, key=lambda i: hashlib.sha256(f"{seed}:{i}".encode()).digest())[: min(count, len(ids) - 1)])


def _select(
    uri: str, classes: dict[str, list[str]], class_names: tuple[str, ...], limit: int
) -> tuple[SourceImage, ...]:
    """Return the images of a split sorted by id: all of them, or ``limit`` taken from the classes in turn."""
    labels = {name: label for label, name in enumerate(class_names)}
    turns = [(turn, labels[name], i) for name, ids in classes.items() for turn, i in enumerate(ids)]
    if limit:
        turns = sorted(turns)[:limit]
    return tuple(SourceImage(i, storage.join(uri, i), label) for _, label, i in sorted(turns, key=lambda t: t[2]))
