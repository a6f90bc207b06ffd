"""The development kit of ILSVRC 2012: the classes of the validation images, packed or in a folder."""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass

import numpy as np

from dcae15 import storage
from dcae15.errors import DataError

DEVKIT, FOLDER = "ILSVRC2012_devkit_t12.tar.gz", "ILSVRC2012_devkit_t12/data"
TRUTH, SYNSETS = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"

_COUNT = "num_train_images"


@dataclass(frozen=True)
class DevelopmentKit:
    """What the development kit says."""

    place: str  # where it is, for messages
    wnids: dict[int, str]  # the WordNet id of each ILSVRC2012_ID
    truth: list[int]  # the ILSVRC2012_ID of each validation image
    counts: dict[str, int]  # training images of each WordNet id; empty if it does not say

    def wnid(self, image: int) -> str:
        """Return the WordNet id of a validation image, counted from 0. Raises DataError: its class is unknown."""
        number = self.truth[image]
        if number not in self.wnids:
            raise DataError(
                f"{TRUTH} in {self.place} has the class {number} in line {image + 1}, which data/{SYNSETS} lacks."
            )
        return self.wnids[number]


def read_devkit(data: bytes, place: str) -> DevelopmentKit:
    """Read the packed development kit. Raises DataError: it is damaged, or something is missing."""
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:*") as tar:
            files = {member.name: member for member in tar if member.isfile()}
            content = []
            for wanted in (SYNSETS, TRUTH):
                name = next((name for name in files if f"/{name}".endswith(f"/data/{wanted}")), None)
                file = tar.extractfile(files[name]) if name else None
                if file is None:
                    raise DataError(
                        f"{place} lacks data/{wanted}: this is not the development kit of ILSVRC 2012 (tasks 1 and 2)."
                    )
                content.append(file.read())
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{place} is no tar file, damaged or cut off ({error}). Fetch it again.") from error
    return _kit(content[0], content[1], place)


def read_folder(folder: str) -> DevelopmentKit:
    """Read the two files of the unpacked development kit in a folder.

    Raises:
        DataError: they are damaged.
        StorageError: one is missing, or cannot be read.
    """
    meta, truth = (storage.read_bytes(storage.join(folder, name)) for name in (SYNSETS, TRUTH))
    return _kit(meta, truth, folder)


def _kit(meta: bytes, truth: bytes, place: str) -> DevelopmentKit:
    from scipy.io import loadmat  # slow to import, and needed here only

    try:
        synsets = np.atleast_1d(loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"])
        wnids = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets}
        counted = _COUNT in (synsets.dtype.names or ())
        counts = {str(row["WNID"]): int(row[_COUNT]) for row in synsets} if counted else {}
    except Exception as error:  # damaged bytes make the parser raise almost anything
        raise DataError(
            f"{SYNSETS} in {place} cannot be read ({type(error).__name__}: {error}). Fetch it again."
        ) from error
    try:
        return DevelopmentKit(place, wnids, [int(line) for line in truth.split()], counts)
    except ValueError as error:
        raise DataError(f"{TRUTH} in {place} is not one number a line ({error}). Fetch it again.") from error
