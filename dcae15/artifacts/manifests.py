"""Manifests: what makes an artifact exist, and what names it; and files that one room writes there and another one reads.

An artifact is a folder whose ``manifest.json`` is written last: no manifest means not finished.
"""

from __future__ import annotations

import json
import math
import platform
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from dcae15 import storage
from dcae15.config import SCHEMA_VERSION
from dcae15.errors import ArtifactError

if TYPE_CHECKING:
    import numpy as np

MANIFEST = "manifest.json"
WEIGHTS, RAW_WEIGHTS = "weights.safetensors", "weights_raw.safetensors"
HISTORY, PICTURES, CHECKPOINTS = "history.jsonl", "pictures.safetensors", "checkpoints"


def write_manifest(uri: str, kind: str, body: dict[str, Any]) -> None:
    """Finish the artifact at ``uri``: what interrupted attempts left is removed, then the manifest is written."""
    storage.remove_unfinished(uri)
    head = {"kind": kind, "schema": SCHEMA_VERSION, "created": now(), "environment": environment()}
    storage.write_json(storage.join(uri, MANIFEST), {**head, **body})


def read_manifest(uri: str) -> dict[str, Any]:
    """Return the manifest of a finished artifact of any kind; raise ArtifactError when there is none."""
    path = storage.join(uri, MANIFEST)
    if not storage.exists(path):
        state = "is unfinished (it has no manifest.json)" if storage.exists(uri) else "does not exist"
        raise ArtifactError(f"the artifact {uri} {state}; run the stage that makes it, or pass another URI")
    manifest = storage.read_json(path)
    if not isinstance(manifest, dict) or not {"kind", "schema", "fingerprint"} <= manifest.keys():
        raise ArtifactError(f"{path} is no manifest of this project")
    if manifest["schema"] != SCHEMA_VERSION:
        raise ArtifactError(
            f"{uri} has schema version {manifest['schema']}, this version reads {SCHEMA_VERSION}; run its stage again"
        )
    return manifest


def finished(uri: str) -> bool:
    """Tell whether the artifact at ``uri`` is finished."""
    return storage.exists(storage.join(uri, MANIFEST))


def environment() -> dict[str, str]:
    """Versions of what the result depends on."""
    versions = {"python": sys.version.split()[0], "platform": platform.platform()}
    for package in ("dcae15", "torch", "ray", "numpy", "pyarrow", "pillow"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def now() -> str:
    """The current time, UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class SetCounts:
    """What a finished image or latent set holds."""

    images: dict[str, int]  # images (or latents) by split
    shards: int  # shard files
    bytes: int  # of all shards
    rejected: dict[str, int]  # quarantined images by reason
    latent_rms: list[float]  # root mean square of each channel; empty for images


def set_counts(manifest: dict[str, Any]) -> SetCounts:
    """Return the counts that the manifest of an image or latent set gives."""
    shards = {split: content["shards"] for split, content in manifest["splits"].items()}
    measured = manifest.get("statistics", {"mean": [], "std": []})
    return SetCounts(
        images={split: sum(shard["count"] for shard in members) for split, members in shards.items()},
        shards=sum(map(len, shards.values())),
        bytes=sum(shard["bytes"] for members in shards.values() for shard in members),
        rejected=manifest.get("rejected", {}),
        latent_rms=[math.hypot(mean, std) for mean, std in zip(measured["mean"], measured["std"], strict=True)],
    )


def snapshot_uri(denoiser: str, images: int) -> str:
    """Return where the denoiser as it was at a milestone is, itself a denoiser artifact: below the finished one's."""
    return storage.join(denoiser, "milestones", f"{images:012d}")


def read_history(uri: str) -> list[dict[str, float]]:
    """Return the history rows of a trained artifact."""
    text = storage.read_bytes(storage.join(uri, HISTORY)).decode()
    return [json.loads(line) for line in text.splitlines()]


def read_pictures(uri: str) -> dict[str, np.ndarray]:
    """Return the uint8 pictures of an evaluation.

    They are ``inputs`` (N, H, W, 3), ``reconstructions.<arm>`` (P, N, H, W, 3), ``channel_means.<arm>`` (P, N, h, w) where
    latents have several places, and ``samples`` (classes, K, H, W, 3) where images were generated.
    """
    from safetensors.numpy import load  # plans do not need it

    return load(storage.read_bytes(storage.join(uri, PICTURES)))
