"""The layout of pictures in folders: which folders are splits, which are classes. It is taken only when the pictures agree with it.

Only the folders are looked at, not the pictures: ImageNet has 2,000 of these.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from dcae15.data.sources import splits
from dcae15.data.sources.pictures import is_derived
from dcae15.errors import DataError

Labels = Literal["auto", "top", "leaf", "none"]
Folder = tuple[str, ...]

OF_TEST = "images of test, which have no use here"
UNLABELLED = "images"  # the one class of pictures without classes
EXPECTED = (
    "train/<class>/*.jpg with val/<class>/*.jpg (ImageNet's layout), <class>/*.jpg, <class>/train/*.jpg, or images without "
    "classes"
)

_IMAGES = ("images", "imgs", "img", "image", "jpegimages", "jpegs", "photos", "pictures")
_MASKS = ("mask", "annotation", "label", "segmentation", "trimap", "groundtruth", "ground_truth", "gt", "depth")
_FEW = 0.1  # pictures that disagree with a layout are exceptions up to this share; else the layout is not taken
_NONE = "data.labels=none takes all pictures as one class"


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
    - Masks: folders called so beside one called ``images`` are left out.
    - Classes: the folders below the split. Folders of one letter that only sort others (``a/airfield``) are no classes. ``labels``
      says otherwise: "top" takes the first folder, "leaf" all folders down to the picture, "none" takes no folder.

    Raises:
        DataError: images to validate only; several sets; classes for a part of the pictures; the mending is said.
    """
    at, said = _split_level(uri, folders)
    if at is None:
        base = _base(folders) if labels == "auto" else ()
        below = {folder: ("train", folder[len(base) :]) for folder in folders}
        if labels == "auto" and not join:
            _require_one_set(uri, [folder for _, folder in below.values()], base)
        return _with_classes(uri, folders, below, labels, "", base)
    heads = sorted({folder[:at] for folder in said})
    inside = len(heads) > 1 and all(len(folder) == at + 1 for folder in said)  # <class>/<split>/*
    if len(heads) > 1 and not inside and not join:
        names = ", ".join(f"'{'/'.join(head)}'" for head in heads[:4]) + (", ..." if len(heads) > 4 else "")
        raise DataError(
            f"'{uri}' holds {len(heads)} sets side by side, each with splits of its own: {names}. Name one of them, "
            f"data.source={_below(uri, heads[0])}, or take all as one with data.join=true."
        )
    below = {
        folder: (said.get(folder, ""), (folder[:at] if inside else ()) + _undoubled(folder[at:])) for folder in folders
    }
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


def _base(folders: Mapping[Folder, int]) -> Folder:
    """Return the folder whose folders are the classes: a lone folder of nothing but folders is none."""
    base: Folder = ()
    while True:
        names = {folder[len(base) : len(base) + 1] for folder in folders}
        if len(names) != 1 or not (name := names.pop()) or (*base, *name) in folders:
            return base
        base = (*base, *name)


def _require_one_set(uri: str, folders: Iterable[Folder], base: Folder) -> None:
    """Raise DataError when all folders hold the same folders, as color/ and grayscale/ would with the same classes in both."""
    inner: dict[str, set[str]] = defaultdict(set)
    for folder in folders:
        if len(folder) < 2:
            return
        inner[folder[0]].add(folder[1])
    sets = list(inner.values())
    if len(sets) < 2 or len(sets[0]) < 2 or any(names != sets[0] for names in sets):
        return
    names = ", ".join(f"'{name}'" for name in sorted(inner)[:4]) + (", ..." if len(inner) > 4 else "")
    raise DataError(
        f"'{uri}' holds {len(inner)} folders with the same folders in each: {names}, with {_two(sets[0])}. It is not clear which "
        f"are the classes. If they are the inner ones, these are sets side by side, perhaps of the same images: name one of them, "
        f"data.source={_below(uri, (*base, min(inner)))}. If they are the outer ones, use data.labels=top; for both, "
        f"data.labels=leaf."
    )


def _two(names: Iterable[str]) -> str:
    first, second, *_ = sorted(names)
    return f"'{first}' and '{second}'"


