"""What all kinds of sources share: tables of images, splits, class subsets, limits, and dealing into shards.

Images are rows of Arrow tables, not Python objects: 1.3 million of them take some 200 MB.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from dcae15.data.sources.layout import Labels
from dcae15.data.sources.leaving import LeftOut, counted, leave, merged, printable
from dcae15.errors import ConfigError, DataError, nearest
from dcae15.storage import FileInfo

pc: Any = pyarrow.compute  # its functions are made while it is imported, so type checkers do not know them

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("label", pa.int32()),
        ("uri", pa.dictionary(pa.int32(), pa.string())),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("state", pa.uint64()),
        ("caption", pa.string()),
    ]
)
"""An image: its id, its class, and where its bytes are; offset -1 means the whole file, size -1 that nobody knows.

The state is another where the file was written anew, see `state_of`; 0 where nobody listed the file. The caption is null without.
"""

NAMED = 6  # classes that are named
_HOLD_OUT_FROM = 5  # a class gives a validation image as soon as it has this many


@dataclass(frozen=True)
class Selection:
    """Which images of a source are taken."""

    # share of every class that is held out where the source has no validation images, in [0, 1)
    val_fraction: float = 0.0
    limit: int = 0  # most images per split, spread evenly over the classes; 0 means all
    classes: tuple[str, ...] = ()  # names of the classes to take; none means all
    seed: int = 0  # seed of the held-out share
    labels: Labels = "auto"  # which folders are classes, see `layout.arrange`
    join: bool = False  # whether several sets side by side are taken as one
    # validation images that are held out at least, as far as no class gives more than half of its images
    least_val: int = 0


@dataclass(frozen=True)
class Container:
    """A file that holds many images, or a part of one (a tar in a tar): the unit of indexing."""

    kind: str  # kind of the source
    name: str  # what messages call it
    stem: str  # a short name, unique in the source
    uri: str  # the file
    offset: int  # where the container begins in it
    size: int  # its bytes
    split: str  # ``train``, ``val``, or empty where nobody says
    state: int = 0  # of the file, see `state_of`


@dataclass(frozen=True)
class Listing:
    """What lies at a source, before anything is opened."""

    uri: str  # the folder or file
    kind: str  # one of `dcae15.data.sources.KINDS`
    files: tuple[FileInfo, ...]  # all files of the folder; one without a path for a file
    containers: tuple[Container, ...] = ()  # what has to be indexed; empty for kinds whose images are files
    left_out: tuple[LeftOut, ...] = ()  # pictures, or files of them, that are not taken
    others: Mapping[str, int] = field(default_factory=dict)  # other files by suffix
    notes: tuple[str, ...] = ()  # what else the user should read


@dataclass(frozen=True)
class Source:
    """The images of a source: both splits, sorted by id."""

    uri: str  # the folder or file
    kind: str  # one of `dcae15.data.sources.KINDS`
    class_names: tuple[str, ...]  # the index of a name is its label
    train: pa.Table  # training images, see `SCHEMA`
    val: pa.Table  # validation images; none where the source has none and none could be held out
    left_out: tuple[LeftOut, ...] = ()  # pictures that are not taken, by reason
    others: Mapping[str, int] = field(default_factory=dict)  # other files, or members of tars, by suffix
    notes: tuple[str, ...] = ()  # how it was understood, and what else the user should read

    @property
    def count(self) -> int:
        """Images of both splits."""
        return self.train.num_rows + self.val.num_rows

    @property
    def ignored(self) -> int:
        """Files that are no pictures."""
        return sum(self.others.values())

    @property
    def lost(self) -> dict[str, int]:
        """Pictures by reason that are left out by no documented rule: they count as bad images."""
        return {part.reason: part.count for part in self.left_out if not part.expected}

    @property
    def captions(self) -> int:
        """Images that have a caption."""
        return sum(table.num_rows - table.column("caption").null_count for table in (self.train, self.val))

    def describe(self) -> str:
        """Say what was found and how it was understood; a line for each fact."""
        lines = [
            f"{self.uri} ({self.kind}): {self.train.num_rows:,} training and {self.val.num_rows:,} validation images "
            f"of {len(self.class_names):,} class{'es' if len(self.class_names) > 1 else ''}",
            *self.notes,
        ]
        sizes = np.bincount(_labels(self.train), minlength=len(self.class_names))
        named = [
            f"{_short(name)} ({size:,})" for name, size in zip(self.class_names[:NAMED], sizes.tolist(), strict=False)
        ]
        more = f" and {len(self.class_names) - NAMED:,} more" if len(self.class_names) > NAMED else ""
        lines.append(f"classes, with their training images: {', '.join(named)}{more}")
        if self.captions:
            lines.append(f"captions: {self.captions:,} images have one")
        lines += [f"left out: {part}" for part in self.left_out]
        if self.others:
            lines.append(f"other files: {self.ignored:,} ({counted(dict(self.others))})")
        return "\n  ".join(lines)


def _short(text: str) -> str:
    shown = printable(text)
    return shown if len(shown) <= 40 else shown[:37] + "..."


def state_of(info: FileInfo) -> int:
    """Return a number that tells a file from others of its name, as far as its listing says: 64 bits of size and version."""
    text = f"{info.size}/{info.version}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def rows(ids: Any, labels: Any, uris: Any, offsets: Any, sizes: Any, states: Any = 0, captions: Any = None) -> pa.Table:
    """Build a table of images from arrays or lists; ``uris`` may be one text for all, ``states`` one number."""
    captions = pa.nulls(len(ids), pa.string()) if captions is None else captions
    if isinstance(states, int):
        states = np.full(len(ids), states, np.uint64)
    if isinstance(uris, str):
        uris = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(ids), np.int32)), pa.array([uris], pa.string()))
    elif not isinstance(uris, pa.Array | pa.ChunkedArray):
        uris = pa.array(uris, pa.string())
    if not pa.types.is_dictionary(uris.type):
        uris = uris.dictionary_encode()
    columns = [
        ids if isinstance(ids, pa.Array | pa.ChunkedArray) else pa.array(ids, pa.string()),
        pa.array(labels, pa.int32()),
        uris,
        pa.array(offsets, pa.int64()),
        pa.array(sizes, pa.int64()),
        states if isinstance(states, pa.Array | pa.ChunkedArray) else pa.array(states, pa.uint64()),
        captions if isinstance(captions, pa.Array | pa.ChunkedArray) else pa.array(captions, pa.string()),
    ]
    return pa.table(columns, names=SCHEMA.names).cast(SCHEMA).combine_chunks()


def require_known(uri: str, train: Sequence[str], val: Sequence[str], place: str = "val/") -> None:
    """Raise DataError when a class has validation images and no training images."""
    unknown = sorted(set(val) - set(train))
    if unknown:
        raise DataError(
            f"'{uri}' has {len(unknown)} classes in {place} that {place.replace('val', 'train')} lacks, for example "
            f"'{unknown[0]}'{nearest(unknown[0], set(train))}: use the same classes in both."
        )


def select(
    listing: Listing,
    class_names: Sequence[str],
    splits: Mapping[str, pa.Table],
    selection: Selection,
    left_out: Sequence[LeftOut] = (),
    others: Mapping[str, int] | None = None,
    notes: Sequence[str] = (),
) -> Source:
    """Make a source of all its images: hold some out where it has none of ``val``, take the classes and the number asked for.

    What is held out, and which images a limit leaves, depends on nothing but seed, ids, labels and the classes asked for. Classes
    of fewer than five images are kept whole for training where their share rounds to nothing, unless too few would be held out.
    Classes without training images are none: the others are numbered anew, in their order.

    Raises:
        ConfigError: a class that was asked for is unknown.
        DataError: there are no images, none to train on, or two of the same id.
    """
    sorted_ = {split: _sorted(table) for split, table in splits.items()}
    left = merged([*listing.left_out, *left_out])
    if not sum(table.num_rows for table in sorted_.values()):
        found = "nothing there is an image"
        raise DataError("; ".join([f"No images in '{listing.uri}' ({listing.kind}): {found}", *map(str, left)]))
    train, val = sorted_["train"], sorted_.get("val")
    if not train.num_rows:
        raise DataError(
            f"'{listing.uri}' ({listing.kind}) has {sum(t.num_rows for t in sorted_.values()):,} validation images, but none to "
            f"train on: add those, or name the files so that the images are not taken for validation."
        )
    _require_unique(listing.uri, [train] if val is None else [train, val])
    if val is None:
        out = _held_out(train, selection, _wanted(class_names, selection.classes))
        notes = [*notes, f"validation: {int(out.sum()):,} images are held out, because the source has none"]
        train, val = train.filter(pa.array(~out)), train.filter(pa.array(out))
    asked = _wanted(class_names, selection.classes)
    trained = np.zeros(len(class_names), bool)
    trained[_labels(train)] = True
    unknown = _those(val, [label for label in asked if not trained[label]], len(class_names))
    mending = "add training images of their classes, or take them away"
    left = merged(
        [
            *left,
            *leave("validation images of classes without training images", unknown.column("id").to_pylist(), mending),
        ]
    )
    wanted = [label for label in asked if trained[label]]
    if not wanted:
        raise DataError(
            f"'{listing.uri}' has no training images of the {len(asked)} classes in data.classes: add some."
        )
    if len(asked) > len(wanted):
        notes = [
            *notes,
            f"classes without training images are left out: {_few([class_names[i] for i in asked if not trained[i]])}",
        ]
    train = _limited(_relabelled(train, wanted, len(class_names)), selection.limit)
    kept = np.unique(_labels(train)).tolist()  # a limit may be below the number of classes
    val = _relabelled(_relabelled(val, wanted, len(class_names)), kept, len(wanted))
    train, val = _relabelled(train, kept, len(wanted)), _limited(val, selection.limit)
    names = tuple(str(class_names[wanted[label]]) for label in kept)
    return Source(listing.uri, listing.kind, names, train, val, left, {**(others or {})}, (*listing.notes, *notes))


def _those(table: pa.Table, labels: Sequence[int], count: int) -> pa.Table:
    chosen = np.zeros(count, bool)
    chosen[np.array(labels, int)] = True
    return table.filter(pa.array(chosen[_labels(table)]))


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(f"'{_short(name)}'" for name in names[:NAMED]) + more


def deal(images: pa.Table, size: int, seed: int) -> list[pa.Table]:
    """Deal images to shards in a fixed random order, so that each shard, and the first ones, hold all classes."""
    keys = [hashlib.blake2b(f"{seed}/{i}".encode(), digest_size=8).digest() for i in images.column("id").to_pylist()]
    order = np.argsort(np.frombuffer(b"".join(keys), ">u8"), kind="stable")
    return [take(images, order[i : i + size]) for i in range(0, len(order), size)]


def take(images: pa.Table, indices: NDArray[np.integer]) -> pa.Table:
    """Return some rows as a table of their own, which is small when it is pickled (a slice would bring all others along)."""
    chosen = images.take(pa.array(indices)).combine_chunks()
    uris = chosen.column("uri").cast(pa.string()).dictionary_encode()
    return chosen.set_column(SCHEMA.get_field_index("uri"), "uri", uris).combine_chunks()


def _sorted(table: pa.Table) -> pa.Table:
    order = pc.sort_indices(table.column("id"))
    return table.take(order).combine_chunks()


def _require_unique(uri: str, tables: Sequence[pa.Table]) -> None:
    ids = pa.concat_tables(tables).column("id")
    if pc.count_distinct(ids).as_py() == len(ids):
        return
    counts = pc.value_counts(ids)
    twice = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    raise DataError(
        f"'{uri}' has {len(twice):,} ids more than once, for example '{twice[0].as_py()}': each image needs a name of its own."
    )


def _labels(table: pa.Table) -> NDArray[np.int32]:
    return table.column("label").to_numpy()


def _turns(labels: NDArray[np.int32], order: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return each row's place within its class when rows are taken in ``order``, which sorts them by class first."""
    sorted_labels = labels[order]
    first = np.searchsorted(sorted_labels, sorted_labels, side="left")
    turns = np.empty(len(labels), np.int64)
    turns[order] = np.arange(len(labels)) - first
    return turns


