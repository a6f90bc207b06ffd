"""What one process of `autoencoder_speed.py` measures: both networks on the same tensors, in turn."""

from __future__ import annotations

import functools
import gc
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dcae15.export.foreign_config import diffusers_config
from dcae15.models.autoencoder import Autoencoder
from dcae15.models.presets import preset as published
from dcae15.models.spec import AutoencoderSpec

TINY = "tiny"  # the graph of --quick


@dataclass(frozen=True)
class Job:
    """What one process measures, handed to it as JSON.

    Attributes:
        preset: name of the graph.
        switches: bf16, channels_last, compile, activation_checkpointing.
        arms: ours, diffusers.
        operations: encode, decode, train_step.
        device: ``cpu`` or ``cuda``.
        resolution: side of the images, in pixels.
        batch: images per call.
        rounds: measurements of each arm; 0 measures the memory of the only arm and operation instead.
        seconds: least length of a measurement.
    """

    preset: str
    switches: tuple[str, ...]
    arms: tuple[str, ...]
    operations: tuple[str, ...]
    device: str
    resolution: int
    batch: int
    rounds: int
    seconds: float


def spec_of(preset: str) -> AutoencoderSpec:
    """Return the graph."""
    return AutoencoderSpec(4, (8, 8, 16), (0, 1, 1), (8, 8, 16), (0, 1, 1)) if preset == TINY else published(preset)


def diffusers_twin(spec: AutoencoderSpec) -> nn.Module:
    """Return diffusers' network of the same graph."""
    from diffusers import AutoencoderDC  # pyright: ignore[reportMissingImports]

    return AutoencoderDC.from_config(diffusers_config(spec, 1.0))


class Arm:
    """One implementation under test; its functions take and return plain tensors."""

    def __init__(self, name: str, network: Any, switches: Sequence[str], device: str) -> None:
        self.name, self.network = name, network
        self.autocast = functools.partial(torch.autocast, device, torch.bfloat16, enabled="bf16" in switches)
        if "activation_checkpointing" in switches:
            for stage in (*network.encoder.down_blocks, *network.decoder.up_blocks):
                for block in stage.children():
                    block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
        if "compile" in switches:
            network.encoder.compile()
            network.decoder.compile()

    def encode(self, pixels: Tensor) -> Tensor:
        if self.name == "ours":
            return self.network.encode(pixels)
        return self.network.encode(pixels, return_dict=False)[0]

    def decode(self, latents: Tensor) -> Tensor:
        if self.name == "ours":
            return self.network.decode(latents)
        return self.network.decode(latents, return_dict=False)[0]


class Bench:
    """The arms of a job, sharing all weights, and the inputs of its operations."""

    def __init__(self, job: Job) -> None:
        spec = spec_of(job.preset)
        with torch.device("meta"):  # initial weights are drawn once
            ours = Autoencoder(spec)
            networks = {"ours": ours} | ({"diffusers": diffusers_twin(spec)} if "diffusers" in job.arms else {})
        memory_format = torch.channels_last if "channels_last" in job.switches else torch.contiguous_format
        generator = torch.Generator().manual_seed(0)
        weights = {}
        for name, value in ours.state_dict().items():
            # As after training: norms at 1, the others small enough that the signal keeps its size.
            is_norm = "norm" in name and name.endswith("weight")
            std = 0.5 / math.sqrt(math.prod(value.shape[1:])) if value.ndim > 1 else 0.0
            tensor = torch.randn(value.shape, generator=generator) * std + float(is_norm)
            tensor = tensor.to(job.device, memory_format=memory_format if value.ndim == 4 else torch.contiguous_format)
            weights[name] = torch.nn.Parameter(tensor)
        for network in networks.values():
            network.load_state_dict(weights, assign=True)
        self.arms = {arm: Arm(arm, networks[arm], job.switches, job.device) for arm in job.arms}
        self.optimizer = torch.optim.AdamW(list(weights.values()), lr=1e-6)
        side, f = job.resolution, spec.spatial_compression
        self.pixels = _noise((job.batch, 3, side, side), job.device, memory_format)
        self.latents = _noise((job.batch, spec.latent_channels, side // f, side // f), job.device, memory_format)

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
        """Make sure that all arms compute the same.

        Raises:
            ArithmeticError: they do not.
        """
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


def _noise(shape: tuple[int, ...], device: str, memory_format: torch.memory_format) -> Tensor:
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return noise.to(device, memory_format=memory_format)


def run_job(job: Job) -> dict[str, Any]:
    """Measure in this process: rates by operation and arm, and on CUDA memory; or the memory of one arm on CPUs."""
    bench = Bench(job)
    if not job.rounds:
        call = functools.partial(bench.call, job.arms[0], job.operations[0])
        return {"peak_bytes": _resident_growth(lambda: (call(), call()))}  # the second step finds the optimizer's state
    bench.check()
    result: dict[str, Any] = {}
    for operation in job.operations:
        try:
            result[operation] = _measure(bench, job, operation)
        except torch.OutOfMemoryError:
            result[operation] = {"failed": "out of memory"}
        bench.forget()
    return result


def _measure(bench: Bench, job: Job, operation: str) -> dict[str, Any]:
    cuda = job.device == "cuda"
    wait = torch.cuda.synchronize if cuda else lambda: None

    def seconds(arm: str, calls: int) -> float:
        wait()
        began = time.perf_counter()
        for _ in range(calls):
            bench.call(arm, operation)
        wait()
        return time.perf_counter() - began

    peaks: dict[str, int] = {}
    for arm in job.arms:
        for _ in range(3 if cuda else 1):  # compiles, picks algorithms
            seconds(arm, 1)
        bench.forget()
        if cuda:
            torch.cuda.reset_peak_memory_stats()
            seconds(arm, 1)
            peaks[arm] = torch.cuda.max_memory_allocated()
            bench.forget()
    calls = max(1, math.ceil(job.seconds / seconds(job.arms[0], 1)))
    rates: dict[str, list[float]] = {arm: [] for arm in job.arms}
    for i in range(job.rounds):
        for arm in job.arms if i % 2 == 0 else reversed(job.arms):
            rates[arm].append(calls * job.batch / seconds(arm, calls))
    return {"images_per_second": rates, "peak_bytes": peaks}


def _resident_growth(work: Callable[[], Any]) -> int:
    """Return by how many bytes the resident set was larger at its peak during ``work`` than before."""
    import psutil

    process, done = psutil.Process(), threading.Event()
    gc.collect()
    before = peak = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.001):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return max(peak, process.memory_info().rss) - before
