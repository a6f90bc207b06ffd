"""Measure what Ray costs: a stage on Ray against the same work in one bare process, alternating.

python tests/benchmarks/ray_cost.py [--quick] [--rounds N] [--stages NAME ...] [--json FILE]

Both arms read the same images, write the same artifacts, use the same number of threads and the same environment of
the thread pools; each runs in a process of its own. For prepare_images the bare arm is a plain pool of processes that
decodes and crops the same files and writes the same pixels. What Ray costs has two parts: the steady rate (after the
first shard, or after the first row of the training history), and a fixed number of seconds to start and stop.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

GOALS = {"prepare_images": 0.9, "train_autoencoder": 0.95, "cache_latents": 0.9, "train_diffusion": 0.95}
ARMS = ("bare", "ray")

PHOTOS = ("data.resolution=256", "data.shard_images=128", "data.val_fraction=0.01")
"""What prepare_images is measured on: JPEG files of ImageNet's usual size."""
DRAWN_PHOTOS, PHOTO_SIDE = 400, 448

FULL = ("data.shapes.images=48000", "autoencoder.training.images=64000", "diffusion.training.images=64000")
QUICK = (
    *("data.shapes.images=192", "data.shapes.val_images=64", "data.shard_images=64"),
    *("autoencoder.encoder_widths=[8,8,16,16]", "autoencoder.decoder_widths=[8,8,16,16]"),
    *("autoencoder.latent_channels=8", "autoencoder.training.images=256", "autoencoder.training.batch_size=16"),
    *("autoencoder.training.log_images=64", "autoencoder.training.warmup_images=64"),
    *("diffusion.denoiser.depth=1", "diffusion.denoiser.width=32", "diffusion.denoiser.heads=2"),
    *("diffusion.training.images=256", "diffusion.training.batch_size=16"),
    *("diffusion.training.log_images=64", "diffusion.training.warmup_images=64"),
)


@dataclass(frozen=True)
class Job:
    """One run of one arm, handed to a process as JSON.

    Attributes:
        stage: name of the stage.
        arm: ``bare`` or ``ray``.
        overrides: ``key=value`` words of the configuration.
        uri: where the artifact goes.
        inputs: URIs of what the stage reads, by role.
        cpus: CPUs that the arm may use; 0 means all.
    """

    stage: str
    arm: str
    overrides: tuple[str, ...]
    uri: str
    inputs: dict[str, str]
    cpus: int = 0


# ------------------------------------------------------------------------------------------------ inside an arm's process


def run_job(job: Job) -> None:
    """Do the work of one arm in this process."""
    from dcae15.config import build, from_overrides

    config, _ = build([from_overrides(job.overrides)])
    (_run_bare if job.arm == "bare" else _run_on_ray)(job, config)


def _run_on_ray(job: Job, config: Any) -> None:
    from dcae15.cluster import Cluster
    from dcae15.stages.images import prepare_images
    from dcae15.stages.latents import cache_latents
    from dcae15.tracking import TrackerSpec
    from dcae15.training import stages

    output = {"uri": job.uri, "fingerprint": "benchmark"}
    with Cluster(config) as joined:
        resources = joined.join()
        cluster = Cluster(config, dataclasses.replace(resources, cpus=job.cpus or resources.cpus))
        if job.stage.startswith("train_") and cluster.trains_in_process:
            joined.leave()
        match job.stage:
            case "prepare_images":
                prepare_images(config, cluster, **output)
            case "cache_latents":
                cache_latents(config, cluster, **job.inputs, **output)
            case "train_autoencoder":
                cluster.train(stages.train_autoencoder, config, TrackerSpec(), **job.inputs, **output)
            case "train_diffusion":
                cluster.train(stages.train_diffusion, config, TrackerSpec(), **job.inputs, **output)


def _run_bare(job: Job, config: Any) -> None:
    import torch

    torch.set_num_threads(job.cpus)
    if job.stage == "prepare_images":
        _prepare_with_a_pool(job, config)
        return
    if job.stage == "cache_latents":
        from dcae15.artifacts import ImageSet
        from dcae15.stages.latents import EncodeWriter, latent_spec, plan_latents

        images, autoencoder = job.inputs["images"], job.inputs["autoencoder"]
        image_set = ImageSet.open(images)
        spec = latent_spec(image_set, autoencoder)
        writer = EncodeWriter(job.uri, images, autoencoder, spec, config.latents, "cpu")
        for plan in plan_latents(image_set, config.latents):
            writer.write(plan)
        return
    from dcae15.runtime import LocalRuntime
    from dcae15.tracking import Tracker
    from dcae15.training import stages

    common = {"runtime": LocalRuntime(device=torch.device("cpu")), "tracker": Tracker(), "fingerprint": "benchmark"}
    getattr(stages, job.stage)(config, uri=job.uri, **job.inputs, **common)


