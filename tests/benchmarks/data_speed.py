"""Measure how fast latents are written, read and fed to training: our shards against one .npy per image and tars of them.

python tests/benchmarks/data_speed.py [--quick] [--rounds N] [--images N] [--json FILE]

Arms do the same work in one process and alternate: the same random latents (128 x 8 x 8), the same batches. What each
layout does by default is part of its time: our shards hold float16, are checked for values that are not finite, written
atomically, synced, and checksummed when written and when read; .npy files are float32 in class folders, by numpy.save, not
synced; the tars (WebDataset's naming, 1,024 samples each, Python's tarfile) hold float16 .npy members, not synced. Two more
arms write ours without syncing and .npy files with it. Ours are read as the loader reads them, up to four shards at a time;
the others in one thread. Reads find their files in the page cache, and make float32 of them; each arm reads its set twice in
a row: the first time into memory that the process may never have had before, the second time, as in every later epoch of a
training, into what it has. How long a training waits for its data, it says itself ("data wait").
"""

from __future__ import annotations

import argparse
import functools
import io
import itertools
import os
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dcae15 import artifacts
from dcae15.data import loader, shards
from tests.benchmarks.results import keep, ratio, spread, table

SHAPE = (128, 8, 8)
CLASSES = 10
SHARD = 1_024
BATCH = 256
EPOCHS = 3
SOURCES = ("shards", "npy, 0 workers", "npy, 2 workers")


@functools.cache
def latents(count: int) -> Tensor:
    """Return random float32 latents; they are there before anything is measured."""
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(0))


def blocks(count: int) -> Iterator[tuple[int, Tensor]]:
    """Yield the first index and the latents of each shard; they share their memory, which writers do not notice."""
    block = latents(SHARD)
    for first in range(0, count, SHARD):
        yield first, block[: min(SHARD, count - first)]


def write_shards(folder: str | Path, count: int) -> None:
    """Write a latent set with its manifest to a path or URI."""
    written = []
    for first, block in blocks(count):
        numbers = range(first, first + len(block))
        rest = [False] * len(block), [bytes(16)] * len(block)
        labels = [i % CLASSES for i in numbers]
        rows = shards.latent_table([f"{i:08d}" for i in numbers], labels, block, *rest, "float16", {})
        written.append(shards.write_shard(str(folder), f"train/{first // SHARD:05d}.parquet", rows).shard)
    spec = artifacts.LatentSpec(*SHAPE, 32, (SHAPE[0],), "none")
    ones = artifacts.Statistics(1, (0.0,) * SHAPE[0], (1.0,) * SHAPE[0])
    splits, names = {"train": artifacts.Split(tuple(written))}, tuple(str(i) for i in range(CLASSES))
    artifacts.LatentSet(str(folder), "benchmark", spec, "float16", ones, splits, names, False, "none", "none").commit()


def write_npy(folder: Path, count: int, sync: bool = False) -> None:
    """Write one float32 .npy per image into folders of classes."""
    for label in range(CLASSES):
        (folder / str(label)).mkdir(parents=True)
    for first, block in blocks(count):
        for i, latent in enumerate(block.numpy(), first):
            with (folder / str(i % CLASSES) / f"{i:08d}.npy").open("wb") as file:
                np.save(file, latent)
                if sync:
                    file.flush()
                    os.fsync(file.fileno())


