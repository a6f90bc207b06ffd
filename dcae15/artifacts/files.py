"""Files inside artifacts that one room writes and another one reads."""

from __future__ import annotations

import json

import numpy as np

from dcae15 import storage

WEIGHTS, RAW_WEIGHTS = "weights.safetensors", "weights_raw.safetensors"
HISTORY, PICTURES, CHECKPOINTS = "history.jsonl", "pictures.safetensors", "checkpoints"


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