def _masks(below: Mapping[Folder, tuple[str, Folder]]) -> tuple[dict[Folder, tuple[str, Folder]], set[Folder]]:
    """Return the folders of images without the folder called ``images``, and those beside it that hold masks by their names."""
    found, masks = dict(below), set[Folder]()
    for split in {split for split, _ in below.values()} - {""}:
        own = {folder: rest for folder, (said, rest) in below.items() if said == split}
        heads = {rest[:1] for rest in own.values()}
        named = {head for head in heads if head and head[0].lower() in _IMAGES}
        if (
            len(heads) < 2
            or len(named) != 1
            or not all(head and head[0].lower().startswith(_MASKS) for head in heads - named)
        ):
            continue
        masks |= {folder for folder, rest in own.items() if rest[:1] not in named}
        found |= {folder: (split, rest[1:]) for folder, rest in own.items() if rest[:1] in named}
    return found, masks


def _with_classes(
    uri: str,
    folders: Mapping[Folder, int],
    below: Mapping[Folder, tuple[str, Folder]],
    labels: Labels,
    form: str,
    root: Folder,
) -> Layout:
    """Return the layout whose splits are known, and the folders below them."""
    below, masks = _masks(below)
    below = {folder: what for folder, what in below.items() if folder not in masks}
    train = {folder: rest for folder, (split, rest) in below.items() if split == "train"}
    total = sum(folders[folder] for folder in train)
    loose = [folder for folder, rest in train.items() if not rest]
    share = sum(folders[folder] for folder in loose) / total
    few = labels == "auto" and _FEW < share < 1
    if few and share < 1 - _FEW:
        example = next("/".join(folder) for folder, rest in train.items() if rest)
        alone = sum(folders[folder] for folder in loose)
        raise DataError(
            f"'{uri}' has {alone:,} images in no folder of a class, and {total - alone:,} in folders, for example in '{example}': "
            f"it is not clear whether folders are classes. Move the images into folders of classes, or: {_NONE}; data.labels=top "
            f"takes folders as classes, and leaves the others out."
        )
    labelled = labels != "none" and share < 1 and not few
    how = _depth(train.values(), labels)
    places = {folder: Place("", reason="in folders of masks or annotations, by their names") for folder in masks}
    for folder, (split, rest) in below.items():
        path = "/".join((split, *rest) if form else folder)
        if not split:
            where = "outside of the folders of the splits"
            places[folder] = Place("", reason=where, mending="move them into one of these folders")
        elif labelled and not rest and split == "train":
            where = "in no folder of a class"
            places[folder] = Place("", reason=where, mending=f"move them into one, or: {_NONE}")
        elif few and rest and is_derived("/".join(rest)):
            places[folder] = Place("", reason="in folders of thumbnails or caches, by their names")
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
        len(rest) > 1 and len(rest[0]) == 1 and rest[1][:1].lower() == rest[0].lower() for rest in deep
    )
    return "letters" if sorted_by_letter else "top"


def _class(rest: Folder, how: str) -> str:
    if not rest:
        return ""
    return rest[0] if how == "top" else "/".join(rest if how == "leaf" else rest[1:])


def _notes(train: Mapping[Folder, Folder], how: str, labelled: bool) -> tuple[str, ...]:
    deep = sorted(rest for rest in train.values() if len(rest) > 1)
    if not labelled:
        inner = sorted({"/".join(rest) for rest in train.values() if rest})
        more = f" and {len(inner) - 3:,} more" if len(inner) > 3 else ""
        named = ", ".join(f"'{name}'" for name in inner[:3])
        return (f"folders are not taken as classes: {named}{more}",) if inner else ()
    if how == "top" and deep and len({rest[1:] for rest in deep}) > 1:
        return (
            f"deeper folders belong to the class above them, as '{'/'.join(deep[0])}' to '{deep[0][0]}'; data.labels=leaf makes "
            f"each folder a class",
        )
    return ()


def _below(uri: str, folder: Folder) -> str:
    return "/".join((uri.rstrip("/"), *folder))
