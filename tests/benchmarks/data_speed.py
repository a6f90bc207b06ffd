"""Measure how fast latents are written, read and fed to training: our shards against one .npy per image and tars of them.

python tests/benchmarks/data_speed.py [--quick] [--rounds N] [--images N] [--growth N ...] [--json FILE]

Arms do the same work in one process and alternate: the same random latents (128 x 8 x 8), the same batches. What each
layout does by default is part of its time: our shards hold float16, are checked for values that are not finite, written
atomically, synced, and checksummed when written and when read; .npy files are float32 in class folders, by numpy.save, not
synced; the tars (WebDataset's naming, 1,024 samples each, Python's tarfile) hold float16 .npy members, not synced. Two more
arms write ours without syncing and .npy files with it. Ours are read as the loader reads them, up to four shards at a time;
the others in one thread. Reads find their files in the page cache, and make float32 of them; each arm reads its set twice in
a row: the first time into memory that the process may never have had before, the second time, as in every later epoch of a
training, into what it has.
``--growth`` writes and reads sets of several sizes, each in a process of its own, for time and peak memory.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import io
import itertools
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dcae15 import artifacts
from dcae15.data import loader, shards

SHAPE = (128, 8, 8)
CLASSES = 10
SHARD = 1_024
BATCH = 256
EPOCHS = 3
SOURCES = ("shards", "npy, 0 workers", "npy, 2 workers")
GROWTH_SHARD = 128
GROWTH_LIMIT = 128 << 20  # bytes that the loader may hold, so that the bound shows at small sizes

# -------------------------------------------------------------------------------------------------------- writing


@functools.cache
def latents(count: int) -> Tensor:
    """Return random float32 latents; they are there before anything is measured."""
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(0))


def label_of(index: int) -> int:
    """Return the class of an image."""
    return index % CLASSES


def blocks(count: int, size: int) -> Iterator[tuple[int, Tensor]]:
    """Yield the first index and the latents of blocks of ``size``; they share their memory, which writers do not notice."""
    block = latents(size)
    for first in range(0, count, size):
        yield first, block[: min(size, count - first)]


def write_shards(folder: Path, count: int, size: int = SHARD) -> None:
    """Write a latent set with its manifest."""
    written = []
    for first, block in blocks(count, size):
        ids = [f"{i:08d}" for i in range(first, first + len(block))]
        labels = [label_of(i) for i in range(first, first + len(block))]
        rest = [False] * len(block), [bytes(16)] * len(block)
        table = shards.latent_table(ids, labels, block, *rest, "float16", {})
        written.append(shards.write_shard(str(folder), f"train/{first // size:05d}.parquet", table).shard)
    artifacts.LatentSet(
        str(folder),
        "benchmark",
        artifacts.LatentSpec(*SHAPE, 32, (SHAPE[0],), "none"),
        "float16",
        artifacts.Statistics(1, (0.0,) * SHAPE[0], (1.0,) * SHAPE[0]),
        {"train": artifacts.Split(tuple(written))},
        tuple(str(i) for i in range(CLASSES)),
        False,
        "none",
        "none",
    ).commit()


def write_shards_unsynced(folder: Path, count: int) -> None:
    """As `write_shards`, but the system writes to the disk when it likes."""
    with mock.patch.object(os, "fsync", lambda file: None):
        write_shards(folder, count)


def write_npy(folder: Path, count: int, sync: bool = False) -> None:
    """Write one float32 .npy per image into folders of classes."""
    for label in range(CLASSES):
        (folder / str(label)).mkdir(parents=True)
    for first, block in blocks(count, SHARD):
        for i, latent in enumerate(block.numpy(), first):
            path = folder / str(label_of(i)) / f"{i:08d}.npy"
            if not sync:
                np.save(path, latent)
                continue
            with path.open("wb") as file:
                np.save(file, latent)
                file.flush()
                os.fsync(file.fileno())


def write_npy_synced(folder: Path, count: int) -> None:
    """As `write_npy`, but each file is on the disk before the next one."""
    write_npy(folder, count, sync=True)


def write_tar(folder: Path, count: int) -> None:
    """Write tars of float16 .npy and .cls members."""
    folder.mkdir(parents=True)
    for first, block in blocks(count, SHARD):
        with tarfile.open(folder / f"{first // SHARD:05d}.tar", "w") as tar:
            for i, latent in enumerate(block.half().numpy(), first):
                buffer = io.BytesIO()
                np.save(buffer, latent)
                for suffix, data in ((".npy", buffer.getvalue()), (".cls", str(label_of(i)).encode())):
                    member = tarfile.TarInfo(f"{i:08d}{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))


# -------------------------------------------------------------------------------------------------------- reading


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
            count += len(shards.float_latents(values if values.flags.writeable else values.copy(), latent_set.dtype))
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
                file = tar.extractfile(member)
                assert file
                if member.name.endswith(".npy"):
                    np.load(io.BytesIO(file.read())).astype(np.float32)
                    count += 1
                else:
                    int(file.read())
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
    "shards, not synced": write_shards_unsynced,
    "npy, synced": write_npy_synced,
    "shards": write_shards,
    "npy": write_npy,
    "tar": write_tar,
}
COMPARED = ("write", "read", "read again", "feed")
READERS: dict[str, Callable[[Path], int]] = {"shards": read_shards, "npy": read_npy, "tar": read_tar}

# -------------------------------------------------------------------------------------------------------- feeding


def batches_of(source: str, folder: Path, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield shuffled batches without end."""
    if source == "shards":
        latent_set = artifacts.LatentSet.open(str(folder / "shards"))
        made = loader.latent_batches(latent_set, seed=0, batch_size=batch_size, start=0, rank=0, world=1)
        with closing(iter(made)) as stream:
            for batch in stream:
                yield batch.inputs, batch.labels
    workers = int(source.split()[1])
    keep = {"persistent_workers": True} if workers else {}
    fed = DataLoader(NpyFolder(folder / "npy"), batch_size, shuffle=True, num_workers=workers, drop_last=True, **keep)
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


