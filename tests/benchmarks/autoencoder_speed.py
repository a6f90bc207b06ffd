"""Measure what the autoencoder costs: size, work, memory and speed, beside diffusers' AutoencoderDC with the same weights.

python tests/benchmarks/autoencoder_speed.py [--quick] [--preset NAME ...] [--resolution N] [--batch N] [--switches S ...]
    [--rounds N] [--seconds N] [--device cpu|cuda] [--arms ours diffusers] [--json FILE]

Both arms hold the very same tensors (random ones) and one optimizer, and run in one process in turn, first in turn. A
training step is encode, decode, L1, backward and AdamW, all channels kept. A set of switches is ``plain``, or some of
bf16, channels_last, compile and activation_checkpointing joined by ``+``; both arms get the same from the same code.
Peak memory is, on CUDA, what was allocated at the peak, weights and the optimizer's state (from the training step on) included.
MACs are those that torch.utils.flop_counter sees (convolutions, matrix products), for one image.
"""

from __future__ import annotations

import argparse
import functools
import gc
import importlib.util
import itertools
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from dcae15.export.foreign_config import diffusers_config
from dcae15.models.autoencoder import Autoencoder
from dcae15.models.presets import preset as published
from dcae15.models.spec import AutoencoderSpec
from tests.benchmarks.results import keep, ratio, spread, table

ARMS = ("ours", "diffusers")
OPERATIONS = ("encode", "decode", "train_step")
SWITCHES = ("bf16", "channels_last", "compile", "activation_checkpointing")
CUDA_SWITCHES = ("plain", "bf16", "bf16+channels_last", "bf16+compile", "bf16+activation_checkpointing")
PRESETS = ("dc-ae-f32c128-1.5", "dc-ae-f64c128-1.5")
TINY = "tiny"  # the graph of --quick


def network_of(arm: str, preset: str) -> tuple[Any, AutoencoderSpec]:
    """Return an implementation of a graph on the meta device, and the graph."""
    spec = AutoencoderSpec(4, (8, 8, 16), (0, 1, 1), (8, 8, 16), (0, 1, 1)) if preset == TINY else published(preset)
    with torch.device("meta"):
        if arm == "ours":
            return Autoencoder(spec), spec
        from diffusers import AutoencoderDC  # pyright: ignore[reportMissingImports]

        return AutoencoderDC.from_config(diffusers_config(spec, 1.0)), spec


class Arm:
    """One implementation under test; its functions take and return plain tensors."""

    def __init__(self, name: str, network: Any, switches: Sequence[str] = (), device: str = "cpu") -> None:
        self.network, self.plain = network, {} if name == "ours" else {"return_dict": False}
        self.autocast = functools.partial(torch.autocast, device, torch.bfloat16, enabled="bf16" in switches)
        if "activation_checkpointing" in switches:
            for stage in (*network.encoder.down_blocks, *network.decoder.up_blocks):
                for block in stage.children():
                    block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
        if "compile" in switches:
            network.encoder.compile()
            network.decoder.compile()

    def encode(self, pixels: Tensor) -> Tensor:
        made = self.network.encode(pixels, **self.plain)
        return made[0] if self.plain else made

    def decode(self, latents: Tensor) -> Tensor:
        made = self.network.decode(latents, **self.plain)
        return made[0] if self.plain else made


