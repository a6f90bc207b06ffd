"""What a report shows: plain numbers, words and pictures, gathered by the caller from the artifacts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

Rows = list[dict[str, float]]
Value = TypeVar("Value")

ARMS = ("structured", "baseline", "random")
"""The arms that a pipeline trains, in reading order."""


def in_order(arms: Mapping[str, Value]) -> dict[str, Value]:
    """Return a mapping by arm in reading order, foreign arms last by name: stored artifacts do not keep the order."""
    return {
        arm: arms[arm] for arm in sorted(arms, key=lambda arm: (ARMS.index(arm) if arm in ARMS else len(ARMS), arm))
    }


@dataclass(frozen=True)
class StageSummary:
    """One stage of the pipeline: what ran, what it left, what it took."""

    name: str
    status: str  # 'done' or 'reused'
    uri: str  # the artifact
    fingerprint: str
    seconds: float
    details: dict[str, str]  # what is worth knowing: images, shards, bytes, rejected, images/s, parameters


@dataclass(frozen=True)
class ReportData:
    """Everything a report shows. NaN means 'not measured'; an empty mapping leaves its section out.

    Arms are the autoencoders under comparison: 'structured' and, where they were trained, 'baseline' (no masks) and 'random'
    (random masks); foreign ones bear any other name.
    """

    title: str
    created: str
    summary: str  # one paragraph
    config_yaml: str  # free of secrets
    environment: dict[str, str]  # free of secrets
    stages: list[StageSummary]
    histories: dict[str, Rows]  # 'autoencoder', 'baseline', 'diffusion' -> rows of 'images' and scalars
    reconstruction: dict[str, Rows]  # arm -> rows of 'prefix' and the measures in `measures.RECONSTRUCTION`
    structure: dict[str, Rows]  # arm -> rows of 'prefix' and the measures in `measures.STRUCTURE`
    generation: dict[str, float]  # measure -> value, and '<measure>_of_<what>' -> reference value
    protocol: dict[str, str]  # what makes the numbers of `generation` comparable
    grids: dict[str, tuple[np.ndarray, np.ndarray]]  # arm -> inputs (N, H, W, 3), reconstructions (P, N, H, W, 3)
    prefixes: dict[str, list[int]]  # arm -> the P prefixes of its grid, ascending; the last one is all channels
    samples: dict[str, np.ndarray]  # class name, or '' without classes -> uint8 (K, H, W, 3)
    warnings: list[str]
    channels: dict[str, Rows] = field(
        default_factory=dict
    )  # arm -> rows of 'channel', 'std', 'image_low', 'image_high'
    arm_summary: dict[str, dict[str, float]] = field(default_factory=dict)  # arm -> the measures in `measures.SUMMARY`
    channel_means: dict[str, tuple[np.ndarray, np.ndarray]] = field(
        default_factory=dict
    )  # arm -> inputs, maps (P, N, h, w)
    milestones: Rows = field(default_factory=list)  # 'images' seen and the measures of generated images then
