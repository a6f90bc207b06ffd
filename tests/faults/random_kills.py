"""Kill a caching job at random, again and again, and compare what it ends with to an undisturbed job.

python tests/faults/random_kills.py [--kills 50] [--seed 0] [--folder FOLDER]

Every kill is a SIGKILL at a random moment of the running job, of the driver, an encoder actor or the raylet (which takes the
whole local cluster with it). The same command then continues. At the end the latent set must hold every image once, and be
equal to the undisturbed one bit for bit, its statistics included.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dcae15.artifacts import LatentSet
from dcae15.data import shards
from tests.scripts import REPOSITORY, TINY, Workplace, parent, processes, wait_until, workplace

VICTIMS = ("driver", "actor", "raylet")
LONGEST_LIFE = 3.0  # seconds from the first sign of work to the kill, at most


@dataclass(frozen=True)
class Outcome:
    """What happened.

    Attributes:
        killed: processes that were killed, by kind.
        starts: times that the driver was started.
        progress: shards that were there when each driver started.
        disturbed: the latent set that was killed.
        undisturbed: the other one.
    """

    killed: Counter[str]
    starts: int
    progress: list[int]
    disturbed: LatentSet
    undisturbed: LatentSet


def torment(folder: Path, kills: int, seed: int, images: int) -> Outcome:
    """Prepare ``images`` images and an autoencoder, cache their latents twice, once with ``kills`` kills."""
    chance = random.Random(seed)
    shared = [
        "--config",
        str(TINY),
        "tracking.enabled=false",
        f"data.shapes.images={images}",
        "data.shapes.val_images=8",
    ]
    shared += ["data.shard_images=4", "latents.mirror=true", "arms=[]", "autoencoder.training.images=64"]
    with workplace(folder / "cwd") as place:
        made = [
            place.run(script, *shared, f"storage={folder / 'made'}")
            for script in ("prepare_images", "train_autoencoder")
        ]
        for done in made:
            assert done.code == 0, done.err
        given = [f"{role}={_artifact(done.out)}" for role, done in zip(("images", "autoencoder"), made, strict=True)]
        calm = place.run("cache_latents", *shared, *given, f"storage={folder / 'calm'}")
        assert calm.code == 0, calm.err
        undisturbed = LatentSet.open(_artifact(calm.out))
        root = folder / "storm" / Path(undisturbed.uri).relative_to(folder / "calm")
        killed: Counter[str] = Counter()
        progress: list[int] = []
        log = folder / "log"
        while True:
            progress.append(_written(root))
            driver = _start(place, [*shared, *given, f"storage={folder / 'storm'}"], log)
            while killed.total() < kills and driver.poll() is None:
                before = _written(root)
                wait_until(lambda b=before, d=driver: _written(root) > b or d.poll() is not None, 300, "a shard")
                time.sleep(chance.uniform(0, LONGEST_LIFE))  # the moment of the kill, not a synchronisation
                victim = chance.choice(VICTIMS)
                if driver.poll() is None and _kill(place, driver, victim):
                    killed[victim] += 1
                    print(f"kill {killed.total()}: {victim}, {_written(root)} shards", file=sys.stderr, flush=True)
                    if victim != "actor":
                        break
            if driver.poll() is None and killed.total() < kills:
                driver.kill()  # after the raylet, its driver: it may wait for a cluster that is gone
            code = driver.wait(600)
            wait_until(lambda: not place.ray_processes(), 300, "Ray ends with its driver")
            if code == 0:
                break
            if killed.total() >= kills and code not in (-signal.SIGKILL,):
                raise AssertionError(f"ended with {code}:\n{log.read_text()[-3000:]}")
        return Outcome(killed, len(progress), progress, LatentSet.open(str(root)), undisturbed)


def check(outcome: Outcome) -> int:
    """Compare the two latent sets; return the rows."""
    ours, theirs = outcome.disturbed, outcome.undisturbed
    assert ours.splits == theirs.splits, "other shards, counts or checksums"
    assert ours.statistics == theirs.statistics
    ids = [
        name
        for split in ours.splits.values()
        for shard in split.shards
        for name in shards.read_shard(ours.uri, shard).column("id").to_pylist()
    ]
    assert len(ids) == len(set(ids)) == sum(split.count for split in theirs.splits.values())
    named = {shard.path for split in ours.splits.values() for shard in split.shards}
    there = {str(path.relative_to(ours.uri)) for path in Path(ours.uri).rglob("*.parquet")}
    assert there == named, "files that the manifest does not name"
    return len(ids)


def _start(place: Workplace, words: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, REPOSITORY / "pipelines" / "cache_latents.py", *words]
    with log.open("ab") as out:
        return subprocess.Popen(
            command, cwd=place.folder, env=place.environment(), stdout=out, stderr=subprocess.STDOUT
        )


def _kill(place: Workplace, driver: subprocess.Popen[bytes], victim: str) -> bool:
    """SIGKILL a process of the kind; False when there is none."""
    if victim == "driver":
        driver.kill()
        return True
    raylets = {pid for pid, line in processes() if "raylet/raylet" in line and str(place.ray) in line}
    actors = [pid for pid, line in processes() if line.startswith("ray::MapWorker") and parent(pid) in raylets]
    for pid in raylets if victim == "raylet" else actors[:1]:
        os.kill(pid, signal.SIGKILL)
        return True
    return False


def _written(root: Path) -> int:
    return len(list(root.rglob("*.parquet.json")))


def _artifact(out: str) -> str:
    return next(line.split(": ", 1)[1] for line in reversed(out.splitlines()) if line.startswith("artifact: "))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it and print what happened."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=16_000, help="images of the job: more than the kills let through")
    parser.add_argument("--folder", type=Path, help="where to work (a new temporary folder)")
    given = parser.parse_args(arguments)
    folder = given.folder or Path(tempfile.mkdtemp(prefix="dcae15-kills-"))
    began = time.monotonic()
    outcome = torment(folder, given.kills, given.seed, given.images)
    rows = check(outcome)
    victims = ", ".join(f"{count} times the {victim}" for victim, count in sorted(outcome.killed.items()))
    print(f"{outcome.killed.total()} kills ({victims}), {outcome.starts} starts, {time.monotonic() - began:.0f} s")
    print(f"shards that were there at each start: {outcome.progress}")
    print(f"{rows:,} latents: complete, none twice, bit for bit those of the undisturbed job, as are the statistics")
    if outcome.killed.total() < given.kills:
        print(f"the job ended before {given.kills} kills: give it more --images", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
