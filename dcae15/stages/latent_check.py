"""cache_latents --verify: the cluster checks shard after shard, the driver puts the parts together."""

from __future__ import annotations

import functools
import time

from dcae15 import artifacts
from dcae15.artifacts import ImageSet, LatentSet
from dcae15.cluster import Cluster
from dcae15.config import Config
from dcae15.data.findings import LatentFindings
from dcae15.data.latent_set_check import check_whole, plan_checks
from dcae15.data.shard_check import ShardChecker
from dcae15.errors import DataError
from dcae15.library import load_autoencoder


def check_latents(config: Config, cluster: Cluster, *, latents: str, images: str = "", autoencoder: str = "") -> str:
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
    network, device = (autoencoder, cluster.device) if encodes else ("", "cpu")
    checker = functools.partial(_checker, latents, images, network, config.latents.batch_size, device)
    pool = cluster.encoders if encodes else cluster.resources.readers()
    named = {"unit": "shards", "describe": lambda task: f"shard {task.shard.path}"}
    parts = dict(cluster.map("verify", lambda: checker().check, tasks, pool, **named))
    results = {task.shard.path: parts[place] for place, task in enumerate(tasks)}
    for part in results.values():
        findings.merge(part.findings)
    check_whole(latent_set, results, findings)
    if findings.counts:
        raise DataError(findings.report(latent_set.uri))
    done = [f"verified: {describe_latents(latent_set)}: every byte and row"]
    if images:
        done.append(f"ids, labels and pixels are those of {images}")
    if encodes:
        again = sum(result.encoded_again for result in results.values())
        deviation = max(result.deviation for result in results.values())
        done.append(
            f"{again} latents encoded again by {autoencoder} differ by at most {deviation:.2g} of their root mean square"
        )
    elif autoencoder:
        done.append(f"made with {autoencoder} by its fingerprint; give images=URI, too, to encode some again")
    return f"{'; '.join(done)} ({time.perf_counter() - began:.1f} s)"


def describe_latents(latent_set: LatentSet) -> str:
    """Return where a latent set is and what is in it."""
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
