"""A folder of image files: with splits, with classes, with both, or with neither; only files without a telling name are opened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa

from dcae15 import storage
from dcae15.data.sources import common, ground_truth, labels, layout
from dcae15.data.sources.common import Listing, Selection, Source, pc
from dcae15.data.sources.layout import Folder, Layout, Place
from dcae15.data.sources.leaving import LeftOut, counted, leave
from dcae15.data.sources.pictures import ARCHIVES, sort_files
from dcae15.errors import DataError
from dcae15.storage import FileInfo


def assemble(listing: Listing, tables: Sequence[pa.Table], selection: Selection) -> Source:
    """Sort the images of a folder into splits and classes, see `layout.arrange`.

    An image's id is its path below the folder; where folders say splits, it begins with ``train`` or ``val``, whatever the folder
    is called and wherever it lies. Validation images that lie in no folder of a class have the class that a file beside them says,
    see `ground_truth`, and the id as if they lay in that folder.

    Raises:
        DataError: no images there, or not in one of the layouts.
    """
    uri = listing.uri
    images, left, others = sort_files(uri, listing.files)
    if not images:
        found = "nothing is there"
        if listing.files:
            found = f"{len(listing.files):,} files are there ({counted(dict(others)) or 'all left out'})"
            found += "; unpack the archives first" if not ARCHIVES.isdisjoint(others) else ""
        raise DataError("; ".join([f"No images in '{uri}': {found}. Expected {layout.EXPECTED}.", *map(str, left)]))
    counts = Counter(info.path.rpartition("/")[0] for info in images)
    folders = {folder: tuple(folder.split("/")) if folder else () for folder in counts}
    found = layout.arrange(uri, {folders[f]: count for f, count in counts.items()}, selection.labels, selection.join)
    trained = {place.name for place in found.places.values() if place.split == "train"}
    truth = _truth(uri, found, trained)
    notes = [f"labels of the validation images: {truth.place}"] if truth else []
    rows: dict[str, _Rows] = {"train": _Rows(), "val": _Rows()}
    away: dict[Place, list[str]] = {}
    for info in images:
        place = found.places[folders[info.path.rpartition("/")[0]]]
        if truth and place.split == "val" and place.name not in trained:
            place = truth.placed(info.path)
        if place.split in rows:
            rows[place.split].add(info, place)
        else:
            away.setdefault(place, []).append(info.path)
    for place, paths in away.items():
        left += leave(place.reason or layout.OF_TEST, paths, place.mending, expected=not place.mending)
    if truth is None and found.labelled:
        left += rows["val"].without_few_unlabelled()
    if not rows["val"].names:
        del rows["val"]
    elif missing := rows["val"].unlabelled() if found.labelled else "":
        raise DataError(
            f"'{uri}' has class folders in train/, but images of val/ lie in none, for example '{missing}', and no "
            f"file says their classes ({', '.join(ground_truth.NAMES)}): move them into folders of classes, or take the folder "
            f"away to hold out a share of train/."
        )
    return _joined(listing, rows, selection, left, others, [f"layout: {found.form}", *found.notes, *notes])


class _Rows:
    """The images of a split."""

    def __init__(self) -> None:
        self.infos: list[FileInfo] = []
        self.names: list[str] = []
        self.ids: list[str] = []

    def add(self, info: FileInfo, place: Place) -> None:
        self.infos.append(info)
        self.names.append(place.name)
        self.ids.append(f"{place.path}/{info.path.rpartition('/')[2]}" if place.path else info.path)

    def without_few_unlabelled(self) -> list[LeftOut]:
        """Take away the images that lie in no folder of a class, if these are few; return them as left out."""
        loose = [i for i, name in enumerate(self.names) if not name]
        if len(loose) > layout.FEW * len(self.names):
            return []
        for i in reversed(loose):
            del self.names[i], self.ids[i]
        away = [self.infos.pop(i).path for i in reversed(loose)]
        return leave(layout.LOOSE, reversed(away), layout.LOOSE_MENDING)

    def unlabelled(self) -> str:
        """Return the path of the first image without a class; empty without."""
        return next((info.path for info, name in zip(self.infos, self.names, strict=True) if not name), "")


def _joined(
    listing: Listing,
    splits: dict[str, _Rows],
    selection: Selection,
    left: Sequence[LeftOut],
    others: Counter[str],
    notes: Sequence[str],
) -> Source:
    uri = listing.uri
    every = [name for rows in splits.values() for name in rows.ids]
    if len(set(every)) < len(every):  # several folders are of one split: names are different with them only
        for rows in splits.values():
            rows.ids = [info.path for info in rows.infos]
    if selection.labels == "auto" and set(splits["train"].names) == {layout.UNLABELLED} and _name_by_wnid(splits):
        notes = ["classes: the WordNet ids that all names of images begin with", *notes[1:]]
    names = {split: sorted(set(rows.names)) for split, rows in splits.items()}
    common.require_known(uri, names["train"], names.get("val", []))
    numbers = {name: label for label, name in enumerate(names["train"])}
    images = {}
    for split, rows in splits.items():
        paths = pa.array([info.path for info in rows.infos], pa.string())
        uris = pc.binary_join_element_wise(uri.rstrip("/"), paths, "/")
        sizes = [info.size for info in rows.infos]
        states = [common.state_of(info) for info in rows.infos]
        images[split] = common.rows(rows.ids, [numbers[n] for n in rows.names], uris, [-1] * len(sizes), sizes, states)
    return common.select(listing, names["train"], images, selection, left, dict(others), notes)


def _name_by_wnid(splits: dict[str, _Rows]) -> bool:
    """Take the WordNet ids in the names as classes, where all names of all splits have one (``n01440764_10026.JPEG``)."""
    found = {split: labels.wnids([info.path for info in rows.infos]) for split, rows in splits.items()}
    for split, rows in splits.items() if all(found.values()) else ():
        rows.names = list(found[split])
    return all(found.values())


def _truth(uri: str, found: Layout, trained: set[str]) -> ground_truth.Truth | None:
    """Return what says the classes of validation images that lie in no folder of a trained class."""
    vals: list[Folder] = [f for f, place in found.places.items() if place.split == "val" and place.name not in trained]
    if not (found.labelled and vals):
        return None
    own = storage.join(uri, *vals[0]) if vals[0] else uri
    return ground_truth.find(ground_truth.upwards(own))
