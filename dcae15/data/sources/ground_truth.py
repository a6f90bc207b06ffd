"""Files that say the classes of validation images, where these lie in one folder, as ImageNet's do."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

from dcae15 import storage
from dcae15.data.sources import devkit
from dcae15.data.sources.layout import Place
from dcae15.errors import DataError, StorageError

KAGGLE, TINY, SYNSETS = "LOC_val_solution.csv", "val_annotations.txt", "imagenet_2012_validation_synset_labels.txt"
NAMES = (KAGGLE, TINY, SYNSETS, devkit.DEVKIT, f"{devkit.FOLDER}/{devkit.TRUTH}")
"""Files that are known: of Kaggle, of Tiny ImageNet, of TensorFlow's, and the development kit, packed or not."""

_LEVELS = 4  # folders above the images that are looked into; Kaggle's file lies four above
_WNID = re.compile(r"n\d{8}")
_UNSAID = "of a class that no line says"


@dataclass(frozen=True)
class Truth:
    """The class of each validation image."""

    place: str  # the file
    classes: dict[str, str]  # class by the name of an image, without suffix

    def placed(self, path: str) -> Place:
        """Return what an image is; left out if the file does not know it."""
        name = self.classes.get(_stem(path.rpartition("/")[2]))
        if name is None:
            return Place("", reason=_UNSAID, mending=f"give {self.place} a line for each image")
        return Place("val", name, f"val/{name}")


def find(folders: Sequence[str]) -> Truth | None:
    """Return what the first known file in these folders says; None without one.

    Raises:
        DataError: it is there, and cannot be understood.
        StorageError: it is there, and cannot be read.
    """
    readers = {KAGGLE: _kaggle, TINY: _tiny, SYNSETS: _synsets}
    for folder in folders:
        for name, read in readers.items():
            place = storage.join(folder, name)
            if _exists(place):
                return Truth(place, read(storage.read_bytes(place), place))
        for place in (storage.join(folder, devkit.DEVKIT), storage.join(folder, devkit.FOLDER), folder):
            packed = place.endswith(devkit.DEVKIT)
            if _exists(place if packed else storage.join(place, devkit.TRUTH)):
                kit = devkit.read_devkit(storage.read_bytes(place), place) if packed else devkit.read_folder(place)
                return Truth(kit.place, _numbered([kit.wnid(i) for i in range(len(kit.truth))]))
    return None


def upwards(folder: str) -> list[str]:
    """Return a folder and those above it in which a file for its images may lie."""
    found = [folder]
    while len(found) <= _LEVELS:
        head, _, name = found[-1].rpartition("/")
        if not name or not head or head.endswith("/"):
            break
        found.append(head)
    return found


def _kaggle(data: bytes, place: str) -> dict[str, str]:
    rows = list(csv.reader(io.StringIO(_text(data, place))))
    found = {_stem(row[0]): row[1].split(" ")[0] for row in rows[1:] if len(row) > 1}
    return _checked(found, place, "ImageId,PredictionString with a WordNet id first")


def _tiny(data: bytes, place: str) -> dict[str, str]:
    rows = [line.split("\t") for line in _text(data, place).splitlines() if line.strip()]
    return _checked({_stem(row[0]): row[1] for row in rows if len(row) > 1}, place, "a file name, a tab, a WordNet id")


def _synsets(data: bytes, place: str) -> dict[str, str]:
    return _checked(_numbered(_text(data, place).split()), place, "a WordNet id")


def _numbered(names: Sequence[str]) -> dict[str, str]:
    return {f"ILSVRC2012_val_{i:08d}": name for i, name in enumerate(names, 1)}


def _checked(found: dict[str, str], place: str, expected: str) -> dict[str, str]:
    wrong = next(((image, name) for image, name in found.items() if not _WNID.fullmatch(name)), None)
    if wrong or not found:
        what = f"'{wrong[1]}' for '{wrong[0]}'" if wrong else "no line of that kind"
        raise DataError(f"{place} has {what}; expected {expected} in each line. Fetch it again, or take it away.")
    return found


def _text(data: bytes, place: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{place} is not a UTF-8 text ({error}). Fetch it again, or take it away.") from error


def _exists(place: str) -> bool:
    try:
        return storage.exists(place)
    except StorageError:  # folders above the source may be closed to us
        return False


def _stem(name: str) -> str:
    stem, dot, _ = name.rpartition(".")
    return stem if dot else name
