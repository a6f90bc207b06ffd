"""Hugging Face's Parquet layout of image datasets: columns ``image: struct<bytes, path>`` and ``label``.

Row groups are compressed, so a row costs as much as its group. Hence indexing reads the labels and names only, and the images
are either read in the order of the file (`read_rows`), or copied once into plain files of which any part can be read (`unpack`).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dcae15 import storage
from dcae15.data.sources import common, labels
from dcae15.data.sources.common import Container, Listing, Selection, Source, pc
from dcae15.data.sources.containers import by_split, joined
from dcae15.data.sources.leaving import LeftOut, leave
from dcae15.errors import DataError, StorageError

PACK_BYTES = 64 << 20

_AHEAD = 64 << 10  # columns are read in pieces, and most of a file is skipped
_PAGES = 1 << 20  # a column is read page by page: a row group may be as large as the file
_BATCH = 32  # images decompressed at once
_EXPECTED = (
    "image: struct<bytes: binary, path: string>, and if you like label: int64 or string, and caption or text: string"
)
_CAPTIONS = ("caption", "text")
_LABEL = "give each a label, or set data.labels=none to take all images as one class"
_INDEX = pa.schema({"name": pa.string(), "label": pa.int64(), "text": pa.string(), "caption": pa.string()})
_WNID = (
    r"^(?P<stem>.+)_(?P<wnid>n\d{8})(?P<suffix>\.[A-Za-z]+)$"  # names in Hugging Face's imagenet-1k end with the class
)


def index(container: Container) -> pa.Table:
    """Return name, label (number or text) and caption of each row, null where it has none; the images are not read.

    The table's metadata holds the class names that the file states, as JSON.

    Raises:
        DataError: the file is damaged, or has another schema.
    """
    with _opened(container.uri, container.size) as file:
        schema = file.schema_arrow
        image = schema.field("image").type if "image" in schema.names else None
        fields = {f.name: f.type for f in image} if image is not None and pa.types.is_struct(image) else {}
        binary = "bytes" in fields and (
            pa.types.is_binary(fields["bytes"]) or pa.types.is_large_binary(fields["bytes"])
        )
        named = _class_label(schema.metadata)
        label = "label" if "label" in schema.names or named not in schema.names else named
        kind = _plain(schema.field(label).type) if label in schema.names else pa.int64()
        if not binary or not (pa.types.is_integer(kind) or _is_text(kind)):
            found = ", ".join(f"{f.name}: {f.type}" for f in schema)
            raise DataError(
                f"{container.name} has the columns {found}; expected {_EXPECTED}, as in Hugging Face's imagenet-1k."
            )
        caption = next((n for n in _CAPTIONS if n in schema.names and _is_text(_plain(schema.field(n).type))), "")
        columns = [
            *(["image.path"] if "path" in fields else []),
            *([label] if label in schema.names else []),
            *([caption] if caption else []),
        ]
        table = file.read(columns=columns, use_threads=False)
        names, count = _stated_names(schema.metadata, label), file.metadata.num_rows
        others = [name for name in schema.names if name not in ("image", label, caption)]
        said = table.column(label).cast(kind) if label in schema.names else None
        rows = {
            "name": pc.struct_field(table.column("image"), "path") if "path" in fields else None,
            "label": _known(said.cast(pa.int64()), names) if said is not None and pa.types.is_integer(kind) else None,
            "text": _filled(said.cast(pa.string())) if said is not None and _is_text(kind) else None,
            "caption": table.column(caption).cast(pa.string()) if caption else None,
        }
        found = pa.table(
            {f.name: pa.nulls(count, f.type) if rows[f.name] is None else rows[f.name] for f in _INDEX}, _INDEX
        )
    return found.replace_schema_metadata({"names": json.dumps(names), "others": json.dumps(others)})


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _known(numbers: pa.ChunkedArray, names: Sequence[str]) -> pa.ChunkedArray:
    """Return labels with null for -1 where classes have names: that is how the hub writes that there is none."""
    return pc.if_else(pc.equal(numbers, -1), pa.scalar(None, pa.int64()), numbers) if names else numbers


def _filled(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(pc.equal(pc.utf8_trim_whitespace(texts), ""), pa.scalar(None, pa.string()), texts)


def _class_label(metadata: dict[bytes, bytes] | None) -> str:
    """Return the name of the one column that the metadata call a class label; "" for none or several."""
    features = _features(metadata)
    found = [
        name for name, feature in features.items() if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
    ]
    return found[0] if len(found) == 1 else ""


def assemble(listing: Listing, tables: Sequence[pa.Table], selection: Selection) -> Source:
    """Join the indexes, name the classes, and give each image an id. Images are at (file, row), with size -1.

    Class names are those that the files state. Where every image's name ends with a WordNet id, as in ImageNet's, class
    names are these ids, and names the original ones. An id is ``split/class/name``; where names are missing or occur twice,
    the file's name and the row number stand for all names.

    Raises:
        DataError: files state different class names, a label is out of range, or labels and WordNet ids contradict each other.
    """
    stated = [tuple(json.loads(table.schema.metadata[b"names"])) for table in tables]
    for container, names in zip(listing.containers, stated, strict=True):
        if names != stated[0]:
            raise DataError(
                f"{container.name} states other class names than {listing.containers[0].name}: they belong to different sets."
            )
    tables = [table.append_column("row", pa.array(np.arange(table.num_rows))) for table in tables]
    left: list[LeftOut] = []
    if selection.labels != "none":
        tables, left = _with_labels(listing, tables)
    table, container_of = joined(listing, tables)

    def where(row: int) -> str:
        return f"{container_of(row)[0].name}: row {table.column('row')[row].as_py()}"

    files, wnids = _original_names(table.column("name"))
    numbers, texts = table.column("label"), table.column("text")
    if selection.labels == "none" or (numbers.null_count == texts.null_count == table.num_rows and wnids is None):
        classes = labels.unlabelled(table.num_rows)
    elif numbers.null_count == texts.null_count == table.num_rows:
        classes = labels.assign(listing.uri, numbers, pa.chunked_array([wnids]), (), where)
    else:
        given = stated[0] or labels.read_names(listing.uri, listing.files)
        classes = labels.assign(listing.uri, numbers, texts, given, where)
        if wnids is not None and not numbers.null_count:
            used = np.unique(numbers.to_numpy()).tolist()
            named = labels.names_beside(used, classes.labels, pa.chunked_array([wnids]), where, classes.names)
            classes = replace(classes, names=named)
    names = classes.names
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise DataError(f"{listing.containers[0].name} states the class name '{twice}' twice: rename one.")
    rows = [table.column("row").to_numpy() for table in tables]
    numbered = [
        pa.array([f"{c.stem}/{row:08d}" for row in own.tolist()], pa.string())
        for c, own in zip(listing.containers, rows, strict=True)
    ]
    starts = np.cumsum([0, *(t.num_rows for t in tables)]).tolist()
    named = [files[start:stop] for start, stop in itertools.pairwise(starts)]
    places = [(own, np.full(len(own), -1)) for own in rows]
    captions = [t.column("caption") for t in tables]
    ids = [numbered] if files.null_count else [named, numbered]
    splits = by_split(listing.containers, names, classes.labels, places, ids, captions)
    columns = sorted({name for t in tables for name in json.loads(t.schema.metadata[b"others"])})
    notes = [*classes.notes, *([f"columns that are not read: {', '.join(columns)}"] if columns else [])]
    return common.select(listing, names, splits, selection, left, listing.others, notes)


def _with_labels(listing: Listing, tables: Sequence[pa.Table]) -> tuple[list[pa.Table], list[LeftOut]]:
    """Return the rows that have a label, and those that are left out because others have one."""
    masks = [pc.or_(pc.is_valid(t.column("label")), pc.is_valid(t.column("text"))) for t in tables]
    if not any(pc.any(mask).as_py() for mask in masks):
        return list(tables), []
    bare = [
        f"{container.name}: row {row}"
        for container, t, mask in zip(listing.containers, tables, masks, strict=True)
        for row in t.filter(pc.invert(mask)).column("row").to_pylist()
    ]
    kept = [t.filter(mask) for t, mask in zip(tables, masks, strict=True)]
    return kept, leave("without a label, beside others that have one", bare, _LABEL, noun="row")


def read_rows(uri: str, rows: NDArray[np.integer]) -> Iterator[bytes]:
    """Yield the images in the given rows of a file, which are ascending; nothing for a row without bytes.

    Memory holds some tens of images and a page of the file, whatever the size of the file and of its row groups.

    Raises:
        DataError: the file is damaged.
    """
    with _opened(uri, storage.file_info(uri).size) as file:
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
        starts = np.cumsum([0, *sizes])
        if len(rows) and rows[-1] >= starts[-1]:
            raise DataError(f"{uri} has {starts[-1]} rows, fewer than when it was listed: run again.")
        for group in np.unique(np.searchsorted(starts, rows, side="right") - 1).tolist():
            wanted = rows[(rows >= starts[group]) & (rows < starts[group + 1])] - starts[group]
            begin = 0
            for batch in file.iter_batches(_BATCH, row_groups=[group], columns=["image.bytes"], use_threads=False):
                here = wanted[(wanted >= begin) & (wanted < begin + batch.num_rows)] - begin
                begin += batch.num_rows
                column = batch.column(0).field("bytes")
                for row in here.tolist():
                    yield column[row].as_py() or b""


def unpack(images: pa.Table, root: str, name: str) -> pa.Table:
    """Copy images out of Parquet files into plain files ``root/name-000000.pack`` of some 64 MiB; return where they are now.

    Raises:
        DataError: the Parquet file is damaged.
        StorageError: a plain file cannot be written.
    """
    uris, offsets, sizes = [], [], []
    pending: list[bytes] = []
    part, filled = 0, 0

    def flush() -> None:
        nonlocal part, filled
        if pending:
            storage.write_bytes(storage.join(root, f"{name}-{part:06d}.pack"), b"".join(pending))
            pending.clear()
            part, filled = part + 1, 0

    for data in read_rows(str(images.column("uri")[0]), images.column("offset").to_numpy()):
        if filled and filled + len(data) > PACK_BYTES:
            flush()
        uris.append(storage.join(root, f"{name}-{part:06d}.pack"))
        offsets.append(filled)
        sizes.append(len(data))
        pending.append(data)
        filled += len(data)
    flush()
    return common.rows(images.column("id"), images.column("label"), uris, offsets, sizes, images.column("state"))


@contextmanager
def _opened(uri: str, size: int) -> Iterator[pq.ParquetFile]:
    """Open a file so that columns and row groups are read in parts; damage shows as DataError, also while it is read."""
    try:
        with storage.open_range(uri, 0, size, _AHEAD) as raw:
            yield pq.ParquetFile(raw, buffer_size=_PAGES, pre_buffer=False)
    except StorageError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{uri} is no Parquet file, damaged or cut off ({error}). Fetch it again.") from error


def _features(metadata: dict[bytes, bytes] | None) -> dict[str, object]:
    """Return the features that Hugging Face's ``datasets`` writes into the metadata; {} without."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return features if isinstance(features, dict) else {}


def _stated_names(metadata: dict[bytes, bytes] | None, label: str) -> list[str]:
    """Return the class names in the metadata; [] without."""
    feature = _features(metadata).get(label)
    names = feature.get("names") if isinstance(feature, dict) else None
    return [str(name) for name in names] if isinstance(names, list) else []


def _original_names(paths: pa.ChunkedArray) -> tuple[pa.ChunkedArray, pa.ChunkedArray | None]:
    """Return the file names, and the WordNet ids at their ends, which are taken off; None if a name has none."""
    files = pc.replace_substring_regex(paths, pattern=r"^.*/", replacement="")
    files = pc.if_else(pc.equal(files, ""), pa.scalar(None, pa.string()), files)
    parts = pc.extract_regex(files, _WNID)
    if not len(files) or parts.null_count:
        return files, None
    stem, wnid, suffix = (pc.struct_field(parts, name) for name in ("stem", "wnid", "suffix"))
    return pc.binary_join_element_wise(stem, suffix, ""), wnid
