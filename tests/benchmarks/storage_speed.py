"""How fast latent sets are written to, read from and fed out of a local folder and a bucket.

python tests/benchmarks/storage_speed.py [--images 8192] [--rounds 3] [--json FILE]

The bucket is on the S3 server of the tests, on this machine: client and server share its cores, and there is no network. What
it shows is the cost of the protocol and what the disk cache saves, not the speed of an object store.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import fsspec

from dcae15 import artifacts, storage
from dcae15.config import ScalingConfig
from dcae15.data import loader, shards
from dcae15.data.disk_cache import DiskCache, disk_cache
from tests.benchmarks.data_speed import SHAPE, SHARD, blocks
from tests.conftest import start_server
from tests.s3 import install

BATCH = 128
OPERATIONS = ("write", "read", "first epoch", "second epoch, disk cache", "second epoch, no cache")


def write(root: str, images: int) -> None:
    """Write a latent set."""
    written = []
    for first, block in blocks(images, SHARD):
        ids, labels = [f"{first + i:08d}" for i in range(len(block))], [0] * len(block)
        table = shards.latent_table(ids, labels, block, [False] * len(block), [bytes(16)] * len(block), "float16", {})
        written.append(shards.write_shard(root, f"train/{first // SHARD:06d}.parquet", table).shard)
    spec = artifacts.LatentSpec(*SHAPE, 32, (SHAPE[0],), "none")
    ones = artifacts.Statistics(1, (0.0,) * SHAPE[0], (1.0,) * SHAPE[0])
    splits = {"train": artifacts.Split(tuple(written))}
    artifacts.LatentSet(root, "benchmark", spec, "float16", ones, splits, ("one",), False, "none", "none").commit()


def read(root: str) -> None:
    """Read every shard, one after another."""
    for shard in artifacts.LatentSet.open(root).splits["train"].shards:
        shards.read_shard(root, shard)


def epoch(root: str, images: int, disk: DiskCache | None) -> None:
    """Feed as many batches as an epoch has, from a loader that holds nothing yet."""
    made = loader.latent_batches(
        artifacts.LatentSet.open(root), seed=0, batch_size=BATCH, start=0, rank=0, world=1, disk=disk
    )
    with closing(iter(made)) as stream:
        for _ in islice(stream, images // BATCH):
            pass


def measure(root: str, images: int, folder: Path) -> dict[str, float]:
    """Return images/s of every operation on one storage; local folders need no cache."""

    def rate(operation: Callable[[], None]) -> float:
        began = time.perf_counter()
        operation()
        return images / (time.perf_counter() - began)

    cached = disk_cache(ScalingConfig(cache_folder=str(folder / "cache")), root)
    rates = {"write": rate(lambda: write(root, images)), "read": rate(lambda: read(root))}
    rates["first epoch"] = rate(lambda: epoch(root, images, cached))
    rates["second epoch, disk cache"] = rate(lambda: epoch(root, images, cached))
    rates["second epoch, no cache"] = rate(lambda: epoch(root, images, None))
    storage.remove(root)
    shutil.rmtree(folder / "cache", ignore_errors=True)
    return rates


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--images", type=int, default=8_192, help="latents of 16 KiB in the set")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    given = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="dcae15-storage-"))
    process, server = start_server(install.install(), folder / "s3")
    os.environ.update(server.variables())
    runs: dict[str, list[dict[str, float]]] = {"local": [], "s3": []}
    try:
        fsspec.filesystem("s3", skip_instance_cache=True).mkdir("dcae15-speed")
        roots = {"local": str(folder / "set"), "s3": "s3://dcae15-speed/set"}
        for i in range(given.rounds):
            for place in roots if i % 2 == 0 else reversed(roots):
                runs[place].append(measure(roots[place], given.images, folder))
                print(place, runs[place][-1], file=sys.stderr, flush=True)
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)
    print("| | local: images/s | S3: images/s | S3 / local (range) |")
    print("|---|---|---|---|")
    for name in OPERATIONS:
        local, remote = ([run[name] for run in runs[place]] for place in runs)
        ratios = [r / one for r, one in zip(remote, local, strict=True)]
        middle = statistics.median(local), statistics.median(remote), statistics.median(ratios)
        print(
            f"| {name} | {middle[0]:,.0f} | {middle[1]:,.0f} | {middle[2]:.0%} ({min(ratios):.0%} to {max(ratios):.0%}) |"
        )
    if given.json:
        given.json.write_text(json.dumps(runs, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
