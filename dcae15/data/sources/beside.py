"""Folders beside those of the images that hold something else of them by their names: masks, annotations, thumbnails."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from dcae15.data.sources import splits

MASKS, THUMBNAILS = (
    "in folders of masks or annotations, by their names",
    "in folders of thumbnails or caches, by their names",
)

IMAGES = frozenset(
    ("images", "imgs", "img", "image", "jpegimages", "jpegs", "photos", "pictures", "rgb", "input", "inputs")
)
_MASK = (
    r"(?:segmentation|instance|semantic|panoptic)?[-_ ]?"
    r"(?:masks?|annot(?:ations?)?|labels?|trimaps?|ground[-_ ]?truth|gt|depth)"
)
_MASK_FOLDER = re.compile(rf"{_MASK}|segmentations?(?:class|object)?(?:aug)?", re.IGNORECASE)
_MASK_AFFIX = re.compile(rf"(.+?)[-_ ]?{_MASK}", re.IGNORECASE)
_MASK_STEM = re.compile(rf"(.+)[-_ ]{_MASK}(?:[-_ ]?\d+)?", re.IGNORECASE)
_DERIVED = frozenset(("thumb", "thumbs", "thumbnail", "thumbnails", "cache", "caches", "preview", "previews"))

Folder = tuple[str, ...]


def set_aside(folders: Iterable[Folder]) -> dict[Folder, str]:
    """Return the folders that are none of images, with the reason.

    Masks lie in a folder called so beside one called ``images``, or beside a split; thumbnails beside the pictures themselves.
    """
    own = set(folders)
    inner: dict[Folder, set[str]] = defaultdict(set)
    for folder in own:
        for depth, name in enumerate(folder):
            inner[folder[:depth]].add(name)
    away: dict[Folder, str] = {}
    for parent, names in inner.items():
        known = splits.of_folders(names)
        masks = {name for name in names if _MASK_FOLDER.fullmatch(name)}
        images = {name for name in names - masks if name.lower() in IMAGES}
        if (images and images | masks == names) or "train" in known.values():
            away |= {(*parent, name): MASKS for name in masks}
        away |= {
            (*parent, name): MASKS for name in names if (match := _MASK_AFFIX.fullmatch(name)) and known.get(match[1])
        }
        if parent in own:
            away |= {(*parent, name): THUMBNAILS for name in names if name.lower().strip("_.") in _DERIVED}
    if not away:
        return {}
    found = {f: next((away[f[:n]] for n in range(1, len(f) + 1) if f[:n] in away), "") for f in own}
    return {folder: reason for folder, reason in found.items() if reason}


def masked(stem: str) -> str:
    """Return the stem of the picture that a file is the mask of by its name (``cat`` of ``cat_mask``); empty if it is none."""
    match = _MASK_STEM.fullmatch(stem)
    return match[1] if match else ""
