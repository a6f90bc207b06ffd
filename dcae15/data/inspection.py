"""What is in a source: every image is looked at, nothing is written, and memory holds 16 bytes of each."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from dcae15.config import DataConfig
from dcae15.data import images as image_codec
from dcae15.data.formats import format_of
from dcae15.data.sources import Source, parquet
from dcae15.data.sources.reading import read_images

BUCKETS = (256, 512, 1024)  # edges of the histogram of shorter sides
EXAMPLES = 3  # bad images that are named for each reason
PAIRS = 10  # duplicates that are named

_DIGEST = 16


@dataclass
class SourceFindings:
    """What was found in some images."""

    bytes: int = 0  # of all files
    formats: Counter[str] = field(default_factory=Counter)  # files by format
    # usable images, and those left out, by the bucket of their shorter side, see `BUCKETS`
    sides: Counter[int] = field(default_factory=Counter)
    bad: Counter[str] = field(default_factory=Counter)  # unusable images by reason
    # images that are smaller than what is stored, if those are not wanted; only their headers are looked at
    left_out: int = 0
    examples: dict[str, list[str]] = field(default_factory=dict)  # by reason, "id: detail" of the first bad images
    digests: bytes = b""  # 16 bytes of each image's content, in order; of a missing or empty file zeros

    def add(self, other: SourceFindings) -> None:
        """Add what was found in other images, except their digests."""
        self.bytes += other.bytes
        self.left_out += other.left_out
        for mine, theirs in ((self.formats, other.formats), (self.sides, other.sides), (self.bad, other.bad)):
            mine.update(theirs)  # pyright: ignore[reportCallIssue, reportArgumentType]
        for reason, examples in other.examples.items():
            known = self.examples.setdefault(reason, [])
            known += examples[: EXAMPLES - len(known)]


def inspect(images: pa.Table, kind: str, data: DataConfig) -> SourceFindings:
    """Read and decode images as prepare_images does."""
    found = SourceFindings()
    digests = []
    for name, read in zip(images.column("id").to_pylist(), _contents(images, kind), strict=True):
        content = b"" if isinstance(read, image_codec.BadImage) else read
        digests.append(hashlib.blake2b(content, digest_size=_DIGEST).digest() if content else bytes(_DIGEST))
        found.bytes += len(content)
        if content:
            found.formats[format_of(content)] += 1
        try:
            if isinstance(read, image_codec.BadImage):
                raise read
            side = min(decode(content, data).size)
        except image_codec.BadImage as error:
            if error.reason == image_codec.LEFT_OUT:
                found.left_out += 1
                found.sides[_bucket(image_codec.shorter_side(content))] += 1
                continue
            found.bad[error.reason] += 1
            examples = found.examples.setdefault(error.reason, [])
            examples += [_one_line(f"{name}: {error}")] if len(examples) < EXAMPLES else []
            continue
        found.sides[_bucket(side)] += 1
    found.digests = b"".join(digests)
    return found


def decode(content: bytes, data: DataConfig) -> Image.Image:
    """Decode a file of a source, if it is wanted. Raises BadImage: it cannot be used, or is to be left out."""
    fill = 0 if data.upscale else stored_side(data)
    return image_codec.decode(content, min_side=data.min_side, max_pixels=data.max_pixels, fill=fill)


def stored_side(data: DataConfig) -> int:
    """Return the shorter side of the images in shards."""
    return data.store_side or data.resolution * 9 // 8 if data.crop == "random" else data.resolution


def _bucket(side: int) -> int:
    return sum(side >= edge for edge in BUCKETS)


def _duplicates(source: Source, digests: NDArray[np.uint8]) -> tuple[int, int, list[tuple[str, str]]]:
    """Return how many images equal an earlier one, how many of these validate what is trained on, and ids of the first pairs."""
    keys = np.ascontiguousarray(digests).view(f"V{_DIGEST}").ravel()
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    original = first[inverse.ravel()]
    repeated = np.flatnonzero((original != np.arange(len(keys))) & digests.any(axis=1))
    trained = source.train.num_rows
    across = int(((repeated >= trained) & (original[repeated] < trained)).sum())

    def name(row: int) -> str:
        table, place = (source.train, row) if row < trained else (source.val, row - trained)
        return table.column("id")[place].as_py()

    return len(repeated), across, [(name(int(original[row])), name(int(row))) for row in repeated[:PAIRS]]


def report(source: Source, found: SourceFindings, digests: NDArray[np.uint8]) -> str:
    """Return what was found as text; ``digests`` (N, 16) are those of training, then validation images, zeros without content."""
    count, across, pairs = _duplicates(source, digests)
    lines = []
    for split, table in (("train", source.train), ("val", source.val)):
        sizes = np.bincount(table.column("label").to_numpy(), minlength=len(source.class_names))
        each = f"{sizes.min():,} / {int(np.median(sizes)):,} / {sizes.max():,}" if len(sizes) else "none"
        lines.append(
            f"{split:<6} {table.num_rows:>10,} images of {int((sizes > 0).sum()):,} classes; least, median, most of a class: {each}"
        )
    edges = ["below 256", *(f"{a} to {b - 1}" for a, b in itertools.pairwise(BUCKETS)), f"{BUCKETS[-1]} and more"]
    lines.append(f"bytes  {found.bytes:>10,}")
    lines.append(f"formats: {_counts(found.formats) or 'none'}")
    lines.append("shorter side in pixels: " + ", ".join(f"{edge}: {found.sides[i]:,}" for i, edge in enumerate(edges)))
    if found.left_out:
        lines.append(f"left out because they are smaller than data.resolution: {found.left_out:,}")
    lines.append(
        f"duplicates by content: {count:,}, of which {across:,} are validation images that are also trained on"
    )
    lines += [_one_line(f"  {copy} = {original}") for original, copy in pairs]
    lines.append(f"bad images: {sum(found.bad.values()):,}" + (f" ({_counts(found.bad)})" if found.bad else ""))
    lines += [f"  {example}" for examples in found.examples.values() for example in examples]
    return "\n".join(lines)


def refusal(source: Source, reasons: Mapping[str, int], share: float, examples: Sequence[str] = ()) -> str:
    """Return why an image set cannot be made, and what to do; empty when it can.

    Args:
        source: the source.
        reasons: images by the reason why they cannot be used; what the source itself left out is among them.
        share: the largest share of them that is allowed.
        examples: images that cannot be used, with their reasons.
    """
    total, left_out = source.count + sum(source.lost.values()), reasons.get(image_codec.LEFT_OUT, 0)
    bad = sum(reasons.values()) - left_out
    if bad <= share * total and bad + left_out < total:
        return ""
    unused = [part for part in source.left_out if not part.expected]
    named = [*(f"{part.examples[0]}: {part.reason}" for part in unused), *examples]
    first = f" First ones: {'; '.join(named)}." if named else ""
    if bad > share * total:
        mending = "; ".join(dict.fromkeys(part.mending for part in unused if part.mending))
        return (
            f"{bad:,} of {total:,} images of {source.uri} cannot be used ({_counts(reasons)}), more than "
            f"data.max_bad_fraction={share} allows.{first} "
            f"{mending[:1].upper() + mending[1:] if mending else 'Repair them or take them away'}, or raise data.max_bad_fraction."
        )
    larger = " Lower data.resolution, or set data.upscale=true." if left_out else ""
    return f"none of the {total:,} images of {source.uri} can be used ({_counts(reasons)}).{first}{larger}"


def _contents(images: pa.Table, kind: str) -> Iterator[bytes | image_codec.BadImage] | Iterable[bytes]:
    if kind == "parquet" and images.num_rows:
        return parquet.read_rows(images.column("uri")[0].as_py(), images.column("offset").to_numpy())
    return read_images(images)


def _one_line(text: str) -> str:
    """Return text with names as they are, but for line breaks and other signs that are none."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(
        f"{count:,} {name}" for name, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    )
