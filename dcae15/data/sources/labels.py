"""Class names and labels where a source says them in numbers, in names, or in both."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dcae15 import storage
from dcae15.data.sources.common import FileInfo, pc
from dcae15.errors import DataError

NAME_FILES = ("classes.txt", "classnames.txt")
MOST_CLASSES = 1_000_000  # a greater label is a mistake, and would make as many names


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


def assign(
    uri: str, numbers: pa.ChunkedArray, texts: pa.ChunkedArray, given: Sequence[str], where: Callable[[int], str]
) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """Return the class names and each image's label.

    Args:
        uri: the source, for messages.
        numbers: int64 labels; null where an image has none.
        texts: class names; null where an image has none.
        given: the names in the order of the labels, if somebody said them.
        where: describes row i in messages.

    Labels are numbers wherever all images have one, else positions in ``given``, else in the sorted names. With numbers, the
    names are ``given``, else the texts beside the numbers, else the numbers.

    Raises:
        DataError: a label is out of range or unknown, or number and text contradict each other.
    """
    if numbers.null_count == 0:
        labels = numbers.to_numpy().astype(np.int64)
        most = len(given) or MOST_CLASSES
        wrong = np.flatnonzero((labels < 0) | (labels >= most))
        if len(wrong):
            classes = f"the {most} classes allow 0 to {most - 1}" if given else f"labels count from 0 to {most - 1}"
            raise DataError(
                f"{where(int(wrong[0]))} has the label {labels[wrong[0]]}, but {classes}: correct the label."
            )
        return tuple(given) or names_beside(labels, texts, where), labels.astype(np.int32)
    if texts.null_count == 0:
        names = tuple(given) or tuple(sorted(pc.unique(texts).to_pylist()))
        found = pc.index_in(texts, pa.array(names, pa.string()))
        if found.null_count:
            row = int(np.flatnonzero(found.is_null().to_numpy())[0])
            raise DataError(
                f"{where(row)} has the class '{texts[row].as_py()}', which the list of class names lacks: correct one of them."
            )
        return names, found.to_numpy().astype(np.int32)
    numbered, named = numbers.is_valid().to_numpy(), texts.is_valid().to_numpy()
    if not (numbered | named).all():
        raise DataError(f"{where(int(np.argmin(numbered | named)))} has no label: give it one, or take the image out.")
    row = int(np.flatnonzero(numbered != numbered[0])[0])
    raise DataError(
        f"'{uri}' mixes labels in numbers and class names: {where(0)} and {where(row)} differ. Use one for all images."
    )


def names_beside(
    labels: NDArray[np.int64], texts: pa.ChunkedArray, where: Callable[[int], str], names: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return the name of each label as the texts beside them say; the number where there is none.

    ``names`` has names of labels without text, if known; ``where`` describes row i in messages.

    Raises:
        DataError: a label has two names, or a name two labels.
    """
    count = max(int(labels.max(initial=-1)) + 1, len(names))
    result = [names[label] if label < len(names) else str(label) for label in range(count)]
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
            other = f"'{words[code_of[label]]}'" if code_of[label] != code else f"the label {label_of[code]}"
            raise DataError(
                f"{where(row)} has the label {label} and the class '{words[code]}', others {other}: correct them."
            )
        result[label] = words[code]
    return tuple(result)
