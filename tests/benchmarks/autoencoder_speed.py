"""Measure what the autoencoder costs: size, work, memory and speed, beside diffusers' AutoencoderDC with the same weights.

python tests/benchmarks/autoencoder_speed.py [--quick] [--preset NAME ...] [--resolution N] [--batch N] [--switches S ...]
    [--rounds N] [--seconds N] [--device cpu|cuda] [--arms ours diffusers] [--json FILE]

Both arms hold the very same tensors (random ones) and one optimizer, and run in one process in turn, first in turn. A
training step is encode, decode, L1, backward and AdamW, all channels kept. A set of switches is ``plain``, or some of
bf16, channels_last, compile and activation_checkpointing joined by ``+``; both arms get the same from the same code.
Peak memory is, on CPUs, the growth of the resident set in a fresh process beyond weights and inputs; on CUDA, what was
allocated at the peak, weights and the optimizer's state (from the training step on) included.
MACs are those that torch.utils.flop_counter sees (convolutions, matrix products), for one image.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import importlib.util
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dcae15.models.autoencoder import Autoencoder
from tests.benchmarks.autoencoder_arms import TINY, Arm, Job, diffusers_twin, run_job, spec_of

ARMS = ("ours", "diffusers")
OPERATIONS = ("encode", "decode", "train_step")
SWITCHES = ("bf16", "channels_last", "compile", "activation_checkpointing")
CUDA_SWITCHES = ("plain", "bf16", "bf16+channels_last", "bf16+compile", "bf16+activation_checkpointing")
PRESETS = ("dc-ae-f32c128-1.5", "dc-ae-f64c128-1.5")


def size(preset: str, resolution: int, arms: Sequence[str]) -> dict[str, Any]:
    """Return what needs no computation: parameters, the latent's shape, and MACs per image of each arm."""
    spec = spec_of(preset)
    macs: dict[str, dict[str, int]] = {}
    parameters, shape = 0, ()
    for arm in arms:
        with torch.device("meta"):
            network = Autoencoder(spec) if arm == "ours" else diffusers_twin(spec)
            x = torch.empty(1, 3, resolution, resolution)
        parameters = sum(p.numel() for p in network.parameters())
        wrapped, macs[arm] = Arm(arm, network, (), "cpu"), {}
        for operation in ("encode", "decode"):
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                x = getattr(wrapped, operation)(x)
            macs[arm][operation] = counter.get_total_flops() // 2
            shape = shape or tuple(x.shape[1:])
    return {"parameters": parameters, "latent_shape": shape, "macs": macs}


