"""Kill a caching job at random, again and again, and compare what it ends with to an undisturbed job.

python tests/faults/random_kills.py [--minutes 10] [--seed 0] [--images 16000] [--folder FOLDER]

Every kill is a SIGKILL at a random moment of the running job, of the driver, an encoder actor or the raylet (which takes the
whole local cluster with it). The same command then continues. After the minutes nobody is killed any more; the latent set
must then hold every image once, and be equal to the undisturbed one bit for bit, its statistics included.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dcae15.artifacts import LatentSet
from dcae15.data import shards
from tests.scripts import TINY, Background, Workplace, wait_until, workplace

VICTIMS = ("driver", "actor", "raylet")
LONGEST_LIFE = 3.0  # seconds from the first sign of work to the kill, at most


def torment(place: Workplace, folder: Path, minutes: float, seed: int, images: int) -> tuple[Counter[str], list[int]]:
    """Cache the latents of images twice, the second time with kills; compare; return the kills and the shards at each start."""
    chance, killed, progress = random.Random(seed), Counter[str](), list[int]()
    words = ["--config", str(TINY), "tracking.enabled=false", "arms=[]", "autoencoder.training.images=64"]
    words += [f"data.shapes.images={images}", "data.shapes.val_images=8", "data.shard_images=4", "latents.mirror=true"]
    words += ["scaling.encoders=[2,0]"]  # actors, also on one machine
    for script, role in (("prepare_images", "images"), ("train_autoencoder", "autoencoder"), ("cache_latents", "")):
        done = place.run(script, *words, f"storage={folder / 'calm'}", timeout_s=100_000)
        assert done.code == 0, done.err
        words += [f"{role}={done.artifact}"] if role else []
    calm = Path(done.artifact)
    root = folder / "storm" / calm.relative_to(folder / "calm")

    def written() -> int:
        return len(list(root.rglob("*.parquet.json")))

    end, code = time.monotonic() + 60 * minutes, -1
    while code:
        progress.append(written())
        run = place.start("cache_latents", *words, f"storage={folder / 'storm'}", log=folder / "log")
        while time.monotonic() < end and run.process.poll() is None:
            before = written()
            wait_until(lambda b=before, r=run: written() > b or r.process.poll() is not None, 600, "a shard")
            time.sleep(chance.uniform(0, LONGEST_LIFE))  # the moment of the kill, not a synchronisation
            victim = chance.choice(VICTIMS)
            if kill(run, victim):
                killed[victim] += 1
                print(f"kill {killed.total()}: {victim}, {written()} shards", file=sys.stderr, flush=True)
                if victim != "actor":
                    run.process.kill()  # after the raylet its driver, which may wait for a cluster that is gone
        code = run.process.wait(3600)
        wait_until(lambda: not place.ray_processes(), 300, "Ray ends with its driver")
        if code not in (0, -signal.SIGKILL):
            raise AssertionError(f"ended with {code}:\n{run.log.read_text()[-3000:]}")
    check(LatentSet.open(str(root)), LatentSet.open(str(calm)))
    return killed, progress


def kill(run: Background, victim: str) -> bool:
    """SIGKILL a process of the kind; False when there is none."""
    pid = run.process.pid if victim == "driver" else run.place.worker("ray::MapWorker")
    if victim == "raylet":
        pid = next(iter(run.place.raylets()), 0)
    if not pid or run.process.poll() is not None:
        return False
    os.kill(pid, signal.SIGKILL)
    return True


def check(ours: LatentSet, theirs: LatentSet) -> None:
    """Compare two latent sets."""
    assert ours.splits == theirs.splits, "other shards, counts or checksums"
    assert ours.statistics == theirs.statistics
    named = [shard for split in ours.splits.values() for shard in split.shards]
    ids = [name for shard in named for name in shards.read_shard(ours.uri, shard).column("id").to_pylist()]
    assert len(ids) == len(set(ids)) == sum(split.count for split in theirs.splits.values())
    there = {str(path.relative_to(ours.uri)) for path in Path(ours.uri).rglob("*.parquet")}
    assert there == {shard.path for shard in named}, "files that the manifest does not name"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it and print what happened."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10, help="how long to kill")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=16_000, help="images of the job: more than the kills let through")
    parser.add_argument("--folder", type=Path, help="where to work (a new temporary folder)")
    given = parser.parse_args(arguments)
    folder = (given.folder or Path(tempfile.mkdtemp(prefix="dcae15-kills-"))).resolve()
    began = time.monotonic()
    with workplace(folder / "cwd") as place:
        killed, progress = torment(place, folder, given.minutes, given.seed, given.images)
    victims = ", ".join(f"{count} times the {victim}" for victim, count in sorted(killed.items()))
    print(f"{killed.total()} kills ({victims}), {len(progress)} starts, {time.monotonic() - began:.0f} s")
    print(f"shards that were there at each start: {progress}")
    print("the latents are complete, none is there twice, and all bits are those of the undisturbed job")
    return 0


if __name__ == "__main__":
    sys.exit(main())
