"""A list of images: a CSV or Parquet file with the column uri, and if you like label, split, id and caption."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dcae15 import storage
from dcae15.data.sources import common, labels
from dcae15.data.sources.common import Listing, Selection, Source, pc
from dcae15.data.sources.leaving import LeftOut, leave
from dcae15.data.sources.splits import word as split_word
from dcae15.errors import DataError

_COLUMNS = ("uri", "label", "split", "id", "caption")
_LABEL = "give each a label, or set data.labels=none to take all images as one class"
_WEB = re.compile(r"https?://", re.IGNORECASE)
_COLUMN = {**{name: name for name in _COLUMNS}, "text": "caption", "class": "label"}
_PATHS = ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "img", "url")
_EXPECTED = "uri, and if you like label, split (train, val or validation; test is left out), id and caption"


def assemble(listing: Listing, tables: Sequence[pa.Table], selection: Selection) -> Source:
    """Read the list. An image's id is that of the column ``id``, else its uri as it is written, without a query.

    Rows of ``test`` are left out, whatever they hold. Relative uris are below the list's folder. Labels are numbers or
    names; class names come from a ``classes.txt`` beside the list, else from the labels. Without labels all images are one class.
    Whether the files exist shows when they are read.

    Raises:
        DataError: the file is damaged, lacks columns, or a row is wrong; the row is named, the first below the header being 1.
    """
    uri = listing.uri
    table, columns = _read(uri)
    total = table.num_rows
    if not total:
        raise DataError(f"{uri} lists no images: it has no rows.")

    splits = _splits(table, uri)
    used = kept = np.flatnonzero(splits != "test")
    table, splits = table.take(pa.array(kept)), splits[kept]

    def where(row: int) -> str:
        return f"{uri}: row {kept[row] + 1}"

    if table.column("uri").null_count:
        raise DataError(f"{where(int(np.flatnonzero(table.column('uri').is_null().to_numpy())[0]))} has no uri.")
    places, folder = table.column("uri").to_pylist(), uri.rpartition("/")[0] or "/"
    ids = [_without_query(place) for place in places]
    if "id" in table.column_names:
        ids = [own or place for own, place in zip(table.column("id").to_pylist(), ids, strict=True)]
    left: list[LeftOut] = []
    if (
        "label" in table.column_names
        and table.column("label").null_count < table.num_rows
        and selection.labels != "none"
    ):
        said = table.column("label").is_valid().to_numpy()
        left = leave("images without a label", [ids[row] for row in np.flatnonzero(~said)], _LABEL)
        kept, splits, table = kept[said], splits[said], table.filter(pa.array(said))
        places, ids = ([values[row] for row in np.flatnonzero(said)] for values in (places, ids))
        given = labels.read_names(
            folder, [common.FileInfo(name, 0) for name in labels.NAME_FILES if storage.exists(f"{folder}/{name}")]
        )
        digits, words = labels.numbers_or_names(table.column("label"))
        classes = labels.assign(uri, digits, words, given, where)
    else:
        given, words = (), table.column("uri")
        classes = labels.unlabelled(len(ids))
    names = classes.names
    uris = [_absolute(folder, place, where(row)) for row, place in enumerate(places)]
    captions = table.column("caption") if "caption" in table.column_names else None
    rows = common.rows(ids, classes.labels, uris, [-1] * len(ids), [-1] * len(ids), captions=captions)
    images = {name: rows.filter(pa.array(splits == name)) for name in ("train", "val")}
    if not images["train"].num_rows:
        raise DataError("; ".join([f"{uri} lists no images whose split is train.", *map(str, left)]))
    if not images["val"].num_rows:
        del images["val"]
    elif not given and not words.null_count:
        found = {s: [names[label] for label in pc.unique(t.column("label")).to_pylist()] for s, t in images.items()}
        common.require_known(uri, found["train"], found["val"], place="its split val")
    others = {"rows of test": total - len(used)} if total > len(used) else {}
    notes = [*classes.notes, *([f"columns that are not read: {', '.join(columns)}"] if columns else [])]
    return common.select(listing, names, images, selection, left, others, notes)


def columns_of(uri: str) -> list[str]:
    """Return the names of a Parquet file's columns. Raises DataError: it is no Parquet file."""
    try:
        with storage.open_range(uri, 0, storage.file_info(uri).size, 64 << 10) as file:
            return pq.read_schema(file).names
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{uri} is no Parquet file, damaged or cut off ({error}). Fetch it again.") from error