def data_wait(source: str, folder: Path, steps: int) -> dict[str, float]:
    """Train the default denoiser in one thread; return the share of the time that it waited for data, and images/s."""
    from dcae15.training.stages import DiT, DiTSpec, choices_of

    from dcae15.config import Config
    from dcae15.runtime import LocalRuntime
    from dcae15.training.checkpoint import Checkpoints
    from dcae15.training.objectives import DiffusionObjective
    from dcae15.training.trainer import Phase, train

    torch.set_num_threads(1)  # two threads that wait for each other measure what else runs on the machine
    config, runtime = Config(), LocalRuntime(device=torch.device("cpu"))
    settings, training = config.diffusion, config.diffusion.training
    shape = settings.denoiser
    spec = DiTSpec(
        SHAPE[0], SHAPE[1], CLASSES, shape.depth, shape.width, shape.heads, shape.patch_size, shape.mlp_ratio
    )
    size, ones = training.batch_size, (1.0,) * SHAPE[0]
    training = dataclasses.replace(
        training, images=(steps + 2) * size, warmup_images=0, log_images=0, checkpoint_images=0
    )

    def objective(network: DiT) -> DiffusionObjective:
        choices = choices_of(settings.prefix, SHAPE[0])
        return DiffusionObjective(network, choices, settings, (0.0,) * SHAPE[0], ones, null_label=CLASSES)

    def batches(start: int) -> Generator[loader.Batch, None, None]:
        with closing(batches_of(source, folder, size)) as stream:  # type: ignore[type-var]
            for step in range(steps + 2):
                asked = time.perf_counter()
                inputs, labels = next(stream)
                yield loader.Batch(step * size, inputs, labels, time.perf_counter() - asked)

    milestones = (2 * size,)  # a row of the history ends there: the first steps of all are not measured
    with tempfile.TemporaryDirectory() as checkpoints:
        trained = train(
            lambda: DiT(spec, torch.Generator().manual_seed(0), shape.label_std),
            [Phase("training", training, 0, training.images, objective, batches, milestones)],
            seed=0,
            runtime=runtime,
            checkpoints=Checkpoints(checkpoints),
            on_log=lambda row, state: None,
        )
    row = trained.state.history[-1]
    return {"wait": row["data_wait"], "images_per_second": row["images_per_second"]}


# -------------------------------------------------------------------------------------------------------- growth


