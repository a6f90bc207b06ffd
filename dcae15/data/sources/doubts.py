"""Layouts that could be read in two ways are asked for: what looks nearly like splits, or like the same set twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from dcae15.data.sources import splits
from dcae15.data.sources.beside import Folder
from dcae15.errors import DataError

_OWN_WAY = "or name each image in a list"


def require_no_near_splits(uri: str, folders: Iterable[Folder]) -> None:
    """Raise DataError when folders side by side look like train and val or test, but no layout has them.

    Their names are no plain words for these, or too much lies beside them. Only where they are at least a third of the folders
    there, so that two of a thousand classes may be called so.
    """
    for parent, names in sorted(_inner(folders).items()):
        hints = {name: split for name in sorted(names) if (split := splits.hint(name))}
        if {"train"} < set(hints.values()) and 3 * len(hints) >= len(names):
            train = next(name for name, split in hints.items() if split == "train")
            others = sorted(names - set(hints))
            beside = f", and {_few(others)} beside them" if others else ""
            raise DataError(
                f"'{uri}' has folders that look like splits, {_few(hints)}{beside}, but it is not clear how. Name the images to "
                f"train on, data.source={below_uri(uri, (*parent, train))}, or rename the folders to train/, val/ and test/ and "
                f"take the others away; if all are classes, use data.labels=top; {_OWN_WAY}."
            )


def require_one_set(uri: str, folders: Iterable[Folder], base: Folder, join: bool) -> bool:
    """Tell whether the first folders are sets with the same folders in them, which are to be joined.

    Args:
        uri: the source, for messages.
        folders: folders of pictures, below ``base``.
        base: the folder that they are in.
        join: whether sets side by side are taken as one.

    Raises:
        DataError: folders hold mostly the same folders, as color/ and gray/ would with the same classes in both, and nobody said
            what that means.
    """
    inner = _inner(folders)
    tops = inner.get((), set())
    sets = {top: _branches(inner, (top,)) for top in sorted(tops)}
    sets = {top: names for top, names in sets.items() if len(names) > 1}
    for top, names in sets.items():
        if not join and _alike(names, tops - {top}):
            raise DataError(
                f"'{uri}' has '{'/'.join((*base, top))}' with {_few(sorted(names & tops))} in it, and folders of the same names "
                f"beside it: the same set may be there twice. Name one of them, data.source={below_uri(uri, (*base, top))}; or "
                f"take all first folders as classes with data.labels=top, all folders with data.labels=leaf."
            )
    first = next(iter(sets.values()), set())
    if len(sets) < 2 or len(sets) < len(tops) or not all(_alike(first, names) for names in sets.values()):
        return False
    if join:
        return True
    raise DataError(
        f"'{uri}' holds {len(sets)} folders with the same folders in each: {_few(sets)}, with {_few(sorted(first))}. It is not "
        f"clear which are the classes. If they are the inner ones, these are sets side by side, perhaps of the same images: name "
        f"one of them, data.source={below_uri(uri, (*base, min(sets)))}, or take "
        f"them as one with data.join=true. If they are the outer ones, use data.labels=top; for both, data.labels=leaf; for none, "
        f"data.labels=none."
    )


def below_uri(uri: str, folder: Folder) -> str:
    """Return the URI of a folder of a source."""
    return "/".join((uri.rstrip("/"), *folder))


def _inner(folders: Iterable[Folder]) -> dict[Folder, set[str]]:
    """Return the names of the folders in each folder."""
    inner: dict[Folder, set[str]] = defaultdict(set)
    for folder in folders:
        for depth, name in enumerate(folder):
            inner[folder[:depth]].add(name)
    return dict(inner)


def _branches(inner: dict[Folder, set[str]], folder: Folder) -> set[str]:
    """Return the folders in a folder, or in the lone one in it."""
    names = inner.get(folder, set())
    while len(names) == 1:
        folder = (*folder, *names)
        names = inner.get(folder, set())
    return names


def _alike(first: set[str], second: set[str]) -> bool:
    shared = len(first & second)
    return shared > 1 and 2 * shared >= min(len(first), len(second))


def _few(names: Iterable[str]) -> str:
    found = list(names)
    return ", ".join(f"'{name}'" for name in found[:4]) + (", ..." if len(found) > 4 else "")