def _read(uri: str) -> tuple[pa.Table, list[str]]:
    """Return the known columns of the list, and the names of the others."""
    data = storage.read_bytes(uri)
    try:
        if uri.lower().endswith(".parquet"):
            table = pq.read_table(io.BytesIO(data))
        else:
            text = {name: pa.string() for name in _COLUMNS}
            table = pyarrow.csv.read_csv(
                io.BytesIO(data),
                parse_options=pyarrow.csv.ParseOptions(
                    delimiter="\t" if uri.lower().endswith(".tsv") else ",", newlines_in_values=True
                ),
                convert_options=pyarrow.csv.ConvertOptions(
                    column_types=text, strings_can_be_null=True, null_values=[""], quoted_strings_can_be_null=True
                ),
            )
    except pa.ArrowException as error:
        coded = data[:2] in (b"\xff\xfe", b"\xfe\xff") or "UTF8" in str(error)
        advice = "; save it as UTF-8, with commas between the columns" if coded else ""
        raise DataError(f"{uri} cannot be read as a list of images: {error}{advice}") from error
    table = table.rename_columns([_COLUMN.get(name.strip().lower(), name) for name in table.column_names])
    twice = next((name for name in _COLUMNS if table.column_names.count(name) > 1), "")
    if twice:
        raise DataError(f"{uri} has the column {twice} more than once: keep one of them.")
    if "uri" not in table.column_names:
        found = ", ".join(table.column_names) or "none"
        path = next((name for name in table.column_names if name.strip().lower() in _PATHS), "")
        advice = (
            f" Rename '{path}' to uri."
            if path
            else " Separate columns by commas."
            if ";" in found or "\t" in found
            else ""
        )
        raise DataError(f"{uri} lacks the column uri: found {found}; expected {_EXPECTED}.{advice}")
    for name in table.column_names:
        if name not in _COLUMNS and "split" not in table.column_names and _says_splits(table.column(name)):
            raise DataError(f"{uri} has words for splits in the column '{name}': rename it to split, or take it away.")
    others = [name for name in table.column_names if name not in _COLUMNS]
    table = table.select([name for name in _COLUMNS if name in table.column_names])
    for i, f in enumerate(table.schema):
        integers = f.name == "label" and pa.types.is_integer(f.type)
        column = table.column(i)
        if pa.types.is_floating(f.type):
            column = pc.if_else(pc.is_nan(column), pa.scalar(None, f.type), column)
        try:
            column = column.cast(pa.int64() if integers else pa.string())
            if f.name in ("label", "split") and not integers:
                column = pc.utf8_trim_whitespace(column)
                column = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
            table = table.set_column(i, f.name, column)
        except pa.ArrowException as error:
            raise DataError(
                f"{uri} has {f.type} in the column {f.name}; expected text{' or numbers' if f.name == 'label' else ''}."
            ) from error
    return table, others


def _says_splits(column: pa.ChunkedArray) -> bool:
    """Tell whether a column holds nothing but words for splits, and more than one."""
    if not pa.types.is_string(column.type):
        return False
    words = [split_word((text or "").strip()) for text in pc.unique(column).to_pylist()]
    return len(set(words)) > 1 and all(words)


def _splits(table: pa.Table, uri: str) -> NDArray[np.object_]:
    """Return train, val or test of each row; train where the list does not say."""
    if "split" not in table.column_names:
        return np.full(table.num_rows, "train", object)
    said = table.column("split").to_pylist()
    meaning = {text: split_word(text or "") for text in set(said)}
    for row, text in enumerate(said, 1):
        if not meaning[text]:
            what = "no split" if text is None else f"the split '{text}'"
            raise DataError(f"{uri}: row {row} has {what}; use train, val, validation or test.")
    return np.array([meaning[text] for text in said], object)


def _without_query(place: str) -> str:
    """Return a web address without what follows its path: the signature of a presigned one is a secret, and changes."""
    return re.split(r"[?#]", place, maxsplit=1)[0] if _WEB.match(place) else place


def _absolute(folder: str, place: str, where: str) -> str:
    if "://" in place or place.startswith("/"):
        return place
    place = "/".join(part for part in place.split("/") if part != ".")
    if ".." in place.split("/"):
        raise DataError(f"{where} has the uri '{place}', which leaves the list's folder: write the whole path.")
    return storage.join(folder, place)
