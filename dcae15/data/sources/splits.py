"""The words for splits in names of folders and files: one rule for every layout."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import PurePosixPath

_WORDS = r"train(?:ing)?|val(?:id(?:ation)?)?|eval(?:uation)?|test(?:ing)?"
_UNUSED = r"unlabell?ed|pred(?:ict(?:ion)?s?)?"  # no labels: as useless here as those of test
_WORD = re.compile(_WORDS, re.IGNORECASE)
_NAME = re.compile(
    rf"(?:\d+[-_. ]+)?({_WORDS}|{_UNUSED})(?:[-_. ]?(?:sets?|images?|imgs?|data|split|full|\d+|\(\d+\)))*",
    re.IGNORECASE,
)
_HINT = re.compile(
    r"(?:^|[^A-Za-z])(?i:(train|test|val)(?:ing|id(?:ation)?)?(?:val|annot\w*|masks?|labels?)?)(?![a-z])"
)
_INSIDE = re.compile(rf"(?:^|[-_.])({_WORDS})(?=[-_.\d]|$)", re.IGNORECASE)
_SEPARATOR = re.compile(r".*[-_. ]")


def word(text: str) -> str:
    """Return ``train``, ``val`` or ``test`` for a word that means one of them, whatever its case; else nothing."""
    return _meaning(_WORD.fullmatch(text))


def of_folder(name: str) -> str:
    """Return the split that a folder's name says: a word for it, and perhaps a number or what it holds (``train2017``)."""
    return _meaning(_NAME.fullmatch(name))


def of_folders(names: Collection[str]) -> dict[str, str]:
    """Return the split of each of the folders that lie side by side; what all their names begin with says nothing."""
    least, most = min(names), max(names)  # in order, so that what these share all share
    shared = next((i for i, (a, b) in enumerate(zip(least, most, strict=False)) if a != b), len(least))
    common = _SEPARATOR.match(least[:shared]) if len(names) > 1 else None
    skipped = len(common[0]) if common else 0
    return {name: of_folder(name) or of_folder(name[skipped:]) for name in names}


def hint(name: str) -> str:
    """Return the split that a folder's name may mean, where it is no plain word for one (``DIV2K_train_HR``, ``trainA``)."""
    return of_folder(name) or _meaning(_HINT.search(name))


def of_file(path: str) -> str:
    """Return the split of a file that holds many images.

    The outermost folder of train or val says it, else its name, else a folder.
    """
    *folders, name = PurePosixPath(path).parts
    said = next((split for folder in folders if (split := of_folder(folder)) in ("train", "val")), "")
    return said or next(filter(None, (_meaning(_INSIDE.search(part)) for part in (name, *reversed(folders)))), "")


def _meaning(match: re.Match[str] | None) -> str:
    found = match[match.lastindex or 0].lower() if match else ""
    if found.startswith("eval"):
        return "val"
    if found.startswith(("unlabel", "pred")):
        return "test"
    return next((split for split in ("train", "val", "test") if found.startswith(split)), "")