def _prepare_with_a_pool(job: Job, config: Any) -> None:
    """Decode and crop every file of the source in a pool of processes, as a script of a page would."""
    files = sorted(path for path in Path(config.data.source).rglob("*") if path.is_file())
    size = config.data.shard_images
    parts = [(i, files[i : i + size], job.uri, config.data.resolution) for i in range(0, len(files), size)]
    Path(job.uri).mkdir(parents=True)
    with multiprocessing.Pool(job.cpus) as pool:
        list(pool.imap_unordered(_crop_files, parts))


def _crop_files(part: tuple[int, list[Path], str, int]) -> None:
    """Write the crops of some files, and a note like a shard's side file."""
    from PIL import Image

    from dcae15.data.images import center_crop

    start, files, uri, resolution = part
    crops = [center_crop(Image.open(path).convert("RGB"), resolution) for path in files]
    (Path(uri) / f"{start}.bin").write_bytes(b"".join(crop.tobytes() for crop in crops))
    (Path(uri) / f"{start}.parquet.json").write_text(json.dumps({"shard": {"count": len(files)}}))


def draw_photos(folder: Path, images: int) -> Path:
    """Draw some JPEG files and link each many times, so that ``images`` files cost what photographs cost to decode."""
    from PIL import Image

    from dcae15.config import ShapesConfig
    from dcae15.data import shapes

    settings = ShapesConfig(images=DRAWN_PHOTOS, resolution=PHOTO_SIDE)
    folder.mkdir(parents=True)
    shapes.write_range(str(folder / "drawn"), "train", 0, DRAWN_PHOTOS, settings)
    drawn = sorted(path for path in (folder / "drawn").rglob("*") if path.is_file())
    for i in range(images):
        link = folder / "photos" / f"class{i % 10}" / f"{i:07d}.jpg"
        link.parent.mkdir(parents=True, exist_ok=True)
        source = drawn[i % len(drawn)]
        if not source.with_suffix(".link").exists():
            Image.open(source).convert("RGB").save(source.with_suffix(".link"), "JPEG", quality=90)
        link.hardlink_to(source.with_suffix(".link"))
    return folder / "photos"


# ------------------------------------------------------------------------------------------------ measuring


@dataclass(frozen=True)
class Run:
    """What one arm did.

    Attributes:
        rate: images/s in the steady state.
        wall: seconds of the whole process, Ray's start and stop included.
        fixed: seconds of it that the steady rate does not explain.
        load: the machine's load average of the last minute when it ended.
    """

    rate: float
    wall: float
    fixed: float
    load: float


def steady_training(uri: str) -> tuple[float, float]:
    """Return images/s after the first row of a training's history, and the images of all rows."""
    from dcae15.training.stages import read_history

    rows = read_history(uri)
    counts = [row["images"] - before for row, before in zip(rows[1:], [r["images"] for r in rows], strict=False)]
    seconds = [count / row["images_per_second"] for row, count in zip(rows[1:], counts, strict=True)]
    return sum(counts) / sum(seconds), rows[-1]["images"]


def steady_shards(uri: str) -> tuple[float, float]:
    """Return images/s from the completion of the first shard on, and the images of all shards."""
    done = []
    for side_file in Path(uri).rglob("*.parquet.json"):
        done.append((side_file.stat().st_mtime, json.loads(side_file.read_text())["shard"]["count"]))
    done.sort()
    return sum(count for _, count in done[1:]) / (done[-1][0] - done[0][0]), sum(count for _, count in done)


