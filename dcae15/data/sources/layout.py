"""The layout of pictures in folders: which folders are splits, which are classes. It is taken only when the pictures agree with it.

Only the folders are looked at, not the pictures: ImageNet has 2,000 of these.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from dcae15.data.sources import beside, splits
from dcae15.data.sources.beside import Folder
from dcae15.data.sources.doubts import below_uri as _below
from dcae15.data.sources.doubts import require_no_near_splits, require_one_set
from dcae15.errors import DataError

Labels = Literal["auto", "top", "leaf", "none"]

OF_TEST = "images of test, which have no use here"
UNLABELLED = "images"  # the one class of pictures without classes
EXPECTED = (
    "train/<class>/*.jpg with val/<class>/*.jpg (ImageNet's layout), <class>/*.jpg, <class>/train/*.jpg, or images without "
    "classes"
)

_PART = re.compile(r"(?i:.*(?:^|[-_ ])|)(?i:part|shard|batch|chunk|archive)[-_ ]?\d+|\d{3}[A-Z0-9_]{5}")  # 100APPLE
FEW = 0.1  # pictures that disagree with a layout are exceptions up to this share; else the layout is not taken
LOOSE = "in no folder of a class"
_NONE = "data.labels=none takes all pictures as one class"
LOOSE_MENDING = f"move them into one, or: {_NONE}"


@dataclass(frozen=True)
class Place:
    """What the pictures of a folder are."""

    split: str  # ``train``, ``val`` or ``test``; empty where they are left out
    name: str = ""  # of their class; empty where they lie in no folder of a class
    path: str = ""  # of the folder in ids, with the split before it where folders say splits
    reason: str = ""  # why they are left out
    mending: str = ""  # what to do about it


@dataclass(frozen=True)
class Layout:
    """What the folders of a source are."""

    places: dict[Folder, Place]
    form: str  # as the user reads it
    root: Folder = ()  # the folder that holds the splits
    splits: bool = False  # whether folders say splits
    labelled: bool = True  # whether folders say classes
    notes: tuple[str, ...] = ()


def arrange(uri: str, folders: Mapping[Folder, int], labels: Labels = "auto", join: bool = False) -> Layout:
    """Return what the folders are, by their names and how many pictures each holds.

    - Splits: the outermost level where all folders, or train and most of the pictures, have words for splits. One level may hold
      folders of splits within classes. Several folders that each have splits are sets of their own, unless ``join``.
    - Masks, annotations and thumbnails beside the images are left out, see `beside.set_aside`.
    - Classes: the folders below the split. Folders of one letter that only sort others (``a/airfield``) are no classes. ``labels``
      says otherwise: "top" takes the first folder, "leaf" all folders down to the picture, "none" takes no folder.

    Raises:
        DataError: images to validate only; several sets; classes for a part of the pictures; the mending is said.
    """
    away = beside.set_aside(folders)
    folders = {folder: count for folder, count in folders.items() if folder not in away}
    found = _arranged(uri, folders, labels, join)
    return replace(found, places={**found.places, **{f: Place("", reason=reason) for f, reason in away.items()}})


def _arranged(uri: str, folders: Mapping[Folder, int], labels: Labels, join: bool) -> Layout:
    at, said = _split_level(uri, folders)
    if at is None:
        base = _base(folders) if labels == "auto" else ()
        below = {folder: ("train", folder[len(base) :]) for folder in folders}
        if labels == "auto":
            require_no_near_splits(uri, folders)
            tops = require_one_set(uri, [folder for _, folder in below.values()], base, join)
            below = {folder: (split, rest[1:] if tops else rest) for folder, (split, rest) in below.items()}
        return _with_classes(uri, folders, below, labels, "", base)
    heads = sorted({folder[:at] for folder in said})
    inside = len(heads) > 1 and all(len(folder) == at + 1 for folder in said)  # <class>/<split>/*
    if len(heads) > 1 and not inside and not join:
        names = ", ".join(f"'{'/'.join(head)}'" for head in heads[:4]) + (", ..." if len(heads) > 4 else "")
        raise DataError(
            f"'{uri}' holds {len(heads)} sets side by side, each with splits of its own: {names}. Name one of them, "
            f"data.source={_below(uri, heads[0])}, or take all as one with data.join=true."
        )
    lone = len(_base({folder[:at]: 1 for folder in said})) if inside else 0
    inner: dict[Folder, set[str]] = defaultdict(set)  # what lies in each split
    for folder in said:
        inner[folder[: at + 1]].add(folder[at + 1] if len(folder) > at + 1 else "")
    doubled = {head for head, names in inner.items() if names == {head[at]}}
    below: dict[Folder, tuple[str, Folder]] = {}
    for folder in folders:
        rest = _undoubled(folder[at:]) if folder[: at + 1] in doubled else folder[at + 1 :]
        below[folder] = (said.get(folder, ""), (folder[lone:at] if inside else ()) + rest)
    root = heads[0] if len(heads) == 1 else ()
    return _with_classes(uri, folders, below, labels, "<class>/<split>" if inside else "<split>", root)


def _undoubled(folder: Folder) -> Folder:
    """Return the folders below that of a split; archives unpacked into a folder of their name repeat it (``train/train``)."""
    head, rest = folder[:1], folder[1:]
    while rest[:1] == head != ():
        rest = rest[1:]
    return rest


def _said(folders: Iterable[Folder], at: int) -> dict[Folder, str]:
    """Return the split that each folder's name says on a level; folders that say none are not there."""
    beside: dict[Folder, set[str]] = defaultdict(set)
    deep = [folder for folder in folders if len(folder) > at]
    for folder in deep:
        beside[folder[:at]].add(folder[at])
    words = {head: splits.of_folders(names) for head, names in beside.items()}
    return {folder: split for folder in deep if (split := words[folder[:at]][folder[at]])}