def grow(task: str, folder: Path, count: int) -> dict[str, float]:
    """Do one task over a set of ``count`` images in this process; return seconds, images/s and the memory it took."""
    torch.set_num_threads(1)
    latents(GROWTH_SHARD)
    before = memory_kib("VmRSS")
    began = time.perf_counter()
    if task == "write":
        write_shards(folder / "shards", count, GROWTH_SHARD)
    elif task == "read":
        assert read_shards(folder / "shards") == count
    else:
        latent_set = artifacts.LatentSet.open(str(folder / "shards"))
        made = loader.latent_batches(latent_set, seed=0, batch_size=BATCH, start=0, rank=0, world=1)
        made.cache.limit = GROWTH_LIMIT
        with closing(iter(made)) as stream:
            for _ in itertools.islice(stream, max(1, count // BATCH)):
                pass
    seconds = time.perf_counter() - began
    taken = (memory_kib("VmHWM") - before) / 1024
    return {"seconds": seconds, "images_per_second": count / seconds, "memory_mib": taken}


def memory_kib(name: str) -> int:
    """Return a number of this process from Linux: VmRSS is its memory, VmHWM the most that it was."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name + ":")).split()[1])


def growth(counts: Sequence[int], folder: Path) -> list[dict[str, Any]]:
    """Run every task for every count, each in a fresh process."""
    rows = []
    for count in counts:
        place = folder / f"growth-{count}"
        for task in ("write", "read", "loader"):
            command = [sys.executable, __file__, "--job", json.dumps([task, str(place), count])]
            done = subprocess.run(command, text=True, capture_output=True, check=False)
            if done.returncode:
                raise RuntimeError(f"{task} of {count} images failed:\n{done.stderr[-4000:]}")
            rows.append({"task": task, "images": count, **json.loads(done.stdout)})
            print(f"growth: {rows[-1]}", file=sys.stderr, flush=True)
        shutil.rmtree(place)
    return rows


# -------------------------------------------------------------------------------------------------------- measuring


def measure(folder: Path, count: int, rounds: int, steps: int, batch_size: int) -> dict[str, Any]:
    """Return what every arm did in every round."""
    rates: dict[str, dict[str, list[float]]] = {name: {} for name in (*COMPARED, "wait", "train")}
    sizes: dict[str, int] = {}

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
            if arm not in READERS:
                shutil.rmtree(folder / arm)
                continue
            sizes[arm] = sum(path.stat().st_size for path in (folder / arm).rglob("*") if path.is_file())
        os.sync()
        for arm in (arm for arm in arms if arm in READERS):
            for what in ("read", "read again"):
                began = time.perf_counter()
                assert READERS[arm](folder / arm) == count
                note(what, arm, count / (time.perf_counter() - began))
        for source in SOURCES if i % 2 == 0 else reversed(SOURCES):
            note("feed", source, feed(source, folder, count, batch_size))
        for source in SOURCES if i % 2 == 0 else reversed(SOURCES):
            trained = data_wait(source, folder, steps)
            note("wait", source, trained["wait"])
            note("train", source, trained["images_per_second"])
    return {"rates": rates, "bytes_per_image": {arm: size / count for arm, size in sizes.items()}}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return minimum, median and maximum."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Return the ratio of the medians, and the range of the rounds'."""
    pairs = [a / b for a, b in zip(ours, theirs, strict=True)]
    return {"median": statistics.median(ours) / statistics.median(theirs), "min": min(pairs), "max": max(pairs)}


def summarise(measured: dict[str, Any]) -> dict[str, Any]:
    """Return spreads, and our ratios to each peer."""
    rates = measured["rates"]
    body = {what: {arm: spread(values) for arm, values in arms.items()} for what, arms in rates.items()}
    ratios = {
        what: {arm: ratio(rates[what]["shards"], values) for arm, values in rates[what].items() if arm != "shards"}
        for what in COMPARED
    }
    return {**body, "ratios": ratios, "bytes_per_image": measured["bytes_per_image"]}


def table(result: dict[str, Any]) -> str:
    """Return the result as Markdown tables."""
    goals = {
        ("write", "npy"): ">= 5",
        ("read", "npy"): ">= 8",
        ("read again", "npy"): ">= 8",
        ("feed", "npy, 0 workers"): ">= 5",
    }
    goals[("feed", "npy, 2 workers")] = ">= 5"
    lines = ["| what | arm | images/s: min, median, max | ours / it (range) | goal |", "|---|---|---|---|---|"]
    for what in COMPARED:
        for arm, rate in result[what].items():
            found = result["ratios"][what].get(arm)
            times = f"{found['median']:.1f} ({found['min']:.1f} to {found['max']:.1f})" if found else ""
            numbers = ", ".join(f"{rate[name]:,.0f}" for name in ("min", "median", "max"))
            lines.append(f"| {what} | {arm} | {numbers} | {times} | {goals.get((what, arm), '')} |")
    lines += ["", "| arm | bytes per image | of the .npy files' |", "|---|---|---|"]
    for arm, size in result["bytes_per_image"].items():
        lines.append(f"| {arm} | {size:,.0f} | {size / result['bytes_per_image']['npy']:.1%} |")
    lines += ["", "| training fed by | data wait: min, median, max | images/s: median |", "|---|---|---|"]
    for arm, wait in result["wait"].items():
        shares = ", ".join(f"{wait[name]:.2%}" for name in ("min", "median", "max"))
        lines.append(f"| {arm} | {shares} | {result['train'][arm]['median']:,.0f} |")
    if result["growth"]:
        lines += ["", "| task | images | seconds | images/s | memory |", "|---|---|---|---|---|"]
    for row in result["growth"]:
        numbers = f"{row['seconds']:.2f} | {row['images_per_second']:,.0f} | {row['memory_mib']:,.0f} MiB"
        lines.append(f"| {row['task']} | {row['images']:,} | {numbers} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one round: shows that it works")
    parser.add_argument("--rounds", type=int, default=0, help="rounds of all arms (5; with --quick 1)")
    parser.add_argument("--images", type=int, default=0, help="images of the sets (8,192; with --quick 64)")
    parser.add_argument(
        "--growth", type=int, nargs="*", default=[], help="numbers of images, such as 1000 10000 100000"
    )
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.job:
        task, folder, count = json.loads(given.job)
        print(json.dumps(grow(task, Path(folder), count)))
        return 0
    count = given.images or (64 if given.quick else 8_192)
    rounds, steps = given.rounds or (1 if given.quick else 5), 2 if given.quick else 20
    folder = Path(tempfile.mkdtemp(prefix="dcae15-data-speed-"))
    try:
        measured = measure(folder, count, rounds, steps, min(BATCH, count))
        grown = growth(given.growth, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "quick": given.quick,
        "images": count,
        "rounds": rounds,
        "load": os.getloadavg(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        **summarise(measured),
        "growth": grown,
    }
    print(table(result))
    if given.json:
        given.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
