"""Class names and labels where a source says them in numbers, in names, or in both."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dcae15 import storage
from dcae15.data.sources.common import FileInfo, pc
from dcae15.data.sources.layout import UNLABELLED
from dcae15.errors import DataError

NAME_FILES = ("classes.txt", "classnames.txt")
_WNID = re.compile(r"(n\d{8})[_.-]")


def read_names(folder: str, files: Sequence[FileInfo]) -> tuple[str, ...]:
    """Return the class names in a ``classes.txt`` or ``classnames.txt`` at the top of a folder, one a line; () without.

    Raises:
        DataError: the file holds a name twice, an empty line between names, or no text.
    """
    found = [info.path for info in files if info.path in NAME_FILES]
    if not found:
        return ()
    uri = storage.join(folder, found[0])
    try:
        names = [line.strip() for line in storage.read_bytes(uri).decode("utf-8-sig").rstrip().split("\n")]
    except UnicodeDecodeError as error:
        raise DataError(f"{uri} is not a UTF-8 text: write one class name a line.") from error
    seen: set[str] = set()
    for line, name in enumerate(names, 1):
        if not name or name in seen:
            what = f"'{name}' again" if name else "nothing"
            raise DataError(f"{uri} has {what} in line {line}: write each class name once, in the order of the labels.")
        seen.add(name)
    return tuple(names)


@dataclass(frozen=True)
class Classes:
    """The classes of a source: those that have images, numbered from 0."""

    names: tuple[str, ...]  # by label
    labels: NDArray[np.int32]  # of each image
    notes: tuple[str, ...] = ()  # where numbers became others


def unlabelled(count: int) -> Classes:
    """Return the one class of so many images without labels."""
    return Classes((UNLABELLED,), np.zeros(count, np.int32), ("no labels are taken, so that all images are one class",))


def numbers_or_names(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Return labels as numbers and as names, one of them null: numbers if all are whole ones as a computer writes them.

    ``007`` and ``1e3`` are names.
    """
    if pa.types.is_integer(column.type):
        return column.cast(pa.int64()), pa.chunked_array([pa.nulls(len(column), pa.string())])
    if pc.all(pc.match_substring_regex(column, r"^(0|-?[1-9]\d{0,17})$")).as_py():
        return column.cast(pa.int64()), pa.chunked_array([pa.nulls(len(column), pa.string())])
    return pa.chunked_array([pa.nulls(len(column), pa.int64())]), column


def assign(
    uri: str, numbers: pa.ChunkedArray, texts: pa.ChunkedArray, given: Sequence[str], where: Callable[[int], str]
) -> Classes:
    """Return the classes that have images, and each image's label.

    Args:
        uri: the source, for messages.
        numbers: int64 labels; null where an image has none.
        texts: class names; null where an image has none.
        given: the names in the order of the labels, if somebody said them.
        where: describes row i in messages.

    Texts that are all whole numbers count as numbers. Classes are in the order of their numbers wherever all images have one, else
    in the order of ``given``, else of their sorted names. With numbers, the names are ``given``, else the texts beside the numbers,
    else the numbers. Numbers that begin with 1 and end with the last of ``given`` count from 1.

    Raises:
        DataError: a label is out of range or unknown, or number and text contradict each other.
    """
    if texts.null_count == 0 and numbers.null_count and not set(pc.unique(texts).to_pylist()) <= set(given):
        numbers, texts = numbers_or_names(texts)
    if numbers.null_count == 0:
        return _numbered(numbers.to_numpy().astype(np.int64), texts, given, where)
    if texts.null_count == 0:
        used: list[str] = sorted(pc.unique(texts).to_pylist())
        unknown = set(used) - set(given) if given else set()
        if unknown:
            row = int(np.flatnonzero(pc.is_in(texts, pa.array(sorted(unknown))).to_numpy())[0])
            raise DataError(
                f"{where(row)} has the class '{texts[row].as_py()}', which the list of class names lacks: correct one of them."
            )
        names: tuple[str, ...] = tuple(name for name in given if name in set(used)) or tuple(used)
        found = pc.index_in(texts, pa.array(names, pa.string()))
        return Classes(names, found.to_numpy().astype(np.int32), _unused(len(given) - len(names)) if given else ())
    padded = pc.all(pc.match_substring_regex(texts.drop_null(), r"^-?\d+$")).as_py()
    if padded:  # some of them like 007: all are names, as they are written
        written = pc.coalesce(texts, numbers.cast(pa.string()))
        return assign(uri, pa.chunked_array([pa.nulls(len(numbers), pa.int64())]), written, given, where)
    numbered = numbers.is_valid().to_numpy()
    row = int(np.flatnonzero(numbered != numbered[0])[0])
    raise DataError(
        f"'{uri}' mixes labels in numbers and class names: {where(0)} and {where(row)} differ. Use one for all images."
    )


