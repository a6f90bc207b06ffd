"""Measure what Ray costs: a stage on Ray against the same work without it, alternating.

python tests/benchmarks/ray_cost.py [--quick] [--rounds N] [--stages NAME ...] [--json FILE]

Ray's arm is the stage's script; training has one of Ray's workers, caching as many actors as there are CPUs. The bare arm of a
training is the same script, which trains in the driver itself; of prepare_images a plain pool of processes that decodes and
crops the same files and writes the same pixels; of cache_latents a plain loop that encodes the same images and writes the same
shards. What Ray costs has two parts: the steady rate (after the first shard, or after the first row of the training history),
and a fixed number of seconds to start and stop.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.results import keep, ratio, spread, table
from tests.scripts import TINY, Workplace, workplace

MAKES = {"prepare_images": "images", "train_autoencoder": "autoencoder", "cache_latents": "latents"}
MAKES |= {"train_diffusion": "denoiser"}
READS = {"prepare_images": (), "train_autoencoder": ("images",), "cache_latents": ("images", "autoencoder")}
READS |= {"train_diffusion": ("latents",)}
STAGES = tuple(MAKES)
ARMS = ("bare", "ray")
PHOTOS = ("data.resolution=256", "data.shard_images=128", "data.val_fraction=0.01")
"""What prepare_images is measured on: JPEG files of ImageNet's usual size."""
DRAWN_PHOTOS, PHOTO_SIDE = 400, 448
FULL = ("data.shapes.images=48000", "autoencoder.training.images=64000", "diffusion.training.images=64000")
QUICK = ("--config", str(TINY))


def prepare_with_a_pool(source: str, to: str) -> None:
    """Decode and crop every file of a folder in a pool of processes, as a script of a page would."""
    files = sorted(path for path in Path(source).rglob("*") if path.is_file())
    parts = [(i, files[i : i + 128], to) for i in range(0, len(files), 128)]
    Path(to).mkdir(parents=True)
    with multiprocessing.Pool(os.cpu_count()) as pool:
        list(pool.imap_unordered(_crop_files, parts))


def _crop_files(part: tuple[int, list[Path], str]) -> None:
    """Write the crops of some files, and a note like a shard's side file."""
    from PIL import Image

    from dcae15.data.images import center_crop

    start, files, to = part
    crops = [center_crop(Image.open(path).convert("RGB"), 256) for path in files]
    (Path(to) / f"{start}.bin").write_bytes(b"".join(crop.tobytes() for crop in crops))
    (Path(to) / f"{start}.parquet.json").write_text(json.dumps({"shard": {"count": len(files)}}))


def encode_in_a_loop(images: str, autoencoder: str, to: str, batch: int = 64) -> None:
    """Encode an image set shard by shard, and write shards of latents."""
    import numpy as np
    import torch

    import dcae15
    from dcae15.artifacts import ImageSet
    from dcae15.data import shards
    from dcae15.data.pixels import to_pixels

    network, image_set = dcae15.load_autoencoder(autoencoder), ImageSet.open(images)
    shape = (image_set.resolution, image_set.resolution, 3)
    for split in image_set.splits.values():
        for shard in split.shards:
            rows = shards.read_shard(images, shard)
            pixels = np.stack([np.frombuffer(row.as_py(), np.uint8).reshape(shape) for row in rows.column("image")])
            parts = [to_pixels(torch.from_numpy(pixels[i : i + batch])) for i in range(0, len(pixels), batch)]
            encoded = torch.cat([network.encode(part) for part in parts])
            ids, labels = rows.column("id").to_pylist(), rows.column("label").to_pylist()
            rest = [False] * len(ids), [bytes(16)] * len(ids)
            shards.write_shard(to, shard.path, shards.latent_table(ids, labels, encoded, *rest, "float16", {}))


def draw_photos(folder: Path, images: int) -> Path:
    """Draw some JPEG files and link each many times, so that ``images`` files cost what photographs cost to decode."""
    from PIL import Image

    from dcae15.config import ShapesConfig
    from dcae15.data import shapes

    (folder / "drawn").mkdir(parents=True)
    settings = ShapesConfig(images=DRAWN_PHOTOS, resolution=PHOTO_SIDE)
    shapes.write_range(str(folder / "drawn"), "train", 0, DRAWN_PHOTOS, settings)
    drawn = []
    for path in sorted(path for path in (folder / "drawn").rglob("*") if path.is_file()):
        drawn.append(path.with_suffix(".link"))
        Image.open(path).convert("RGB").save(drawn[-1], "JPEG", quality=90)
    for i in range(images):
        link = folder / "photos" / f"class{i % 10}" / f"{i:07d}.jpg"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.hardlink_to(drawn[i % len(drawn)])
    return folder / "photos"


BARE = {"prepare_images": prepare_with_a_pool, "cache_latents": encode_in_a_loop}
"""What stands for a stage without Ray; trainings can do without it themselves."""


@dataclass(frozen=True)
class Run:
    """What one arm did: images/s in the steady state, seconds of the whole process, and those that the rate does not explain."""

    rate: float
    wall: float
    fixed: float