def write_tar(folder: Path, count: int) -> None:
    """Write tars of float16 .npy and .cls members."""
    folder.mkdir(parents=True)
    for first, block in blocks(count):
        with tarfile.open(folder / f"{first // SHARD:05d}.tar", "w") as tar:
            for i, latent in enumerate(block.half().numpy(), first):
                buffer = io.BytesIO()
                np.save(buffer, latent)
                for suffix, data in ((".npy", buffer.getvalue()), (".cls", str(i % CLASSES).encode())):
                    member = tarfile.TarInfo(f"{i:08d}{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))


def read_shards(folder: Path) -> int:
    """Read every latent as float32, and every label, several shards at a time as the loader does; return how many."""
    latent_set, count = artifacts.LatentSet.open(str(folder)), 0
    split = latent_set.splits["train"]
    cache = loader.latent_cache(latent_set, split)
    cache.limit = 32 * max(shard.bytes for shard in split.shards)
    for i in range(len(split.shards)):
        cache.ahead(range(i, min(i + 5, len(split.shards))))
        columns = cache.get(i)
        for first in range(0, len(columns["labels"]), BATCH):
            values = columns["values"][first : first + BATCH]
            count += len(torch.from_numpy(np.array(values)).view(torch.float16).float())
    cache.close()
    return count


def read_npy(folder: Path) -> int:
    """As `read_shards`."""
    dataset = NpyFolder(folder)
    return sum(1 for latent, _ in (dataset[i] for i in range(len(dataset))) if latent.dtype == torch.float32)


def read_tar(folder: Path) -> int:
    """As `read_shards`."""
    count = 0
    for path in sorted(folder.iterdir()):
        with tarfile.open(path, "r|") as tar:
            for member in tar:
                data = tar.extractfile(member).read()  # pyright: ignore[reportOptionalMemberAccess]
                count += member.name.endswith(".npy")
                np.load(io.BytesIO(data)).astype(np.float32) if member.name.endswith(".npy") else int(data)
    return count


class NpyFolder(Dataset):
    """The official layout as a map-style dataset."""

    def __init__(self, folder: Path) -> None:
        self.files = [(str(path), int(path.parent.name)) for path in sorted(folder.glob("*/*.npy"))]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self.files[index]
        return torch.from_numpy(np.load(path)), label


WRITERS: dict[str, Callable[[Path, int], None]] = {
    "shards, not synced": mock.patch.object(os, "fsync", lambda file: None)(write_shards),
    "npy, synced": functools.partial(write_npy, sync=True),
    "shards": write_shards,
    "npy": write_npy,
    "tar": write_tar,
}
READERS: dict[str, Callable[[Path], int]] = {"shards": read_shards, "npy": read_npy, "tar": read_tar}
Rates = dict[str, dict[str, list[float]]]
"""Images/s of every round, by what was done and by arm."""


def batches_of(source: str, folder: Path, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield shuffled batches without end."""
    if source == "shards":
        latent_set = artifacts.LatentSet.open(str(folder / "shards"))
        made = loader.latent_batches(latent_set, seed=0, batch_size=batch_size, start=0, rank=0, world=1)
        with closing(iter(made)) as stream:
            for batch in stream:
                yield batch.inputs, batch.labels
    workers, data = int(source.split()[1]), NpyFolder(folder / "npy")
    options = {"num_workers": workers, "persistent_workers": workers > 0, "drop_last": True}
    fed = DataLoader(data, batch_size, shuffle=True, **options)
    while True:
        yield from fed


def feed(source: str, folder: Path, count: int, batch_size: int) -> float:
    """Return images/s over some epochs, everything from the start on included."""
    steps = max(1, EPOCHS * count // batch_size)
    began = time.perf_counter()
    with closing(batches_of(source, folder, batch_size)) as stream:  # type: ignore[type-var]
        for inputs, _ in itertools.islice(stream, steps):
            assert inputs.dtype == torch.float32
    return steps * batch_size / (time.perf_counter() - began)


def measure(folder: Path, count: int, rounds: int) -> tuple[Rates, dict[str, float]]:
    """Return the rates of every arm in every round, and the bytes per image of each layout."""
    rates: Rates = {what: {} for what in ("write", "read", "read again", "feed")}
    sizes: dict[str, float] = {}

    def note(what: str, arm: str, value: float) -> None:
        rates[what].setdefault(arm, []).append(value)
        print(f"{what} {arm}: {value:,.4g}", file=sys.stderr, flush=True)

    for arm, write in WRITERS.items():  # imports and the like are nobody's
        write(folder / "warm" / arm, 64)
    for arm, read in READERS.items():
        read(folder / "warm" / arm)
    for i in range(rounds):
        arms = list(WRITERS) if i % 2 == 0 else list(reversed(WRITERS))
        for arm in arms:
            shutil.rmtree(folder / arm, ignore_errors=True)
            os.sync()  # nobody pays for what another left to be written
            began = time.perf_counter()
            WRITERS[arm](folder / arm, count)
            note("write", arm, count / (time.perf_counter() - began))
            if arm in READERS:
                sizes[arm] = sum(path.stat().st_size for path in (folder / arm).rglob("*") if path.is_file()) / count
        os.sync()
        for arm in (arm for arm in arms if arm in READERS):
            for what in ("read", "read again"):
                began = time.perf_counter()
                assert READERS[arm](folder / arm) == count
                note(what, arm, count / (time.perf_counter() - began))
        for source in SOURCES if i % 2 == 0 else reversed(SOURCES):
            note("feed", source, feed(source, folder, count, min(BATCH, count)))
    return rates, sizes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one round: shows that it works")
    parser.add_argument("--rounds", type=int, default=0, help="rounds of all arms (5; with --quick 1)")
    parser.add_argument("--images", type=int, default=0, help="images of the sets (8,192; with --quick 64)")
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    given = parser.parse_args(arguments)
    count = given.images or (64 if given.quick else 8_192)
    with tempfile.TemporaryDirectory(prefix="dcae15-data-speed-") as folder:
        rates, sizes = measure(Path(folder), count, given.rounds or (1 if given.quick else 5))
    rows = [
        (what, arm, spread(values, ",.0f"), ratio(arms["shards"], values) if arm != "shards" else "")
        for what, arms in rates.items()
        for arm, values in arms.items()
    ]
    print(table(("what", "arm", "images/s: min, median, max", "ours / it (range)"), rows), end="\n\n")
    print(table(("arm", "bytes per image"), sizes.items()))
    keep({"rates": rates, "bytes_per_image": sizes}, given.json, images=count)
    return 0


if __name__ == "__main__":
    sys.exit(main())