def _numbered(
    numbers: NDArray[np.int64], texts: pa.ChunkedArray, given: Sequence[str], where: Callable[[int], str]
) -> Classes:
    notes: list[str] = []
    if given and numbers.min() == 1 and numbers.max() == len(given):
        numbers = numbers - 1
        notes.append(f"labels count from 1 to {len(given):,}, as many as there are class names")
    wrong = np.flatnonzero((numbers < 0) | (numbers >= len(given)) if given else numbers < 0)
    if len(wrong):
        classes = f"the {len(given)} classes allow 0 to {len(given) - 1}" if given else "labels count from 0 on"
        raise DataError(f"{where(int(wrong[0]))} has the label {numbers[wrong[0]]}, but {classes}: correct the label.")
    used, labels = np.unique(numbers, return_inverse=True)
    if given:
        names = tuple(str(given[number]) for number in used.tolist())
        notes += _unused(len(given) - len(names))
    else:
        names = names_beside(used.tolist(), labels, texts, where)
        if len(used) and used[-1] >= len(used):
            notes.append(
                f"labels from {used[0]} to {used[-1]}, {len(used):,} of them used, are numbered anew from 0; names stay"
            )
    return Classes(names, labels.astype(np.int32), tuple(notes))


def _unused(count: int) -> tuple[str, ...]:
    return (f"{count:,} of the class names have no image and are left out",) if count else ()


def wnids(paths: Sequence[str]) -> list[str]:
    """Return the WordNet id that each file's name begins with, as ImageNet's do; [] if one has none."""
    found = [_WNID.match(path.rpartition("/")[2]) for path in paths]
    return [match[1] for match in found if match] if all(found) else []


def names_beside(
    numbers: Sequence[int],
    labels: NDArray[np.integer],
    texts: pa.ChunkedArray,
    where: Callable[[int], str],
    names: Sequence[str] = (),
) -> tuple[str, ...]:
    """Return the name of each class as the texts beside its images say; its number where there is none.

    Args:
        numbers: the number of each class, as the source has it.
        labels: the class of each image, counted from 0.
        texts: a name for each image; null where it has none.
        where: describes row i in messages.
        names: the names that are known; they stay where there is no text.

    Raises:
        DataError: a class has two names, or a name two classes.
    """
    result = list(names) if names else [str(number) for number in numbers]
    encoded = texts.combine_chunks().dictionary_encode()
    codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
    words = encoded.dictionary.to_pylist()
    label_of: dict[int, int] = {}
    code_of: dict[int, int] = {}
    pairs, rows = np.unique(np.stack([labels, codes]), axis=1, return_index=True)
    for (label, code), row in sorted(zip(pairs.T.tolist(), rows.tolist(), strict=True), key=lambda pair: pair[1]):
        if code < 0:
            continue
        if code_of.setdefault(label, code) != code or label_of.setdefault(code, label) != label:
            other = f"'{words[code_of[label]]}'" if code_of[label] != code else f"the label {numbers[label_of[code]]}"
            raise DataError(
                f"{where(row)} has the label {numbers[label]} and the class '{words[code]}', others {other}: correct them."
            )
        result[label] = words[code]
    return tuple(result)