def run_arm(job: Job) -> Run:
    """Run an arm in a fresh process and measure it.

    Raises:
        RuntimeError: it failed; its output is in the message.
    """
    from dcae15.command_line import THREADS

    from dcae15.cluster.connection import ENVIRONMENT

    environment = {
        name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"
    } | THREADS  # as scripts do
    if job.arm == "bare":  # what Ray gives to a worker
        environment |= {**ENVIRONMENT, "OMP_NUM_THREADS": str(job.cpus)}
    command = [sys.executable, __file__, "--job", json.dumps(dataclasses.asdict(job))]
    began = time.perf_counter()
    done = subprocess.run(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    wall = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{job.stage} ({job.arm}) failed:\n{done.stdout[-4000:]}")
    by_shards = job.stage in ("prepare_images", "cache_latents")
    rate, images = (steady_shards if by_shards else steady_training)(job.uri)
    return Run(rate, wall, wall - images / rate, os.getloadavg()[0])


def measure(
    folder: Path, overrides: Sequence[str], stages: Sequence[str], rounds: int, cpus: int, workers: int, quick: bool
) -> dict[str, Any]:
    """Run both arms of every stage, and what they need; return the runs by stage and arm."""
    shared = [f"scaling.num_workers={workers}", f"scaling.cpus_per_worker={max(1, cpus // workers)}"] if workers else []
    words = (*overrides, f"storage={folder}", *shared, "scaling.use_gpu=no")
    images = str(folder / "images" / "set")
    runs: dict[str, Any] = {}
    if "prepare_images" in stages:
        photos = draw_photos(folder / "photos", 400 if quick else 6_000)
        photo_words = (*words, *PHOTOS, f"data.source={photos}")
        runs["prepare_images"] = alternate(folder, "prepare_images", photo_words, {}, rounds, cpus)
    trained = [name for name in stages if name != "prepare_images"]
    if not trained:
        return runs
    run_arm(Job("prepare_images", "ray", words, images, {}, cpus))
    made = {"images": images}
    needed = ["train_autoencoder"]
    if set(trained) - {"train_autoencoder"}:
        needed.append("cache_latents")
    if "train_diffusion" in trained:
        needed.append("train_diffusion")
    for stage in needed:
        roles = {"train_diffusion": ("latents",), "cache_latents": ("images", "autoencoder")}.get(stage, ("images",))
        inputs = {role: made[role] for role in roles}
        if stage in stages:
            runs[stage] = alternate(folder, stage, words, inputs, rounds, cpus)
        else:
            run_arm(Job(stage, "ray", words, str(folder / stage / "ray0"), inputs, cpus))
        made["autoencoder" if stage == "train_autoencoder" else "latents"] = str(folder / stage / "ray0")
    return runs


def alternate(
    folder: Path, stage: str, words: tuple[str, ...], inputs: dict[str, str], rounds: int, cpus: int
) -> dict[str, list[Run]]:
    """Run both arms of a stage ``rounds`` times, in turn and first in turn."""
    arms: dict[str, list[Run]] = {arm: [] for arm in ARMS}
    for i in range(rounds):
        for arm in ARMS if i % 2 == 0 else reversed(ARMS):
            run = run_arm(Job(stage, arm, words, str(folder / stage / f"{arm}{i}"), inputs, cpus))
            arms[arm].append(run)
            print(f"{stage} {arm}: {run.rate:,.0f} images/s, {run.wall:.1f} s", file=sys.stderr, flush=True)
    return arms


def summarise(arms: dict[str, list[Run]], goal: float) -> dict[str, Any]:
    """Return rates, seconds and the ratio of one stage: of the medians, and its range over the rounds."""
    bare, ray = ([run.rate for run in arms[arm]] for arm in ARMS)
    pairs = [r / b for r, b in zip(ray, bare, strict=True)]
    fixed = {arm: statistics.median(run.fixed for run in arms[arm]) for arm in ARMS}
    return {
        "runs": {arm: [dataclasses.asdict(run) for run in arms[arm]] for arm in ARMS},
        "images_per_second": {arm: spread([run.rate for run in arms[arm]]) for arm in ARMS},
        "wall_seconds": {arm: spread([run.wall for run in arms[arm]]) for arm in ARMS},
        "fixed_seconds": fixed,
        "ratio": statistics.median(ray) / statistics.median(bare),
        "ratio_range": [min(pairs), max(pairs)],
        "goal": goal,
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return minimum, median and maximum."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def table(result: dict[str, Any]) -> str:
    """Return the result as a Markdown table."""
    lines = [
        "| stage | arm | images/s: min, median, max | Ray / bare (range) | goal | whole stage: median | fixed part |",
        "|---|---|---|---|---|---|---|",
    ]
    for stage, body in result["stages"].items():
        for arm in ARMS:
            rate, wall = body["images_per_second"][arm], body["wall_seconds"][arm]
            low, high = body["ratio_range"]
            ratio = f"{body['ratio']:.1%} ({low:.1%} to {high:.1%}) | {body['goal']:.0%}" if arm == "ray" else "|"
            lines.append(
                f"| {stage} | {arm} | {rate['min']:,.0f}, {rate['median']:,.0f}, {rate['max']:,.0f} | {ratio} "
                f"| {wall['median']:.1f} s | {body['fixed_seconds'][arm]:.1f} s |"
            )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, one round: shows that it works, measures nothing"
    )
    parser.add_argument("--rounds", type=int, default=0, help="runs of each arm of each stage (3; with --quick 1)")
    parser.add_argument("--stages", nargs="+", choices=list(GOALS), default=["train_autoencoder", "cache_latents"])
    parser.add_argument("--cpus", type=int, default=os.cpu_count() or 1, help="CPUs of each arm (all)")
    parser.add_argument(
        "--workers", type=int, default=0, help="training workers that Ray's arm shares its CPUs among (0: the default)"
    )
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.job:
        run_job(Job(**json.loads(given.job)))
        return 0
    import ray
    import torch

    rounds = given.rounds or (1 if given.quick else 3)
    folder = Path(tempfile.mkdtemp(prefix="dcae15-ray-cost-"))
    try:
        runs = measure(
            folder, QUICK if given.quick else FULL, given.stages, rounds, given.cpus, given.workers, given.quick
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    versions = {"python": platform.python_version(), "torch": torch.__version__, "ray": ray.__version__}
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "quick": given.quick,
        "cpus": given.cpus,
        "versions": versions,
        "stages": {stage: summarise(arms, GOALS[stage]) for stage, arms in runs.items()},
    }
    print(table(result))
    if given.json:
        given.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