def steady(artifact: Path) -> tuple[float, float]:
    """Return images/s after the first row of a training's history, or after the first shard, and the images of all."""
    if (artifact / "history.jsonl").exists():
        rows = [json.loads(line) for line in (artifact / "history.jsonl").read_text().splitlines()]
        counts = [row["images"] - before["images"] for before, row in pairwise(rows)]
        seconds = [count / row["images_per_second"] for row, count in zip(rows[1:], counts, strict=True)]
        return sum(counts) / sum(seconds), rows[-1]["images"]
    notes = list(artifact.rglob("*.parquet.json"))
    done = sorted((note.stat().st_mtime, json.loads(note.read_text())["shard"]["count"]) for note in notes)
    return sum(count for _, count in done[1:]) / (done[-1][0] - done[0][0]), sum(count for _, count in done)


def run_arm(place: Workplace, stage: str, arm: str, words: Sequence[str], given: dict[str, str]) -> tuple[Run, str]:
    """Run an arm in a fresh process; return what it did and its artifact."""
    began = time.perf_counter()
    if arm == "bare" and stage in BARE:
        artifact = str(place.folder / f"{stage}-{time.time_ns()}")
        command = [sys.executable, __file__, "--job", json.dumps([stage, *given.values(), artifact])]
        subprocess.run(command, env=place.environment(), check=True)
    else:
        roles = {"data.source" if stage == "prepare_images" else role: uri for role, uri in given.items()}
        option = "num_workers=1" if stage.startswith("train") else "encoders=[2,0]"
        workers = [f"scaling.{option}"] if arm == "ray" else []
        root = f"storage={place.folder / str(time.time_ns())}"
        inputs = [f"{role}={uri}" for role, uri in roles.items()]
        done = place.run(stage, *words, root, *inputs, *workers, timeout_s=100_000)
        if done.code:
            raise RuntimeError(f"{stage} ({arm}) failed:\n{done.err[-4000:]}")
        artifact = done.artifact
    wall = time.perf_counter() - began
    rate, images = steady(Path(artifact))
    return Run(rate, wall, wall - images / rate), artifact


def measure(place: Workplace, stages: Sequence[str], rounds: int, quick: bool) -> dict[str, dict[str, list[Run]]]:
    """Run both arms of the stages in turn and first in turn, and before them what they need; return the runs."""
    shared = (*(QUICK if quick else FULL), "tracking.enabled=false", "arms=[]", "scaling.use_gpu=no")
    runs: dict[str, dict[str, list[Run]]] = {stage: {arm: [] for arm in ARMS} for stage in stages}
    made: dict[str, str] = {}
    last = max(STAGES.index(stage) for stage in stages)
    for stage in STAGES[: last + 1]:
        words, given = shared, {role: made[role] for role in READS[stage]}
        if stage == "prepare_images":
            _, made["images"] = run_arm(place, stage, "ray", shared, {})
            if stage in stages:
                words, given = (*shared, *PHOTOS), {"source": str(draw_photos(place.folder, 400 if quick else 6_000))}
        for i in range(rounds if stage in stages else 0):
            for arm in ARMS if i % 2 == 0 else reversed(ARMS):
                run, artifact = run_arm(place, stage, arm, words, given)
                runs[stage][arm].append(run)
                if arm == "ray":
                    made.setdefault(MAKES[stage], artifact)
                print(f"{stage} {arm}: {run.rate:,.0f} images/s, {run.wall:.1f} s", file=sys.stderr, flush=True)
        if MAKES[stage] not in made:
            _, made[MAKES[stage]] = run_arm(place, stage, "ray", words, given)
    return runs


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one round: shows that it works")
    parser.add_argument("--rounds", type=int, default=0, help="runs of each arm of each stage (3; with --quick 1)")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=["train_autoencoder", "cache_latents"])
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.job:
        stage, *words = json.loads(given.job)
        BARE[stage](*words)
        return 0
    with tempfile.TemporaryDirectory(prefix="dcae15-ray-cost-") as folder, workplace(Path(folder) / "cwd") as place:
        runs = measure(place, given.stages, given.rounds or (1 if given.quick else 3), given.quick)
    rows = []
    for stage, arms in runs.items():
        rates = {arm: [run.rate for run in arms[arm]] for arm in ARMS}
        for arm in ARMS:
            walls, fixed = ([getattr(run, name) for run in arms[arm]] for name in ("wall", "fixed"))
            cost = ratio(rates["ray"], rates["bare"]) if arm == "ray" else ""
            rows.append((stage, arm, spread(rates[arm], ",.0f"), cost, spread(walls, ".1f"), spread(fixed, ".1f")))
    heads = ("stage", "arm", "images/s: min, median, max", "Ray / bare (range)", "seconds of the whole", "fixed part")
    print(table(heads, rows))
    numbers = {
        stage: {arm: [asdict(run) for run in made] for arm, made in arms.items()} for stage, arms in runs.items()
    }
    keep(numbers, given.json, quick=given.quick)
    return 0


if __name__ == "__main__":
    sys.exit(main())
