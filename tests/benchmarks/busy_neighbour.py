"""Measure what a run keeps of its speed beside another busy process: before and after, alone and beside it, in turn.

python tests/benchmarks/busy_neighbour.py [--quick] [--rounds N] [--seconds S] [--work NAME ...] [--json FILE]

Each slice is a stage's script in a fresh process, with the default configuration: its images/s between the first and the last
line of progress within the time. "before" always lets computing threads wait awake, as the scripts did until 2026-11-27; "after"
is what they do now. "beside" has one process of Python that only computes. With n CPUs and n computing threads, a fair share is
then n / (n + 1) of the speed alone. A slice is taken again, at most twice, where yet other processes took a tenth of a CPU.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.results import keep, ratio, spread, table
from tests.scripts import Workplace, workplace

ARMS, PLACES = ("before", "after"), ("alone", "beside")
SHORT = ("tracking.enabled=false", "arms=[]", "scaling.use_gpu=no", "data.shapes.images=8192")
MADE = (
    *SHORT,
    *(f"{name}.training.{word}" for name in ("autoencoder", "diffusion") for word in ("images=64", "warmup_images=0")),
)
ENDLESS = ("training.images=10000000", "training.log_images=320", "training.warmup_images=0")
WORK = {
    "train_autoencoder": [f"autoencoder.{word}" for word in ENDLESS],
    "train_diffusion": [f"diffusion.{word}" for word in ENDLESS],
    "sample": ["sampling.images=100000", "sampling.shard_images=50"],
}
"""Stages, and what makes them last and tell how far they are."""
READS = {"train_autoencoder": ("images",), "train_diffusion": ("latents",), "sample": ("denoiser", "autoencoder")}
MAKES = {"prepare_images": "images", "train_autoencoder": "autoencoder", "cache_latents": "latents"}
MAKES |= {"train_diffusion": "denoiser"}
DONE = re.compile(r"([\d,]+)/[\d,]+ images")
WAITS_SECONDS = 120.0


@dataclass(frozen=True)
class Slice:
    """What was measured in a slice."""

    rate: float  # images/s
    others: float  # CPUs that processes of others took


def work(arm: str, stage: str, words: Sequence[str]) -> int:
    """Run a stage's script in this process."""
    from dcae15.cli import script
    from dcae15.cluster import machine

    if arm == "before":
        machine.pushed_aside = lambda: None  # nobody looks whether others want the cores
    return script(stage, words)


@contextmanager
def neighbour(there: bool) -> Iterator[list[psutil.Process]]:
    """Let another process compute while the block runs."""
    if not there:
        yield []
        return
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield [psutil.Process(process.pid)]
    finally:
        process.kill()
        process.wait()


def busy() -> float:
    """Return how many seconds all CPUs of the machine have computed."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)


def measure(place: Workplace, arm: str, stage: str, words: Sequence[str], beside: bool, seconds: float) -> Slice:
    """Run a slice."""
    command = [sys.executable, __file__, "--job", arm, stage, *words, f"storage={place.folder / str(time.time_ns())}"]
    environment = {**place.environment()}
    environment.pop("GOMP_SPINCOUNT", None)  # of the tests; the scripts' own is what is measured
    environment.pop("OMP_NUM_THREADS", None)
    seen: list[tuple[float, float, float, float]] = []  # time, images, seconds of all CPUs, seconds of ours
    with neighbour(beside) as others, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
        ours = [psutil.Process(process.pid), *others]
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if found := DONE.search(line):
                    own = sum(p.cpu_times().user + p.cpu_times().system for p in ours)
                    seen.append((time.perf_counter(), float(found[1].replace(",", "")), busy(), own))
                    if seen[-1][0] - seen[0][0] >= seconds and len(seen) > 1:
                        break
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        if len(seen) < 2:
            errors.seek(0)
            raise RuntimeError(f"{stage} ({arm}) ended early:\n{errors.read().decode()[-4000:]}")
    took, images, all_cpus, own = (last - first for first, last in zip(seen[0], seen[-1], strict=True))
    return Slice(images / took, max(0.0, all_cpus - own) / took)


def inputs(place: Workplace, stages: Sequence[str]) -> dict[str, str]:
    """Make what the stages read, as short as it can be; return the artifacts by role."""
    made: dict[str, str] = {}
    needed = {role for stage in stages for role in READS[stage]}
    for stage, role in MAKES.items():
        if needed & set(list(MAKES.values())[list(MAKES).index(stage) :]):
            done = place.run(stage, *MADE, f"storage={place.folder / 'made'}")
            if done.code:
                raise RuntimeError(f"{stage} failed:\n{done.err[-4000:]}")
            made[role] = done.artifact
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one short round of one stage: shows that it works")
    parser.add_argument("--rounds", type=int, default=0, help="slices of each arm and place (3; with --quick 1)")
    parser.add_argument("--seconds", type=float, default=0.0, help="length of a slice (10; with --quick 0.1)")
    parser.add_argument("--work", nargs="+", choices=WORK, help="stages (the trainings; with --quick one)")
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    parser.add_argument("--job", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.job:
        arm, stage, *words = given.job
        return work(arm, stage, words)
    stages = given.work or ["train_autoencoder", *([] if given.quick else ["train_diffusion"])]
    rounds, seconds = given.rounds or (1 if given.quick else 3), given.seconds or (0.1 if given.quick else 10.0)
    runs = {(stage, arm, where): [] for stage in stages for arm in ARMS for where in PLACES}
    with tempfile.TemporaryDirectory(prefix="dcae15-neighbour-") as folder, workplace(Path(folder) / "cwd") as place:
        made = inputs(place, stages)
        for i in range(rounds):
            for stage, arm, where in runs if i % 2 == 0 else reversed(runs):
                words = [*SHORT, *WORK[stage], *(f"{role}={made[role]}" for role in READS[stage])]
                for _ in range(1 if given.quick else 3):
                    found = measure(place, arm, stage, words, where == "beside", seconds)
                    line = f"{stage} {arm} {where}: {found.rate:,.0f} images/s, others took {found.others:.2f} CPUs"
                    print(line, file=sys.stderr, flush=True)
                    if found.others < 0.1:
                        break
                runs[stage, arm, where].append(found)
    cpus, rows = os.cpu_count() or 1, []
    for stage in stages:
        for arm in ARMS:
            alone, beside = ([found.rate for found in runs[stage, arm, where]] for where in PLACES)
            fair = median(beside) / median(alone) * (cpus + 1) / cpus
            quiet = ratio(alone, [found.rate for found in runs[stage, "before", "alone"]]) if arm != "before" else ""
            others = max(found.others for where in PLACES for found in runs[stage, arm, where])
            kept = ratio(beside, alone)
            rows.append(
                (stage, arm, spread(alone, ",.0f"), spread(beside, ",.0f"), kept, f"{fair:.0%}", quiet, f"{others:.2f}")
            )
    heads = ("stage", "arm", "alone, images/s: min, median, max", "beside a busy process", "beside / alone (range)")
    heads = (*heads, "of the fair share", "alone, after / before (range)", "most CPUs of others")
    print(table(heads, rows))
    numbers = {" ".join(key): [asdict(found) for found in slices] for key, slices in runs.items()}
    keep(numbers, given.json, quick=given.quick, seconds=seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
