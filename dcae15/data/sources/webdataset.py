"""WebDataset: tars whose members are samples, grouped by their name up to the first dot; and other tars of pictures."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, BinaryIO

import pyarrow as pa

from dcae15.data import formats
from dcae15.data.sources import common, labels
from dcae15.data.sources.bare_tars import by_place, has_folders, tables_of
from dcae15.data.sources.beside import IMAGES
from dcae15.data.sources.common import Container, Listing, Selection, Source, pc
from dcae15.data.sources.containers import joined
from dcae15.data.sources.leaving import LeftOut, leave, suffix_of
from dcae15.data.sources.pictures import SUFFIXES, is_picture, is_system
from dcae15.data.sources.tars import Member, members, open_tar, read_member

_NUMBER, _TEXT = pa.int64(), pa.string()
_SCHEMA = pa.schema(
    {"path": _TEXT, "label": _NUMBER, "text": _TEXT, "offset": _NUMBER, "size": _NUMBER, "caption": _TEXT}
)
_TEXTS = ("class_name", "class")
_LABELS = ("label", "class_id", *_TEXTS)
_CAPTIONS = ("caption", "text")
_SAYS = (".cls", ".json", ".txt", ".caption")
_FEW = 0.1  # labels of so few samples are exceptions where folders say classes
_MOST_TEXT = 1 << 20  # bytes of a member that says a label or a caption
_MOST_NAME = 1_000  # characters of a class's name
_INTEGER = re.compile(r"0|-?[1-9]\d{0,17}")  # as a computer writes it: 007 is a name
_NUMBERS = re.compile(r"[-+.\deE\s]+")
_LABEL = "give each a label, or set data.labels=none to take all images as one class"


@dataclass(frozen=True)
class Said:
    """What a member of a tar says of its sample."""

    path: str
    number: int | None = None  # of the class
    text: str | None = None  # name of the class
    caption: str | None = None
    wrong: str = ""  # why a label cannot be read


def index(container: Container) -> pa.Table:
    """Return path, label (number, text, or both), caption, offset and size of each image; and in the metadata what is not taken.

    A sample is what has the same name up to the first dot; up to the last dot, where some samples would have several images
    otherwise. Not taken are members whose names begin with two underscores, JSON files of no image and no label, further images of
    a sample, samples whose label cannot be read, and others that are no images.

    Raises:
        DataError: the tar is damaged, or an image is a link; the member is named.
    """
    images: list[Member] = []
    says: list[Said] = []
    others: Counter[str] = Counter()
    hidden: list[str] = []
    with open_tar(container) as file:
        for member in members(container, file):
            suffix = suffix_of(member.path)
            if is_system(member.path) or "/." in f"/{member.path}":
                hidden.append(member.path) if suffix in SUFFIXES else others.update([suffix])
            elif member.path.rpartition("/")[2].startswith("__"):
                others[suffix] += 1
            elif suffix in _SAYS and member.size > _MOST_TEXT:
                others[f"{suffix} above 1 MiB"] += 1
            elif suffix in _SAYS:
                data = read_member(container, file, member)
                says.append(_said(member.path, data, suffix, f"{container.name}: '{member.path}'"))
                if suffix in (".txt", ".caption") and says[-1].caption is None:
                    others[f"{suffix} that is no caption"] += 1
            elif is_picture(member.path, lambda member=member: _head(container, file, member)):
                images.append(member)
            else:
                others[suffix] += 1
    groups, last = _samples(images, _first_dot), False
    if any(len(group) > 1 and not _best(group) for group in groups.values()):
        groups, last = _samples(images, _last_dot), True
    said: dict[str, list[Said]] = {}
    for part in says:
        said.setdefault((_last_dot if last else _first_dot)(part.path), []).append(part)
    rows, further, double, unread = [], [], [], []
    wrong = ""
    for key, group in groups.items():
        plain = _best(group) or group
        if len(plain) > 1:
            double += [member.path for member in plain]
            continue
        further += [member.path for member in group if member is not plain[0]]
        one = _together(said.pop(key, []))
        if one.wrong:
            unread.append(plain[0].path)
            wrong = wrong or one.wrong
            continue
        rows.append((plain[0].path, one.number, one.text, plain[0].offset, plain[0].size, one.caption))
    alone = []
    for key, parts in said.items():
        one = _together(parts)
        if one.number is None and one.text is None:
            others.update(suffix_of(part.path) for part in parts)
        else:
            alone.append(key)
    left = [
        *leave("hidden, or in folders that a system keeps for itself", hidden, expected=True),
        *leave("further images of a sample", further, expected=True),
        *leave("several images of one sample", double, "leave one image in each sample"),
        *leave("of a label that cannot be read", unread, f"correct the labels, as {wrong}"),
        *leave("with a label and no image", alone, "add their images, or take their labels away", noun="sample"),
    ]
    table = pa.Table.from_pylist([dict(zip(_SCHEMA.names, row, strict=True)) for row in rows], _SCHEMA)
    return table.replace_schema_metadata(
        {"others": json.dumps(others), "left": json.dumps([asdict(part) for part in left])}
    )


def assemble(listing: Listing, tables: Sequence[pa.Table], selection: Selection) -> Source:
    """Join the indexes, number the classes, and give each image an id.

    Class names come from a ``classes.txt`` or ``classnames.txt`` beside the tars, else from the names in the samples, else
    they are the numbers. Where no sample says a label, folders in the tars are classes (see `layout.arrange`), or WordNet ids that
    all names begin with, or the tars; images with captions and those of none of these are one class. An id is ``split/class/name``
    with the image's file name; where that occurs twice, with the tar's name and the path in the tar before it, for all images.

    Raises:
        DataError: labels are out of range or contradict each other.
    """
    left = [LeftOut(**part) for t in tables for part in json.loads(t.schema.metadata[b"left"])]
    others: Counter[str] = Counter(listing.others)
    for t in tables:
        others.update(json.loads(t.schema.metadata[b"others"]))
    table, container_of = joined(listing, tables)

    def where(row: int) -> str:
        return f"{container_of(row)[0].name}: '{table.column('path')[row].as_py()}'"

    if not table.num_rows:
        return common.select(listing, (), {"train": common.SCHEMA.empty_table()}, selection, left, others)
    labelled = pc.or_(pc.is_valid(table.column("label")), pc.is_valid(table.column("text")))
    few = pc.sum(labelled).as_py() <= _FEW * table.num_rows and has_folders(table.column("path").to_pylist())
    if few and selection.labels == "auto" and (count := pc.sum(labelled).as_py()):
        others["labels, because folders say the classes"] += count
    if selection.labels != "auto" or few or not pc.any(labelled).as_py():
        return by_place(listing, tables, selection, left, others)
    if not pc.all(labelled).as_py():
        bare = table.column("path").filter(pc.invert(labelled)).to_pylist()
        left += leave("without a label, beside others that have one", bare, _LABEL)
        tables = [t.filter(pc.or_(pc.is_valid(t.column("label")), pc.is_valid(t.column("text")))) for t in tables]
        table, container_of = joined(listing, tables)
    given = labels.read_names(listing.uri, listing.files)
    classes = labels.assign(listing.uri, table.column("label"), table.column("text"), given, where)
    found = tables_of(listing.containers, tables, classes)
    if not given and "val" in found and table.column("label").null_count:
        in_split = {s: [classes.names[i] for i in pc.unique(t.column("label")).to_pylist()] for s, t in found.items()}
        common.require_known(listing.uri, in_split["train"], in_split["val"], place="val tars")
    return common.select(listing, classes.names, found, selection, left, others, classes.notes)


def _samples(images: Sequence[Member], key: Callable[[str], str]) -> dict[str, list[Member]]:
    groups: dict[str, list[Member]] = {}
    for member in images:
        groups.setdefault(key(member.path), []).append(member)
    return groups


def _first_dot(path: str) -> str:
    folder, slash, name = path.rpartition("/")
    return folder + slash + name.partition(".")[0]


def _last_dot(path: str) -> str:
    folder, slash, name = path.rpartition("/")
    return folder + slash + (name.rpartition(".")[0] or name)


def _is_plain(path: str) -> bool:
    """Tell whether a member's name has at most one dot, and is thus the image of its sample and not a mask beside it."""
    return path.rpartition("/")[2].count(".") <= 1


