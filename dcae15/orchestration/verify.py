"""cache_latents --verify on Ray Data: actors check shard after shard, the driver puts the parts together."""

from __future__ import annotations

import functools
import pickle
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import ray
import torch
from ray.data import ActorPoolStrategy

from dcae15 import artifacts, storage
from dcae15.artifacts import ImageSet, LatentSet
from dcae15.config import Config
from dcae15.data.findings import LatentFindings
from dcae15.data.latent_set_check import check_whole, plan_checks
from dcae15.data.shard_check import ShardChecker, ShardResult, ShardTask
from dcae15.errors import ArtifactError, ConfigError, DataError, Dcae15Error
from dcae15.library import load_autoencoder
from dcae15.orchestration.cluster import Cluster, connect
from dcae15.orchestration.export import autoencoder_of
from dcae15.orchestration.plan import plan


def verify_latents(config: Config, inputs: Mapping[str, str], dry_run: bool = False) -> str:
    """Do what ``cache_latents --verify`` was asked to; return a summary of the good set, or of what would be checked.

    Args:
        config: scaling and batch size; names the latent set unless it is given.
        inputs: ``latents``, ``images`` and ``autoencoder`` where given.
        dry_run: only say what would be checked.

    Raises:
        ArtifactError: there is no such artifact.
        DataError: the set is not what it should be; the message lists what was found.
    """
    config = replace(config, storage=storage.resolve(config.storage))
    uri = inputs.get("latents") or _latents_of(config, inputs)
    latent_set = LatentSet.open(uri)
    if "images" in inputs:
        ImageSet.open(inputs["images"])
    if dry_run:
        against = [name for name in ("images", "autoencoder") if name in inputs]
        return f"would verify {_describe(latent_set)}" + (f" against {' and '.join(against)}" if against else "")
    autoencoder = autoencoder_of(config, inputs) if "autoencoder" in inputs else ""
    with connect(config) as cluster:
        return verify(config, cluster, latents=latent_set.uri, images=inputs.get("images", ""), autoencoder=autoencoder)


def verify(config: Config, cluster: Cluster, *, latents: str, images: str = "", autoencoder: str = "") -> str:
    """Check a latent set, against its images and its autoencoder where they are given; return a summary.

    Raises:
        ArtifactError: one of them is no finished artifact.
        DataError: the set is not what it should be; the message lists what was found.
    """
    began = time.perf_counter()
    latent_set, findings = LatentSet.open(latents), LatentFindings()
    image_set = ImageSet.open(images) if images else None
    if autoencoder and (given := artifacts.Autoencoder.open(autoencoder).fingerprint) != latent_set.spec.autoencoder:
        findings.add(
            "autoencoder", f"{autoencoder} is {given}, the latents were made with {latent_set.spec.autoencoder}"
        )
    tasks = plan_checks(latent_set, image_set, bool(autoencoder), findings)
    encodes = bool(images and autoencoder)
    gpu = encodes and cluster.uses_gpu(config.scaling)
    device, batch = "cuda" if gpu else "cpu", config.latents.batch_size
    make = functools.partial(_checker, latents, images, autoencoder if encodes else "", batch, device)
    results = _check_shards(config, cluster, tasks, make, gpu)
    for part in results.values():
        findings.merge(part.findings)
    check_whole(latent_set, results, findings)
    if findings.counts:
        raise DataError(findings.report(latent_set.uri))
    parts = [f"verified: {_describe(latent_set)}: every byte and row"]
    if images:
        parts.append(f"ids, labels and pixels are those of {images}")
    if encodes:
        again, deviation = (
            sum(r.encoded_again for r in results.values()),
            max(r.deviation for r in results.values()),
        )
        parts.append(
            f"{again} latents encoded again by {autoencoder} differ by at most {deviation:.2g} of their root mean square"
        )
    elif autoencoder:
        parts.append(f"made with {autoencoder} by its fingerprint; give images=URI, too, to encode some again")
    return f"{'; '.join(parts)} ({time.perf_counter() - began:.1f} s)"


def _latents_of(config: Config, inputs: Mapping[str, str]) -> str:
    """Return where the latent set of this configuration is."""
    stages = {stage.name: stage for stage in plan(config, inputs)}
    if "cache_latents" not in stages:
        raise ConfigError("diffusion.enabled is false, so there is no latent set; give latents=URI")
    if not stages["cache_latents"].done:
        raise ArtifactError(
            f"there is no latent set of this configuration at {stages['cache_latents'].uri}; give latents=URI, or run "
            "`python pipelines/cache_latents.py` with the same configuration first"
        )
    return stages["cache_latents"].uri


def _describe(latent_set: LatentSet) -> str:
    splits, spec = latent_set.splits, latent_set.spec
    counts = ", ".join(f"{split} {content.count:,}" for split, content in splits.items())
    shards, size = sum(len(content.shards) for content in splits.values()), sum(s.bytes for s in splits.values())
    return (
        f"{latent_set.uri}, {counts} latents of {spec.channels}x{spec.height}x{spec.width} {latent_set.dtype} in {shards} shards, "
        f"{size:,} bytes"
    )


def _checker(latents: str, images: str, autoencoder: str, batch_size: int, device: str) -> ShardChecker:
    network = load_autoencoder(autoencoder).to(device) if autoencoder else None
    return ShardChecker(latents, images, network, batch_size, device)


def _check_shards(
    config: Config, cluster: Cluster, tasks: list[ShardTask], make: Callable[[], ShardChecker], gpu: bool
) -> dict[str, ShardResult]:
    """Check all shards on a pool of actors; return the results in the order of ``tasks``."""
    if not tasks:
        return {}
    least, most, cpus = cluster.encoders(config.scaling, len(tasks))
    dataset = ray.data.from_items([{"task": pickle.dumps(task)} for task in tasks], override_num_blocks=len(tasks)).map(
        _Actor,  # pyright: ignore[reportArgumentType]  # Ray makes the instance
        fn_constructor_args=(make, max(1, int(cpus))),
        compute=ActorPoolStrategy(min_size=least, max_size=most),
        num_cpus=cpus,
        num_gpus=1 if gpu else 0,
    )
    results: dict[str, ShardResult] = {}
    printed = time.perf_counter()
    for row in dataset.iter_rows():
        result = pickle.loads(row["result"])  # noqa: S301  # made by our own actor a moment ago
        if isinstance(result, Dcae15Error):
            raise result
        results[result.path] = result
        if time.perf_counter() - printed > 3:
            printed = time.perf_counter()
            print(f"verify: {len(results):,}/{len(tasks):,} shards", flush=True)
    return {task.shard.path: results[task.shard.path] for task in tasks}


class _Actor:
    """Holds a checker, made in the thread that Ray calls it from; see `dcae15.orchestration.sharding`."""

    def __init__(self, make: Callable[[], ShardChecker], threads: int) -> None:
        self.make, self.threads = make, threads
        self.checker: ShardChecker | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, bytes]:
        try:
            if self.checker is None:
                torch.set_num_threads(self.threads)
                self.checker = self.make()
            return {"result": pickle.dumps(self.checker.check(pickle.loads(row["task"])))}  # noqa: S301
        except Dcae15Error as error:  # Ray Data would log its trace, and lose it on the way to the driver
            return {"result": pickle.dumps(error)}