def _split_level(uri: str, folders: Mapping[Folder, int]) -> tuple[int | None, dict[Folder, str]]:
    """Return the level of the folders that are splits, and what they say; None without."""
    total = sum(folders.values())
    for at in range(max(map(len, folders), default=0)):
        said = _said(folders, at)
        words = set(said.values())
        covered = sum(folders[folder] for folder in said)
        heads = {folder[:at] for folder in said}
        if covered == total and "train" not in words and len(heads) == 1:
            names = sorted({folder[at] for folder in folders})
            first = (*min(heads), names[0])
            raise DataError(
                f"'{uri}' has {' and '.join(f'{name}/' for name in names[:3])} but no train/ with images. If these are the images "
                f"to train on, use data.source={_below(uri, first)}. Expected {EXPECTED}."
            )
        deep = any(split == "train" and len(folder) > at + 1 for folder, split in said.items())
        if "train" in words and (covered == total or (covered > total / 2 and (deep or "val" in words))):
            return at, said
    return None, {}


def _without_sorters(below: Mapping[Folder, tuple[str, Folder]]) -> dict[Folder, tuple[str, Folder]]:
    """Return the folders below the splits without those that name no class: a lone ``images``, parts, a camera's folders."""
    heads = {rest[:1] for split, rest in below.values() if split == "train"}
    lone = len(heads) == 1 and all(head and head[0].lower() in beside.IMAGES for head in heads)
    parts = all(head and _PART.fullmatch(head[0]) for head in heads)
    if not (lone or parts):
        return dict(below)
    return {folder: (split, rest[1:] if rest[:1] in heads else rest) for folder, (split, rest) in below.items()}


def _base(folders: Mapping[Folder, int]) -> Folder:
    """Return the folder whose folders are the classes: a lone folder of nothing but folders is none."""
    base: Folder = ()
    while True:
        names = {folder[len(base) : len(base) + 1] for folder in folders}
        if len(names) != 1 or not (name := names.pop()) or (*base, *name) in folders:
            return base
        base = (*base, *name)


