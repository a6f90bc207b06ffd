"""How fast latent sets are written to, read from and fed out of a local folder and a bucket.

python tests/benchmarks/storage_speed.py [--images 8192] [--rounds 3] [--json FILE]

The bucket is on the S3 server of the tests, on this machine: client and server share its cores, and there is no network. What
it shows is the cost of the protocol and what the disk cache saves, not the speed of an object store.
"""

from __future__ import annotations

import argparse
import os
import shutil
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
from tests.benchmarks.data_speed import write_shards
from tests.benchmarks.results import keep, ratio, spread, table
from tests.conftest import start_server
from tests.s3 import install

BATCH = 128


def read(root: str) -> None:
    """Read every shard, one after another."""
    for shard in artifacts.LatentSet.open(root).splits["train"].shards:
        shards.read_shard(root, shard)


def epoch(root: str, images: int, disk: DiskCache | None) -> None:
    """Feed as many batches as an epoch has, from a loader that holds nothing yet."""
    latent_set = artifacts.LatentSet.open(root)
    made = loader.latent_batches(latent_set, seed=0, batch_size=BATCH, start=0, rank=0, world=1, disk=disk)
    with closing(iter(made)) as stream:
        for _ in islice(stream, images // BATCH):
            pass


def measure(root: str, images: int, folder: Path) -> dict[str, float]:
    """Return images/s of every operation on one storage; local folders need no cache."""
    cached = disk_cache(ScalingConfig(cache_folder=str(folder / "cache")), root)
    operations: dict[str, Callable[[], None]] = {
        "write": lambda: write_shards(root, images),
        "read": lambda: read(root),
        "first epoch": lambda: epoch(root, images, cached),
        "second epoch, from the disk cache": lambda: epoch(root, images, cached),
        "second epoch, without it": lambda: epoch(root, images, None),
    }
    rates = {}
    for name, operation in operations.items():
        began = time.perf_counter()
        operation()
        rates[name] = images / (time.perf_counter() - began)
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
    rows = []
    for name in runs["local"][0]:
        local, remote = ([run[name] for run in runs[place]] for place in runs)
        rows.append((name, spread(local, ",.0f"), spread(remote, ",.0f"), ratio(remote, local)))
    print(table(("", "local: images/s", "S3: images/s", "S3 / local (range)"), rows))
    keep(runs, given.json, images=given.images)
    return 0


if __name__ == "__main__":
    sys.exit(main())