def run(job: Job) -> dict[str, Any]:
    """Run a job in a fresh process.

    Raises:
        RuntimeError: it failed; its output is in the message.
    """
    command = [sys.executable, __file__, "--job", json.dumps(dataclasses.asdict(job))]
    done = subprocess.run(command, text=True, capture_output=True)
    if done.returncode:
        raise RuntimeError(f"{job} failed:\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(job: Job) -> dict[str, Any]:
    """Return rates, ratios and peak memory of both arms, by operation."""
    result = run(job)
    for operation, found in result.items():
        if "failed" in found:
            continue
        rates = found["images_per_second"]
        found["summary"] = {arm: spread(values) for arm, values in rates.items()}
        if len(job.arms) == 2:
            ratios = [ours / theirs for ours, theirs in zip(*(rates[arm] for arm in ARMS), strict=True)]
            found["ratio"] = spread(ratios)
        if job.device == "cpu":
            for arm in job.arms:
                alone = dataclasses.replace(job, arms=(arm,), operations=(operation,), rounds=0)
                found["peak_bytes"][arm] = run(alone)["peak_bytes"]
        print(
            f"{job.preset} {'+'.join(job.switches) or 'plain'} {operation}: {_rates(found)}",
            file=sys.stderr,
            flush=True,
        )
    return result


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return minimum, median and maximum."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def _rates(found: dict[str, Any]) -> str:
    return ", ".join(f"{arm} {s['median']:.3g} images/s" for arm, s in found["summary"].items())


def table(result: dict[str, Any]) -> str:
    """Return the result as two Markdown tables."""
    arms = result["arms"]
    work = [f"MACs per image, {arm}: encode, decode" for arm in arms]
    lines = [*_row("model", "resolution", "parameters", "latent", *work), "|" + "---|" * (4 + len(arms))]
    for name, model in result["models"].items():
        macs = [f"{m['encode'] / 1e9:,.4g} G, {m['decode'] / 1e9:,.4g} G" for m in model["macs"].values()]
        shape = " x ".join(map(str, model["latent_shape"]))
        lines += _row(name, model["resolution"], f"{model['parameters'] / 1e6:,.4g} M", shape, *macs)
    heads = [f"{arm}, images/s: min, median, max" for arm in arms]
    ratio = ["ours / diffusers: median (range)"] if len(arms) == 2 else []
    peaks = [f"peak memory, {arm}" for arm in arms]
    head = ("model", "switches", "batch", "operation", *heads, *ratio, *peaks)
    lines += ["", *_row(*head), "|" + "---|" * len(head)]
    for name, model in result["models"].items():
        for switches, operations in model["runs"].items():
            for operation, found in operations.items():
                lines += _row(name, switches, result["batch"], operation, *_cells(found, arms))
    return "\n".join(lines)


def _cells(found: dict[str, Any], arms: Sequence[str]) -> list[str]:
    if "failed" in found:
        return [found["failed"]] + [""] * (len(arms) * 2 - (len(arms) == 1))
    cells = ["{min:.4g}, {median:.4g}, {max:.4g}".format(**found["summary"][arm]) for arm in arms]
    if "ratio" in found:
        cells.append("{median:.2f} ({min:.2f} to {max:.2f})".format(**found["ratio"]))
    return cells + [f"{found['peak_bytes'][arm] / 2**20:,.0f} MiB" for arm in arms]


def _row(*cells: Any) -> list[str]:
    return ["| " + " | ".join(map(str, cells)) + " |"]


def switches_of(text: str) -> str:
    """Return a valid set of switches; raise for argparse otherwise."""
    if text != "plain" and (unknown := set(text.split("+")) - set(SWITCHES)):
        raise argparse.ArgumentTypeError(
            f"{', '.join(sorted(unknown))}: use plain, or {', '.join(SWITCHES)} joined by +"
        )
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a tiny graph, one round: shows that it works")
    parser.add_argument("--preset", nargs="+", help=f"published models ({', '.join(PRESETS)})")
    parser.add_argument("--resolution", type=int, default=0, help="side of the images in pixels (256; quick 32)")
    parser.add_argument("--batch", type=int, default=0, help="images per call (CUDA 16; CPU 1; quick 2)")
    parser.add_argument(
        "--switches", nargs="+", type=switches_of, help="sets such as plain bf16+compile (CUDA: some; CPU: plain)"
    )
    parser.add_argument("--operations", nargs="+", choices=OPERATIONS, default=OPERATIONS)
    parser.add_argument("--rounds", type=int, default=0, help="measurements of each arm (5; quick 1)")
    parser.add_argument("--seconds", type=float, default=-1.0, help="least length of a measurement (3; quick 0)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: CUDA where there is one")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.job:
        print(json.dumps(run_job(Job(**json.loads(given.job)))))
        return 0
    arms = tuple(arm for arm in ARMS if arm in given.arms)
    if "diffusers" in arms and importlib.util.find_spec("diffusers") is None:
        arms = ("ours",)
        print("diffusers is not installed: its arm is left out (pip install diffusers)", file=sys.stderr)
    device = given.device or ("cuda" if torch.cuda.is_available() else "cpu")
    quick, cuda = given.quick, device == "cuda"
    resolution = given.resolution or (32 if quick else 256)
    batch = given.batch or (2 if quick else 16 if cuda else 1)
    rounds = given.rounds or (1 if quick else 5)
    seconds = given.seconds if given.seconds >= 0 else (0.0 if quick else 3.0)
    result: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "quick": quick,
        "device": torch.cuda.get_device_name() if cuda else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, **_version("diffusers", arms)},
        "arms": arms,
        "batch": batch,
        "models": {},
    }
    for preset in given.preset or ((TINY,) if quick else PRESETS):
        model = result["models"][preset] = {"resolution": resolution, **size(preset, resolution, arms), "runs": {}}
        for name in given.switches or (CUDA_SWITCHES if cuda and not quick else ("plain",)):
            switches = () if name == "plain" else tuple(name.split("+"))
            operations = tuple(o for o in OPERATIONS if o in given.operations)
            job = Job(preset, switches, arms, operations, device, resolution, batch, rounds, seconds)
            model["runs"][name] = measure(job)
    print(table(result))
    if given.json:
        given.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


def _version(package: str, arms: Sequence[str]) -> dict[str, str]:
    return {package: importlib.metadata.version(package)} if package in arms else {}


if __name__ == "__main__":
    sys.exit(main())
