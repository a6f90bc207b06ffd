"""Sources: which images there are, their classes and splits, and where their bytes lie, for every layout that we know.

A source is opened in three steps, so that the second can run on many machines: `find` lists it, `index` looks into one of its
containers (tars, Parquet files), and `assemble` joins the indexes. Folders and lists have no containers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from dcae15 import storage
from dcae15.data.sources import folder, imagenet_tars, labels, listed, parquet, splits, webdataset
from dcae15.data.sources.common import (
    SCHEMA,
    Container,
    Listing,
    Selection,
    Source,
    deal,
    rows,
    take,
)
from dcae15.data.sources.containers import COMPRESSED, require_one_set, split_containers
from dcae15.data.sources.imagenet_tars import Remember
from dcae15.data.sources.leaving import LeftOut, leave, suffix_of
from dcae15.data.sources.pictures import ARCHIVES, SUFFIXES, sort_files
from dcae15.errors import ConfigError, DataError
from dcae15.storage import FileInfo

_READERS: dict[str, Any] = {
    "folder": folder,
    "imagenet_tars": imagenet_tars,
    "parquet": parquet,
    "webdataset": webdataset,
    "list": listed,
}
"""A module for each kind: ``assemble`` makes a source; ``index`` looks into a container, where the kind has any."""
KINDS = tuple(_READERS)

_LISTS = (".csv", ".tsv", ".parquet")
_TARS = (".tar", *COMPRESSED)
_CONTAINERS: dict[str, tuple[str, ...]] = {"parquet": (".parquet",), "webdataset": _TARS}


def find(uri: str, kind: str = "auto", remember: Remember = lambda tar, make: make(tar)) -> Listing:
    """List a source and say what kind it is.

    ``remember`` keeps the index of a tar of tars, see `imagenet_tars.containers`.

    Raises:
        ConfigError: the kind is unknown, or more than one fits and nobody said which.
        DataError: nothing is there, or not what the kind needs.
        StorageError: it cannot be listed.
    """
    if kind not in ("auto", *KINDS):
        raise ConfigError(f"data.kind is '{kind}'; use auto, {', '.join(KINDS)}.")
    uri = storage.resolve(uri)
    if uri.lower().endswith((*_LISTS, *_TARS)):
        return _find_file(uri, kind)
    files = tuple(storage.list_files(uri))
    if not files:
        _require_folder(uri)
    if kind == "list":
        raise ConfigError(
            f"data.kind is 'list', but data.source {uri} is no .csv, .tsv or .parquet file: name the list itself."
        )
    kind = _kind_of(uri, files) if kind == "auto" else kind
    return _listing(uri, kind, files, remember)


def index(container: Container) -> pa.Table:
    """Look into a container: what `assemble` needs to know about each of its images.

    Raises:
        DataError: the container is damaged, cut off, or of another layout.
        StorageError: it cannot be read.
    """
    return _READERS[container.kind].index(container)


def assemble(listing: Listing, tables: Sequence[pa.Table], selection: Selection) -> Source:
    """Make a source of a listing and the indexes of its containers, in their order.

    Raises:
        ConfigError: a class that was asked for is unknown.
        DataError: no images, or labels, classes and splits that contradict each other; the place is named.
    """
    if listing.containers and listing.kind != "imagenet_tars" and not selection.join:
        require_one_set(listing.uri, listing.containers)
    return _READERS[listing.kind].assemble(listing, tables, selection)


def _find_file(uri: str, kind: str) -> Listing:
    """List a source that is one file."""
    if uri.lower().endswith(_TARS):
        fits = "webdataset"
    elif uri.lower().endswith(".parquet"):
        fits = kind if kind in ("list", "parquet") else "list" if "uri" in listed.columns_of(uri) else "parquet"
    else:
        fits = "list"
    if uri.rpartition("/")[2] in imagenet_tars.FILES:
        raise ConfigError(
            f"data.source {uri} is one of the three files of ILSVRC 2012: name the folder that holds them."
        )
    if kind not in ("auto", fits):
        raise ConfigError(f"data.kind is '{kind}', but data.source {uri} is a file for '{fits}'.")
    if fits == "list":
        return Listing(uri, fits, ())
    files = (storage.file_info(uri),)
    return Listing(uri, fits, files, tuple(split_containers(fits, uri, files)))


def _require_folder(uri: str) -> None:
    """Raise DataError when a source that holds no files is a file, or is not there."""
    name = uri.rpartition("/")[2]
    if storage.exists(uri):
        packed = " Unpack it, and name the folder." if suffix_of(name) in ARCHIVES else ""
        raise DataError(
            f"data.source {uri} is a file of no known kind. Expected a folder, or one of {', '.join((*_LISTS, '.tar'))}.{packed}"
        )
    if not (storage.is_remote(uri) or Path(uri).is_dir()):
        raise DataError(f"data.source {uri} does not exist: there is no such file or folder.")


def _kind_of(uri: str, files: Sequence[FileInfo]) -> str:
    """Return the kind of a folder by what it holds."""
    names = {info.path for info in files}
    if imagenet_tars.TRAIN in names or imagenet_tars.VAL in names:
        return "imagenet_tars"
    found = {kind: [p for p in names if _is(p, kind)] for kind in ("folder", *_CONTAINERS)}
    packed = {path for path in found["webdataset"] if path.lower().endswith(COMPRESSED)}
    if len(packed) == sum(map(len, found.values())):  # nothing else has a telling name
        found["folder"] = [info.path for info in sort_files(uri, files)[0]]
    if found["folder"]:  # compressed tars cannot be read: the images were unpacked from them, or they say the classes
        found["webdataset"] = [path for path in found["webdataset"] if path not in packed]
    fits = [kind for kind, paths in found.items() if paths]
    if len(fits) > 1:
        examples = ", ".join(f"{kind} ('{min(found[kind])}')" for kind in fits)
        raise ConfigError(f"data.source {uri} could be {examples}: say which one you mean with data.kind=...")
    lists = [] if fits else sorted(name for name in names if name.lower().endswith(_LISTS))
    if lists:
        raise ConfigError(
            f"data.source {uri} holds no images; if '{lists[0]}' lists them, use data.source={uri}/{lists[0]}"
        )
    return fits[0] if fits else "folder"


def _is(path: str, kind: str) -> bool:
    if "/." in f"/{path}":
        return False
    return suffix_of(path) in SUFFIXES if kind == "folder" else path.lower().endswith(_CONTAINERS[kind])


def _listing(uri: str, kind: str, files: tuple[FileInfo, ...], remember: Remember) -> Listing:
    if kind == "folder":
        return Listing(uri, kind, files)
    if kind == "imagenet_tars":
        others = Counter(suffix_of(info.path) for info in files if info.path not in imagenet_tars.FILES)
        return Listing(uri, kind, files, tuple(imagenet_tars.containers(uri, files, remember)), others=others)
    suffixes = _CONTAINERS[kind]
    wanted = [info for info in files if _is(info.path, kind)]
    if not wanted:
        raise DataError(
            f"'{uri}' holds no {suffixes[0]} files, which data.kind={kind} needs: {len(files)} files are there."
        )
    containers = split_containers(kind, uri, wanted)
    known = {info.path for info in wanted}
    beside = [info.path for info in files if info.path not in known and info.path not in labels.NAME_FILES]
    pictures = [path for path in beside if _is(path, "folder")]
    left = leave(f"beside the {suffixes[0]} files", pictures, expected=True)
    tests = [info.path for info in wanted if splits.of_file(info.path) == "test"]
    more = f" and {len(tests) - 3:,} more" if len(tests) > 3 else ""
    notes = (f"left out as files of test: {', '.join(tests[:3])}{more}",) if tests else ()
    others = Counter(map(suffix_of, beside)) - Counter(map(suffix_of, pictures))
    return Listing(uri, kind, files, tuple(containers), tuple(left), others, notes)
