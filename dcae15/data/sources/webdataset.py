"""WebDataset: tars whose members are samples, grouped by their name up to the first dot."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pyarrow as pa

from dcae15.data.sources import common, labels
from dcae15.data.sources.common import Container, Listing, Selection, Source, pc
from dcae15.data.sources.containers import by_split, joined
from dcae15.data.sources.tars import Member, members, open_tar, read_member
from dcae15.errors import DataError

_NUMBER, _TEXT = pa.int64(), pa.string()
_SCHEMA = pa.schema({"path": _TEXT, "label": _NUMBER, "text": _TEXT, "offset": _NUMBER, "size": _NUMBER})
_TEXTS = ("class_name", "class")


def index(container: Container) -> pa.Table:
    """Return path, label (number, text, or both), offset and size of the image of each sample; and how many members are none.

    These are members whose names begin with two underscores, as of tools' own notes, and JSON files of no image and no label.

    Raises:
        DataError: the tar is damaged, an image is a link, or a sample lacks its image or its label; the sample is named.
    """
    images: dict[str, Member] = {}
    said: dict[str, tuple[int | None, str | None]] = {}
    others = 0
    with open_tar(container) as file:
        for member in members(container, file):
            key, extension = _key(member.path)
            if member.path.rpartition("/")[2].startswith("__"):
                others += 1
            elif f".{extension}" in common.SUFFIXES:
                if key in images:
                    raise DataError(
                        f"{container.name}: the sample '{key}' has two images, '{images[key].path}' and '{member.path}'."
                    )
                images[key] = member
            elif extension in ("cls", "json"):
                number, text = said.get(key, (None, None))
                here = _label(read_member(container, file, member), extension, f"{container.name}: '{member.path}'")
                first, second = (here, (number, text)) if extension == "cls" else ((number, text), here)
                said[key] = tuple(b if a is None else a for a, b in zip(first, second, strict=True))  # pyright: ignore[reportArgumentType]
    alone = [key for key, label in said.items() if key not in images and label == (None, None)]
    for key in alone:
        del said[key]
    for key in [*images, *said]:
        if key not in images:
            raise DataError(f"{container.name}: the sample '{key}' has no image ({', '.join(common.SUFFIXES)}).")
        if said.get(key, (None, None)) == (None, None):
            raise DataError(
                f"{container.name}: the sample '{key}' has no label: neither a .cls with a number nor a .json with label, "
                f"class_name or class."
            )
    rows = [(m.path, *said[key], m.offset, m.size) for key, m in images.items()]
    table = pa.Table.from_pylist([dict(zip(_SCHEMA.names, row, strict=True)) for row in rows], _SCHEMA)
    return table.replace_schema_metadata({"ignored": str(others + len(alone))})


def assemble(listing: Listing, tables: Sequence[pa.Table], selection: Selection) -> Source:
    """Join the indexes, number the classes, and give each image an id.

    Class names come from a ``classes.txt`` or ``classnames.txt`` beside the tars, else from the names in the samples, else
    they are the numbers. An id is ``split/class/name`` with the image's file name; where that occurs twice, with the tar's
    name and the path in the tar before it, for all images.

    Raises:
        DataError: labels are out of range or contradict each other.
    """
    table, container_of = joined(listing, tables)

    def where(row: int) -> str:
        return f"{container_of(row)[0].name}: '{table.column('path')[row].as_py()}'"

    given = labels.read_names(listing.uri, listing.files)
    names, numbers = labels.assign(listing.uri, table.column("label"), table.column("text"), given, where)
    paths = [t.column("path") for t in tables]
    stems = [container.stem for container in listing.containers]
    short = [pc.replace_substring_regex(p, pattern=r"^.*/", replacement="") for p in paths]
    long = [pc.binary_join_element_wise(stem, p, "/") for stem, p in zip(stems, paths, strict=True)]
    places = [(t.column("offset"), t.column("size")) for t in tables]
    splits = by_split(listing.containers, names, numbers, places, [short, long])
    if not given and "val" in splits and table.column("label").null_count:
        in_split = {s: [names[i] for i in pc.unique(t.column("label")).to_pylist()] for s, t in splits.items()}
        common.require_known(listing.uri, in_split["train"], in_split["val"], place="val tars")
    ignored = listing.ignored + sum(int(t.schema.metadata[b"ignored"]) for t in tables)
    return common.select(listing, names, splits, ignored, selection)


def _key(path: str) -> tuple[str, str]:
    """Return the key of a member's sample, and its extension: what follows the first dot of the file name."""
    folder, slash, name = path.rpartition("/")
    stem, _, extension = name.partition(".")
    return folder + slash + stem, extension.lower()


def _label(data: bytes, extension: str, where: str) -> tuple[int | None, str | None]:
    """Return the number and the name that a ``.cls`` or ``.json`` gives the sample's class."""
    label: object = None
    values: object = {}
    try:
        if extension == "cls":
            label = int(data)
        else:
            values = json.loads(data)
    except ValueError as error:
        wanted = "a .cls holds the class as a number" if extension == "cls" else f"no valid JSON ({error})"
        raise DataError(f"{where} holds {data[:40]!r}: {wanted}.") from None
    if not isinstance(values, dict):
        return None, None
    label = values.get("label", label)
    if isinstance(label, int) and abs(label) >= 1 << 31:
        raise DataError(
            f"{where} has the label {label}, but labels count from 0 to {labels.MOST_CLASSES - 1}: correct the label."
        )
    text = next((values[name] for name in _TEXTS if isinstance(values.get(name), str)), None)
    if isinstance(label, str) and text is None:
        text = label
    return (label if isinstance(label, int) and not isinstance(label, bool) else None), text