def _with_classes(
    uri: str,
    folders: Mapping[Folder, int],
    below: Mapping[Folder, tuple[str, Folder]],
    labels: Labels,
    form: str,
    root: Folder,
) -> Layout:
    """Return the layout whose splits are known, and the folders below them."""
    below = _without_sorters(below) if labels == "auto" else below
    train = {folder: rest for folder, (split, rest) in below.items() if split == "train"}
    total = sum(folders[folder] for folder in train)
    loose = [folder for folder, rest in train.items() if not rest]
    share = sum(folders[folder] for folder in loose) / total
    few = labels == "auto" and FEW < share < 1
    if few and share < 1 - FEW:
        example = next("/".join(folder) for folder, rest in train.items() if rest)
        alone = sum(folders[folder] for folder in loose)
        raise DataError(
            f"'{uri}' has {alone:,} images in no folder of a class, and {total - alone:,} in folders, for example in '{example}': "
            f"it is not clear whether folders are classes. Move the images into folders of classes, or: {_NONE}; data.labels=top "
            f"takes folders as classes, and leaves the others out."
        )
    labelled = labels != "none" and share < 1 and not few
    how = _depth(train.values(), labels)
    places: dict[Folder, Place] = {}
    for folder, (split, rest) in below.items():
        path = "/".join((split, *rest) if form else folder)
        if not split:
            where = "outside of the folders of the splits"
            places[folder] = Place("", reason=where, mending="move them into one of these folders")
        elif labelled and not rest and split == "train":
            places[folder] = Place("", reason=LOOSE, mending=LOOSE_MENDING)
        else:
            places[folder] = Place(split, _class(rest, how) if labelled else UNLABELLED, path)
    what = {"top": "<class>/*", "leaf": "<class>/*, a class being all folders down to the image"}.get(
        how, "<letter>/<class>/*"
    )
    shown = "/".join(filter(None, ("/".join(root), form.removeprefix("<class>/"), what if labelled else "*")))
    if form.startswith("<class>"):
        shown = "<class>/<split>/*" if labelled else "*/<split>/*"
    return Layout(
        places, shown + ("" if labelled else ", no classes"), root, bool(form), labelled, _notes(train, how, labelled)
    )


def _depth(rests: Iterable[Folder], labels: Labels) -> Literal["top", "leaf", "letters"]:
    """Return which folders name the class."""
    if labels in ("top", "leaf"):
        return "leaf" if labels == "leaf" else "top"
    deep = [rest for rest in rests if rest]
    heads = {rest[0] for rest in deep}
    sorted_by_letter = len(heads) > 1 and all(
        len(rest) > 1 and len(rest[0]) == 1 and rest[0].isalpha() and rest[1][:1].lower() == rest[0].lower()
        for rest in deep
    )
    sorted_by_letter &= any(len(rest[1]) > 2 for rest in deep if len(rest) > 1)  # else these are parts of a hash
    return "letters" if sorted_by_letter else "top"


def _class(rest: Folder, how: str) -> str:
    if not rest:
        return ""
    rest = tuple(unicodedata.normalize("NFC", name) for name in rest)  # one name, whatever system wrote it
    return rest[0] if how == "top" else "/".join(rest if how == "leaf" else rest[1:])


def _notes(train: Mapping[Folder, Folder], how: str, labelled: bool) -> tuple[str, ...]:
    deep = sorted(rest for rest in train.values() if len(rest) > 1)
    if not labelled:
        inner = sorted({"/".join(rest) for rest in train.values() if rest})
        more = f" and {len(inner) - 3:,} more" if len(inner) > 3 else ""
        named = ", ".join(f"'{name}'" for name in inner[:3])
        return (f"folders are not taken as classes: {named}{more}",) if inner else ()
    if how == "letters":
        return ("folders of one letter only sort the classes in them; data.labels=top takes them as classes",)
    if how == "top" and deep and len({rest[1:] for rest in deep}) > 1:
        return (
            f"deeper folders belong to the class above them, as '{'/'.join(deep[0])}' to '{deep[0][0]}'; data.labels=leaf makes "
            f"each folder a class",
        )
    return ()
