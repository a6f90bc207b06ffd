"""Measure how fast pictures are decoded, format by format, also against the code of another checkout.

python tests/benchmarks/decoding_speed.py [--quick] [--other CHECKOUT] [--rounds N] [--json FILE]

Pictures of 500 x 375 pixels (a smooth one with noise) are decoded from memory in one thread. Where there are two arms, they
alternate with each picture, and which begins changes. Seconds are those of the process (CPU time), because others may compute
on the same machine.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from PIL import Image, features

from dcae15.data import images
from tests.benchmarks.results import keep, ratio, spread, table

SIZE = (375, 500)
KINDS = {"JPEG": {"quality": 92}, "PNG": {}, "WEBP": {"quality": 90}, "AVIF": {}, "PPM": {}}
BEFORE = ("JPEG", "PNG", "WEBP")  # what earlier code decodes, too


def pictures(kind: str, count: int) -> list[bytes]:
    """Return pictures that all differ."""
    found, (y, x) = [], np.mgrid[: SIZE[0], : SIZE[1]]
    for seed in range(count):
        noise = np.random.default_rng(seed).normal(0, 6, (*SIZE, 3))
        smooth = np.stack([x / 2, y / 1.5, (x + y) / 4], -1) + noise + seed
        buffer = io.BytesIO()
        Image.fromarray(np.clip(smooth, 0, 255).astype(np.uint8)).save(buffer, kind, **KINDS[kind])
        found.append(buffer.getvalue())
    return found


def module_of(checkout: str) -> Any:
    """Return the image module of another checkout, beside ours."""
    spec = importlib.util.spec_from_file_location("other_images", Path(checkout) / "dcae15/data/images.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rates(arms: dict[str, Any], files: list[bytes], turn: int) -> dict[str, float]:
    """Return pictures per second of each arm; they alternate with each picture."""
    spent = dict.fromkeys(arms, 0.0)
    for place, data in enumerate(files):
        for arm in list(arms) if (place + turn) % 2 else reversed(arms):
            begun = time.process_time()
            arms[arm].decode(data, min_side=8, max_pixels=10**8)
            spent[arm] += time.process_time() - begun
    return {arm: len(files) / seconds for arm, seconds in spent.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few pictures and rounds")
    parser.add_argument("--other", default="", help="a checkout whose code decodes the same pictures")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    count, rounds = (3, 2) if options.quick else (20, options.rounds)
    other = module_of(options.other) if options.other else None
    heads = ["format", "images/s: min, median, max", *(["before", "ratio"] if other else [])]
    rows, numbers = [], {}
    for kind in KINDS:
        if kind == "AVIF" and not features.check("avif"):
            continue
        arms = {"ours": images} | ({"other": other} if other and kind in BEFORE else {})
        files, found = pictures(kind, count), {arm: [] for arm in arms}
        rates(arms, files, 0)
        for turn in range(rounds):
            for arm, speed in rates(arms, files, turn).items():
                found[arm].append(speed)
        more = [spread(found["other"]), ratio(found["ours"], found["other"])] if "other" in found else ["", ""]
        rows.append([kind, spread(found["ours"]), *(more if other else [])])
        numbers[kind] = found
    print(table(heads, rows))
    keep(numbers, options.json, rounds=rounds, pictures=count)


if __name__ == "__main__":
    main()
