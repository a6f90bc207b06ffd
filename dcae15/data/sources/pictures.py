"""Which files of a folder are pictures: suffixes that everybody knows save a look, else the first bytes decide."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from dcae15 import storage
from dcae15.data import formats
from dcae15.data.sources.beside import masked
from dcae15.data.sources.leaving import LeftOut, leave, suffix_of
from dcae15.errors import StorageError
from dcae15.storage import FileInfo

SUFFIXES = (
    *(".jpeg", ".jpg", ".jfif", ".jpe", ".png", ".apng", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff"),
    *(".avif", ".heic", ".heif", ".hif", ".jp2", ".j2k", ".jpf", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm"),
)
"""Suffixes of files that are pictures, as far as a name can tell."""
FOREIGN = (
    *(".psd", ".jxl", ".exr", ".hdr", ".svg", ".eps", ".ico", ".tga", ".xcf"),
    *(".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2", ".pef", ".srw"),
)
"""Suffixes of pictures that are not read; they are named as such, each by its contents, when they are decoded."""
ARCHIVES = frozenset((".zip", ".rar", ".7z", ".gz", ".tgz", ".bz2", ".xz", ".zst"))
"""Suffixes of files that may hold pictures, and must be unpacked first."""
_OTHERS = frozenset(
    (
        *(".txt", ".md", ".rst", ".json", ".jsonl", ".csv", ".tsv", ".xml", ".yaml", ".yml", ".html", ".htm"),
        *(".css", ".js", ".py", ".ipynb", ".sh", ".bat", ".log", ".pkl", ".pickle", ".npy", ".npz", ".pt"),
        *(".pth", ".ckpt", ".safetensors", ".h5", ".hdf5", ".mat", ".parquet", ".arrow", ".feather", ".tar"),
        *(".gz", ".tgz", ".zip", ".rar", ".7z", ".bz2", ".xz", ".zst", ".db", ".sqlite", ".ini", ".cfg"),
        *(".toml", ".lock", ".pdf", ".doc", ".docx", ".xls", ".xlsx", ".ppt", ".pptx", ".mp4", ".mov"),
        *(".avi", ".mkv", ".webm", ".mp3", ".wav", ".flac", ".ogg", ".m4a", ".srt", ".aae", ".xmp", ".lnk"),
        *(".url", ".cls", ".tex", ".bib", ".c", ".h", ".cpp", ".java", ".go", ".rs", ".md5", ".sha256"),
        *(".idx", ".tfrecord", ".lmdb", ".mdb", ".part", ".crdownload"),
    )
)
_SYSTEM = frozenset(
    (
        *("@eadir", ".@__thumb", "@recycle", "#recycle", "#snapshot", "$recycle.bin", "lost+found", "__macosx"),
        *(".thumbnails", ".cache", ".trash", "system volume information"),
    )
)
_LOOKS = 64  # files of a folder and suffix that are looked at; where they agree, they speak for the others
_READERS = 16
_UNKNOWN = formats.format_of(b"")


def sort_files(uri: str, files: Sequence[FileInfo]) -> tuple[list[FileInfo], list[LeftOut], Counter[str]]:
    """Return the pictures of a folder, those that are left out by their place, and how many other files there are by suffix.

    Hidden files, and what systems keep in folders of their own (thumbnails, bins), are left out. So are pictures of formats that
    are not read, where a readable one of the same name lies beside them, as cameras do.
    """
    found: list[FileInfo] = []
    hidden, system, foreign = [], [], []
    unknown: dict[tuple[str, str], list[FileInfo]] = defaultdict(list)
    others: Counter[str] = Counter()
    for info in files:
        path, suffix = info.path, suffix_of(info.path)
        known = suffix in SUFFIXES or suffix in FOREIGN
        if is_system(path):
            system.append(path) if known else others.update([suffix])
        elif "/." in f"/{path}":
            hidden.append(path) if known else others.update([suffix])
        elif suffix in SUFFIXES:
            found.append(info)
        elif suffix in FOREIGN:
            foreign.append(info)
        elif suffix in _OTHERS or not info.size:
            others[suffix] += 1
        else:
            unknown[path.rpartition("/")[0], suffix].append(info)
    for (_, suffix), group in unknown.items():
        taken = _looked_at(uri, group)
        found += taken
        if len(taken) < len(group):
            others[suffix] += len(group) - len(taken)
    masks = {info.path: base for info in found if (base := masked(_stem(info.path)))}
    stems = {_stem(info.path) for info in found} if foreign or masks else set[str]()
    masks = [path for path, base in masks.items() if base in stems]
    if masks:
        known = set(masks)
        found = [info for info in found if info.path not in known]
    doubles = [info.path for info in foreign if _stem(info.path) in stems]
    found += [info for info in foreign if _stem(info.path) not in stems]
    left = [
        *leave("hidden files", hidden, expected=True),
        *leave("in folders that a system keeps for itself", system, expected=True),
        *leave("masks by their names, beside their picture", masks, expected=True),
        *leave("of a format that is not read, beside a readable picture of the same name", doubles, expected=True),
    ]
    return sorted(found, key=lambda info: info.path), left, others


def is_system(path: str) -> bool:
    """Tell whether a file lies in a folder that a system keeps for itself."""
    return "/" in path and not _SYSTEM.isdisjoint(path.lower().split("/")[:-1])


def is_picture(path: str, head: Callable[[], bytes]) -> bool:
    """Tell whether a file is a picture; ``head`` returns its first bytes, and is called where the name does not say it."""
    suffix = suffix_of(path)
    if suffix in SUFFIXES or suffix in FOREIGN:
        return True
    return suffix not in _OTHERS and formats.format_of(head()) != _UNKNOWN


def _looked_at(uri: str, group: list[FileInfo]) -> list[FileInfo]:
    """Return which files of one folder and suffix are pictures; of many some are looked at, and all where these disagree."""
    places = np.unique(np.linspace(0, len(group) - 1, _LOOKS).astype(int)).tolist()
    with ThreadPoolExecutor(_READERS) as pool:
        some = list(pool.map(lambda place: _is_picture(uri, group[place]), places))
        if all(some) or not any(some):
            return list(group) if all(some) else []
        every = pool.map(lambda info: _is_picture(uri, info), group)
        return [info for info, taken in zip(group, every, strict=True) if taken]


def _is_picture(uri: str, info: FileInfo) -> bool:
    try:
        head = storage.read_range(storage.join(uri, info.path), 0, min(info.size, formats.HEAD_BYTES))
    except StorageError:  # nobody can say; it counts among the other files
        return False
    return formats.format_of(head) != _UNKNOWN


def _stem(path: str) -> str:
    folder, slash, name = path.rpartition("/")
    return folder + slash + name.rpartition(".")[0]
