"""How preparing and caching grow with the number of images: time should be linear, memory flat.

python tests/benchmarks/growth.py [--images 2000 20000 100000] [--json FILE]

The images are small (32 x 32, drawn once and linked many times, so that each size reads files of the same bytes), the
autoencoder is tiny: what is measured is the handling of many images and shards. Memory is the proportional set size (PSS) of
the driver and of everything that its Ray started, added up a few times a second; the object store's pages count where they are
mapped.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import psutil

from tests.benchmarks.results import keep, table
from tests.scripts import TINY, Workplace, workplace

DRAWN = 1_000


@dataclass(frozen=True)
class Row:
    """What one script did over some images: seconds of all, images/s from the first to the last shard, peaks in MiB."""

    script: str
    images: int
    seconds: float
    rate: float
    driver_mib: float
    worker_mib: float
    total_mib: float


class Memory(threading.Thread):
    """Samples the memory of a process and of the Ray that it started until it ends."""

    def __init__(self, driver: psutil.Process, marker: str) -> None:
        super().__init__(daemon=True)
        self.driver, self.marker = driver, marker
        self.peaks = {"driver": 0.0, "worker": 0.0, "total": 0.0}

    def run(self) -> None:
        """Sample until the driver is gone."""
        while self.driver.is_running() and self.driver.status() != psutil.STATUS_ZOMBIE:
            total = 0.0
            for process in self._processes():
                try:
                    size = process.memory_full_info().pss / 2**20
                    title = process.name() if process.pid != self.driver.pid else "driver"
                    title = "worker" if title.startswith("ray::") else title
                except psutil.Error:  # it has ended meanwhile
                    continue
                total += size
                if title in self.peaks:
                    self.peaks[title] = max(self.peaks[title], size)
            self.peaks["total"] = max(self.peaks["total"], total)
            time.sleep(0.3)

    def _processes(self) -> list[psutil.Process]:
        """The driver and its descendants; Ray's daemons are found by the folder in their command line."""
        found = {self.driver.pid: self.driver}
        for process in psutil.process_iter(["cmdline"]):
            if self.marker in " ".join(process.info["cmdline"] or ()):
                found[process.pid] = process
                for child in process.children(recursive=True):
                    found[child.pid] = child
        return list(found.values())


def run(place: Workplace, script: str, words: Sequence[str]) -> tuple[Row, str]:
    """Run a script; return what it cost and the artifact that it made."""
    began = time.perf_counter()
    driver = place.start(script, *words, log=place.folder / "log")
    memory = Memory(psutil.Process(driver.process.pid), str(place.ray))
    memory.start()
    if driver.process.wait():
        raise RuntimeError(f"{script} failed:\n{driver.log.read_text()[-3000:]}")
    seconds = time.perf_counter() - began
    memory.join()
    uri = driver.log.read_text().rsplit("artifact: ", 1)[1].splitlines()[0]
    notes = list(Path(uri).rglob("*.parquet.json"))
    done = sorted((note.stat().st_mtime, json.loads(note.read_text())["shard"]["count"]) for note in notes)
    images = sum(count for _, count in done)
    rate = (images - done[0][1]) / (done[-1][0] - done[0][0])
    peaks = (memory.peaks[name] for name in ("driver", "worker", "total"))
    row = Row(script, images, *(round(number, 1) for number in (seconds, rate, *peaks)))
    print(row, file=sys.stderr, flush=True)
    return row, uri


def link_images(folder: Path, drawn: Path, images: int) -> Path:
    """Make a folder of so many files out of the drawn ones."""
    files = sorted(path for path in drawn.rglob("*") if path.is_file())
    for i in range(images):
        link = folder / files[i % len(files)].parent.name / f"{i:07d}{files[i % len(files)].suffix}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.hardlink_to(files[i % len(files)])
    return folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--images", type=int, nargs="+", default=[2_000, 20_000, 100_000])
    parser.add_argument("--shard-images", type=int, default=256, help="images per shard")
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    given = parser.parse_args(arguments)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="dcae15-growth-") as name, workplace(Path(name) / "cwd") as place:
        folder = Path(name)
        shared = ["--config", str(TINY), "tracking.enabled=false", "arms=[]"]
        first = [*shared, f"storage={folder / 'made'}", f"data.shapes.images={DRAWN}", "data.shapes.val_images=10"]
        for script in ("prepare_images", "train_autoencoder"):
            done = place.run(script, *first, "autoencoder.training.images=64")
            assert done.code == 0, done.err
        (drawn,) = (folder / "made" / "sources").glob("shapes-*/train")
        for images in given.images:
            source = link_images(folder / f"source{images}", drawn, images)
            words = [*shared, f"storage={folder / str(images)}", f"data.shard_images={given.shard_images}"]
            row, uri = run(place, "prepare_images", [*words, f"data.source={source}"])
            rows.append(row)
            rows.append(run(place, "cache_latents", [*words, f"images={uri}", f"autoencoder={done.artifact}"])[0])
    heads = ("stage", "images", "seconds", "images/s", "driver, MiB", "largest worker, MiB", "all processes, MiB")
    rows.sort(key=lambda row: (row.script != "prepare_images", row.images))
    lines = [(*asdict(row).values(),) for row in rows]
    print(table(heads, lines))
    keep([asdict(row) for row in rows], given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