def _held_out(table: pa.Table, selection: Selection, wanted: Sequence[int]) -> NDArray[np.bool_]:
    """Tell which images validate: those of every class whose hashed ids come first; more of the ``wanted`` ones if they are few."""
    share, labels = selection.val_fraction, _labels(table)
    if not share or not len(labels):
        return np.zeros(len(labels), bool)
    digests = [hashlib.sha256(f"{selection.seed}:{i}".encode()).digest()[:8] for i in table.column("id").to_pylist()]
    keys = np.frombuffer(b"".join(digests), ">u8").astype(np.uint64)
    sizes = np.bincount(labels)
    counts = np.array([round(size * share) for size in sizes.tolist()])
    counts = np.where(sizes >= _HOLD_OUT_FROM, np.maximum(counts, 1), counts)
    counts = np.minimum(counts, np.maximum(sizes - 1, 0))
    taken = [label for label in wanted if label < len(sizes)]  # the last classes may have no images
    while counts[taken].sum() < selection.least_val:
        room = sizes[taken] // 2 - counts[taken]
        if room.max(initial=0) <= 0:
            break
        counts[taken[int(room.argmax())]] += 1
    return _turns(labels, np.lexsort((keys, labels))) < counts[labels]


def _wanted(class_names: Sequence[str], classes: Sequence[str]) -> list[int]:
    """Return the labels of the classes asked for, in the source's order; of all where none are."""
    known = set(class_names)
    for name in classes:
        if name not in known:
            raise ConfigError(
                f"data.classes has '{name}', which is none of the {len(known)} classes of the source"
                f"{nearest(name, known) or '; they are ' + ', '.join(sorted(known)[:5]) + (', ...' if len(known) > 5 else '')}"
            )
    asked = set(classes)
    return [label for label, name in enumerate(class_names) if not asked or name in asked]


def _relabelled(table: pa.Table, wanted: Sequence[int], count: int) -> pa.Table:
    if len(wanted) == count:
        return table
    new = np.full(count, -1, np.int32)
    new[np.array(wanted, int)] = np.arange(len(wanted))
    labels = new[_labels(table)]
    place = SCHEMA.get_field_index("label")
    return table.set_column(place, "label", pa.array(labels)).filter(pa.array(labels >= 0)).combine_chunks()


def _limited(table: pa.Table, limit: int) -> pa.Table:
    """Return the images sorted by id: all, or ``limit`` taken from the classes in turn."""
    if not limit or table.num_rows <= limit:
        return table
    labels = _labels(table)
    turns = _turns(labels, np.argsort(labels, kind="stable"))
    chosen = np.sort(np.lexsort((labels, turns))[:limit])
    return table.take(pa.array(chosen)).combine_chunks()