def _best(group: Sequence[Member]) -> list[Member]:
    """Return the images of a sample that its names mark as such: without a further word, or one like ``image`` or ``input``."""
    plain = [member for member in group if _is_plain(member.path)]
    named = [member for member in group if member.path.rpartition("/")[2].split(".")[1].lower() in IMAGES]
    return plain or (named if len(named) == 1 else [])


def _head(container: Container, file: BinaryIO, member: Member) -> bytes:
    return read_member(container, file, replace(member, size=min(member.size, formats.HEAD_BYTES)))


def _together(parts: Sequence[Said]) -> Said:
    """Return what the members of a sample say together; where two say something, .cls comes first."""
    ordered = sorted(parts, key=lambda part: not part.path.lower().endswith(".cls"))

    def first(name: str) -> Any:
        return next((value for part in ordered if (value := getattr(part, name)) is not None), None)

    number, text = first("number"), first("text")
    unsaid = number is None and text is None
    return Said("", number, text, first("caption"), next((p.wrong for p in parts if p.wrong), "") if unsaid else "")


def _said(path: str, data: bytes, suffix: str, where: str) -> Said:
    """Return what a member says of its sample: the number and the name of its class, its caption."""
    try:
        content = data.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        return Said(path, wrong="" if suffix in (".txt", ".caption") else f"{where} is not a UTF-8 text")
    if suffix in (".txt", ".caption"):
        return Said(
            path, caption=content if content and not _NUMBERS.fullmatch(content) else None
        )  # else boxes, or a class
    if suffix == ".cls":
        number = int(content) if _INTEGER.fullmatch(content) else None
        if not content or len(content) > _MOST_NAME:
            return Said(path, wrong=f"{where} holds {content[:40]!r}, but a .cls holds the class as a number or a name")
        return Said(path, number, content if number is None else None)
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        return Said(path, wrong=f"{where} holds {content[:40]!r}, which is no valid JSON ({error})")
    if not isinstance(values, dict):
        return Said(path)
    said = {name: values[name] for name in _LABELS if values.get(name) is not None}
    text = next((said[name] for name in (*_TEXTS, "label") if isinstance(said.get(name), str)), None)
    number = next((int(v) for v in said.values() if type(v) in (int, float) and v == v // 1 and abs(v) < 1 << 62), None)
    if said and number is None and text is None:
        name, value = next(iter(said.items()))
        return Said(path, wrong=f"{where} has the {name} {str(value)[:40]}, which is no number or name of a class")
    caption = next((values[name] for name in _CAPTIONS if isinstance(values.get(name), str) and values[name]), None)
    return Said(path, number, text, caption)