class Bench:
    """The arms of a job, sharing all weights, and the inputs of its operations."""

    def __init__(self, preset: str, switches: Sequence[str], arms: Sequence[str], side: int, batch: int, device: str):
        networks = {arm: network_of(arm, preset)[0] for arm in {"ours", *arms}}
        spec = networks["ours"].spec
        form = torch.channels_last if "channels_last" in switches else torch.contiguous_format
        generator = torch.Generator().manual_seed(0)
        weights = {}
        for name, value in networks["ours"].state_dict().items():
            # As after training: norms at 1, the others small enough that the signal keeps its size.
            is_norm = "norm" in name and name.endswith("weight")
            std = 0.5 / math.sqrt(math.prod(value.shape[1:])) if value.ndim > 1 else 0.0
            tensor = torch.randn(value.shape, generator=generator) * std + float(is_norm)
            tensor = tensor.to(device, memory_format=form if value.ndim == 4 else torch.contiguous_format)
            weights[name] = nn.Parameter(tensor)
        for network in networks.values():
            network.load_state_dict(weights, assign=True)
        self.arms = {arm: Arm(arm, networks[arm], switches, device) for arm in arms}
        self.optimizer = torch.optim.AdamW(list(weights.values()), lr=1e-6)
        shapes = (3, side, side), (spec.latent_channels, *[side // spec.spatial_compression] * 2)
        noise = [torch.rand((batch, *shape), generator=generator) * 2 - 1 for shape in shapes]
        self.pixels, self.latents = (made.to(device, memory_format=form) for made in noise)

    def call(self, arm: str, operation: str) -> None:
        """Do one operation once."""
        network = self.arms[arm]
        if operation != "train_step":
            with torch.no_grad(), network.autocast():
                getattr(network, operation)(self.pixels if operation == "encode" else self.latents)
            return
        with network.autocast():
            reconstruction = network.decode(network.encode(self.pixels))
        loss = (reconstruction.float() - self.pixels).abs().mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()

    @torch.no_grad()
    def check(self) -> None:
        """Make sure that all arms compute the same; raise ArithmeticError if not."""
        for operation, x in (("encode", self.pixels), ("decode", self.latents)):
            results = []
            for arm in self.arms.values():
                with arm.autocast():
                    results.append(getattr(arm, operation)(x).float())
            error = max(float((r - results[0]).norm() / results[0].norm()) for r in results)
            if not error < 0.05:  # bf16 and compiled kernels round elsewhere
                raise ArithmeticError(f"{operation} differs between the arms by {error:.2g} of the result's norm")

    def forget(self) -> None:
        """Free the gradients."""
        self.optimizer.zero_grad(set_to_none=True)
        gc.collect()


def size(preset: str, side: int, arms: Sequence[str]) -> dict[str, Any]:
    """Return what needs no computation: parameters, the latent's shape, and MACs per image of each arm."""
    macs: dict[str, dict[str, int]] = {}
    parameters, shape = 0, ()
    for arm in arms:
        network, spec = network_of(arm, preset)
        parameters = sum(p.numel() for p in network.parameters())
        shape = (spec.latent_channels, *[side // spec.spatial_compression] * 2)
        x, wrapped, macs[arm] = torch.empty(1, 3, side, side, device="meta"), Arm(arm, network), {}
        for operation in ("encode", "decode"):
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                x = getattr(wrapped, operation)(x)
            macs[arm][operation] = counter.get_total_flops() // 2
    return {"parameters": parameters, "latent_shape": shape, "macs": macs}


def measure(bench: Bench, operation: str, rounds: int, least: float, batch: int, cuda: bool) -> dict[str, Any]:
    """Return the rates of each arm in each round, each over ``least`` seconds or more; on CUDA also the memory at the peak."""
    wait = torch.cuda.synchronize if cuda else lambda: None
    arms = list(bench.arms)

    def seconds(arm: str, calls: int) -> float:
        wait()
        began = time.perf_counter()
        for _ in range(calls):
            bench.call(arm, operation)
        wait()
        return time.perf_counter() - began

    peaks: dict[str, int] = {}
    for arm in arms:
        seconds(arm, 3 if cuda else 1)  # compiles, picks algorithms
        bench.forget()
        if cuda:
            torch.cuda.reset_peak_memory_stats()
            seconds(arm, 1)
            peaks[arm] = torch.cuda.max_memory_allocated()
            bench.forget()
    calls = max(1, math.ceil(least / seconds(arms[0], 1)))
    rates: dict[str, list[float]] = {arm: [] for arm in arms}
    for i in range(rounds):
        for arm in arms if i % 2 == 0 else reversed(arms):
            rates[arm].append(calls * batch / seconds(arm, calls))
    bench.forget()
    return {"images_per_second": rates, "peak_bytes": peaks}


def switches_of(text: str) -> str:
    """Return a valid set of switches; raise for argparse otherwise."""
    if text != "plain" and (unknown := set(text.split("+")) - set(SWITCHES)):
        names = ", ".join(sorted(unknown))
        raise argparse.ArgumentTypeError(f"{names}: use plain, or {', '.join(SWITCHES)} joined by +")
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a tiny graph, one round: shows that it works")
    parser.add_argument("--preset", nargs="+", help=f"published models ({', '.join(PRESETS)})")
    parser.add_argument("--resolution", type=int, default=0, help="side of the images in pixels (256; quick 32)")
    parser.add_argument("--batch", type=int, default=0, help="images per call (CUDA 16; CPU 1; quick 2)")
    parser.add_argument("--switches", nargs="+", type=switches_of, help="sets such as plain bf16+compile")
    parser.add_argument("--operations", nargs="+", choices=OPERATIONS, default=OPERATIONS)
    parser.add_argument("--rounds", type=int, default=0, help="measurements of each arm (5; quick 1)")
    parser.add_argument("--seconds", type=float, default=-1.0, help="least length of a measurement (3; quick 0)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: CUDA where there is one")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    given = parser.parse_args(arguments)
    arms = [arm for arm in ARMS if arm in given.arms]
    if "diffusers" in arms and importlib.util.find_spec("diffusers") is None:
        arms = ["ours"]
        print("diffusers is not installed: its arm is left out (pip install diffusers)", file=sys.stderr)
    device = given.device or ("cuda" if torch.cuda.is_available() else "cpu")
    quick, cuda = given.quick, device == "cuda"
    side = given.resolution or (32 if quick else 256)
    batch = given.batch or (2 if quick else 16 if cuda else 1)
    rounds = given.rounds or (1 if quick else 5)
    seconds = given.seconds if given.seconds >= 0 else (0.0 if quick else 3.0)
    presets = given.preset or ((TINY,) if quick else PRESETS)
    sizes = {preset: size(preset, side, arms) for preset in presets}
    lines = [
        (
            preset,
            side,
            f"{s['parameters'] / 1e6:,.4g} M",
            s["latent_shape"],
            arm,
            *(f"{n / 1e9:,.4g} G" for n in macs.values()),
        )
        for preset, s in sizes.items()
        for arm, macs in s["macs"].items()
    ]
    heads = ("model", "resolution", "parameters", "latent", "arm", "MACs per image: encode", "decode")
    print(table(heads, lines), end="\n\n", flush=True)
    runs, rows = {}, []
    for preset, name in itertools.product(presets, given.switches or (CUDA_SWITCHES if cuda else ("plain",))):
        bench = Bench(preset, [] if name == "plain" else name.split("+"), arms, side, batch, device)
        bench.check()
        for operation in given.operations:
            cells = [preset, name, batch, operation]
            try:
                found = runs[" ".join(map(str, cells))] = measure(bench, operation, rounds, seconds, batch, cuda)
            except torch.OutOfMemoryError:
                rows.append([*cells, "out of memory", "", ""])
                bench.forget()
                continue
            rates = found["images_per_second"]
            cells += ["; ".join(f"{arm} {spread(values)}" for arm, values in rates.items())]
            cells += [ratio(*rates.values()) if len(rates) == 2 else ""]
            cells += ["; ".join(f"{arm} {peak / 2**20:,.0f} MiB" for arm, peak in found["peak_bytes"].items())]
            rows.append(cells)
            print(cells, file=sys.stderr, flush=True)
        del bench
        gc.collect()
    heads = ("model", "switches", "batch", "operation", "images/s: min, median, max", "ours / theirs", "peak memory")
    print(table(heads, rows))
    name = torch.cuda.get_device_name() if cuda else "cpu"
    keep({"sizes": sizes, "runs": runs}, given.json, device=name, threads=torch.get_num_threads())
    return 0


if __name__ == "__main__":
    sys.exit(main())
