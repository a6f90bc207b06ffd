"""Is a latent set complete, undamaged, and what it says? The checks of its manifest and of the whole; those of a shard beside.

Nothing here changes the set, and nothing stops at the first finding. A shard is checked by itself, with memory for one shard
of latents and images; what concerns the whole set needs less than 100 bytes for each id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow.parquet as pq

from dcae15 import artifacts, storage
from dcae15.artifacts import ImageSet, LatentSet, Shard, Split
from dcae15.data import shards
from dcae15.data.findings import LatentFindings
from dcae15.data.shard_check import ShardResult, ShardTask, same_statistics
from dcae15.errors import DataError

ENCODED_AGAIN = 256
"""Latents that are encoded again, spread evenly over the shards; at least one of each ..."""
MOST_SHARDS_ENCODED = 1_024
"""... of at most so many shards, spread evenly too."""


def plan_checks(
    latent_set: LatentSet, image_set: ImageSet | None, encode_again: bool, findings: LatentFindings
) -> list[ShardTask]:
    """Compare the manifest with itself, with the files that are there, and with the image set; return what is left to check."""
    _check_manifest(latent_set, findings)
    listed = {shard.path: (split, shard) for split, content in latent_set.splits.items() for shard in content.shards}
    found = {info.path for info in storage.list_files(latent_set.uri)}
    for path in sorted(listed.keys() - found):
        findings.add("missing", f"{path} of {listed[path][1].count:,} latents")
    sides = {f"{path}.json" for path in listed}
    for path in sorted(found - listed.keys() - sides):
        if path.endswith((".parquet", ".parquet.json")):
            findings.add("stray", f"{path} is not in the manifest")
    there = [path for path in listed if path in found]
    images = _compare_sets(latent_set, image_set, listed, findings) if image_set else {}
    again = _share_out(there) if encode_again and image_set else {}
    return [ShardTask(*listed[path], images.get(path), again.get(path, 0)) for path in there]


def check_whole(latent_set: LatentSet, results: Mapping[str, ShardResult], findings: LatentFindings) -> None:
    """Add what only shows over all shards: ids that come twice, and the manifest's statistics."""
    for first, second in _twice(results):
        places = [_row_id(latent_set, path, row) for path, row in (first, second)]
        findings.add("id twice", f"{places[0]} in {first[0]} and {second[0]}")
    train = [shard.path for shard in latent_set.splits.get("train", Split(())).shards if shard.count]
    parts = [results[path].statistics for path in train if path in results]
    if len(parts) < len(train) or not all(parts):
        return  # shards are missing or damaged, which is said already
    if not same_statistics(parts, latent_set.statistics):
        findings.add("statistics", f"{artifacts.MANIFEST} says otherwise than the latents in the shards of train")


def _check_manifest(latent_set: LatentSet, findings: LatentFindings) -> None:
    spec, measured = latent_set.spec, latent_set.statistics
    wrong = []
    if latent_set.dtype not in shards.LATENT_BYTES:
        raise DataError(f"{latent_set.uri} is of type {latent_set.dtype}, which this version does not know")
    if min(spec.channels, spec.height, spec.width, spec.compression) < 1:
        raise DataError(f"{latent_set.uri} says that its latents are {spec}; delete the folder and cache it again")
    if {len(measured.mean), len(measured.std)} != {spec.channels}:
        wrong.append(f"statistics of {len(measured.mean)} channels, latents have {spec.channels}")
    paths = [(split, shard.path) for split, content in latent_set.splits.items() for shard in content.shards]
    if len({path for _, path in paths}) != len(paths):
        wrong.append("a shard is named twice")
    wrong += [f"{path} does not belong to {split}" for split, path in paths if not path.startswith(f"{split}/")]
    for text in wrong:
        findings.add("manifest", f"{artifacts.MANIFEST}: {text}")


def _compare_sets(
    latent_set: LatentSet, image_set: ImageSet, listed: Mapping[str, tuple[str, Shard]], findings: LatentFindings
) -> dict[str, Shard]:
    """Compare with the image set's manifest; return its shards by path: a latent shard has the name of its images'."""
    side = latent_set.spec.height * latent_set.spec.compression
    if image_set.fingerprint != latent_set.images:
        findings.add(
            "image set", f"{image_set.uri} is {image_set.fingerprint}, the latents were made of {latent_set.images}"
        )
    if image_set.class_names != latent_set.class_names:
        findings.add("image set", f"{image_set.uri} has other class names than the latents")
    if side > image_set.resolution:
        findings.add(
            "image set", f"{image_set.uri} has images of {image_set.resolution} pixels, the latents need {side}"
        )
        return {}
    theirs = {shard.path: shard for content in image_set.splits.values() for shard in content.shards}
    for path in sorted(theirs.keys() - listed.keys()):
        findings.add("not encoded", f"{path} of {theirs[path].count:,} images has no latents")
    for path in sorted(listed.keys() - theirs.keys()):
        findings.add("not an image", f"{path}: the image set has no shard of this name")
    return theirs


def _share_out(paths: Sequence[str]) -> dict[str, int]:
    """Return how many latents of which shards are encoded again."""
    count = min(len(paths), MOST_SHARDS_ENCODED)
    chosen = [paths[i * len(paths) // count] for i in range(count)]
    return dict.fromkeys(chosen, -(-ENCODED_AGAIN // count))


def _twice(results: Mapping[str, ShardResult]) -> list[tuple[tuple[str, int], tuple[str, int]]]:
    """Return pairs of (shard, row) whose ids have the same digest: 24 bytes of memory for each id."""
    paths = list(results)
    counts = [len(results[path].id_digests) // 16 for path in paths]
    halves = np.frombuffer(b"".join(results[path].id_digests for path in paths), np.uint64).reshape(-1, 2)
    order = np.lexsort((halves[:, 1], halves[:, 0]))
    same = np.flatnonzero((halves[order[1:]] == halves[order[:-1]]).all(axis=1))
    ends = np.cumsum(counts)

    def place(row: int) -> tuple[str, int]:
        shard = int(np.searchsorted(ends, row, side="right"))
        return paths[shard], row - int(ends[shard] - counts[shard])

    return [(place(int(order[i])), place(int(order[i + 1]))) for i in same]


def _row_id(latent_set: LatentSet, path: str, row: int) -> str:
    with storage.open_read(storage.join(latent_set.uri, path)) as file:
        return pq.read_table(file, columns=["id"]).column("id")[row].as_py()
