"""What a report shows: plain numbers, words and pictures, gathered by the caller from the artifacts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

Rows = list[dict[str, float]]
Value = TypeVar("Value")


def in_order(arms: Mapping[str, Value], order: Sequence[str]) -> dict[str, Value]:
    """Return a mapping by arm in the given reading order, other arms last by name: stored artifacts do not keep it."""
    return {arm: arms[arm] for arm in [*(a for a in order if a in arms), *sorted(set(arms) - set(order))]}


@dataclass(frozen=True)
class Made:
    """What a step of a pipeline made, and how."""

    name: str  # of the step
    uri: str  # of the artifact
    fingerprint: str  # of the artifact
    inputs: Mapping[str, str]  # URIs of what it read, by role
    facts: Mapping[
        str, str
    ]  # what is worth knowing: what the plan said of it; in reports also images, bytes, rejected, parameters
    status: str  # ``done`` or ``reused``
    seconds: float  # that it took now; 0 when it was reused
    figure: str = ""  # the figure of its training curves; empty without any
    label: str = ""  # its line in there


@dataclass(frozen=True)
class ReportData:
    """Everything a report shows. NaN means 'not measured'; an empty mapping leaves its section out.

    Arms are the autoencoders under comparison, in reading order: 'structured' and, where they were trained, 'baseline' (no
    masks) and others.
    """

    title: str
    created: str
    summary: str  # one paragraph
    config_yaml: str  # free of secrets
    environment: dict[str, str]  # free of secrets
    stages: list[Made]
    histories: dict[str, dict[str, Rows]]  # figure -> label of a line -> rows of 'images' and scalars
    reconstruction: dict[str, Rows]  # arm -> rows of 'prefix' and the measures in `measures.RECONSTRUCTION`
    structure: dict[str, Rows]  # arm -> rows of 'prefix' and the measures in `measures.STRUCTURE`
    generation: dict[str, float]  # measure -> value, and '<measure>_of_<what>' -> reference value
    protocol: dict[str, str]  # what makes the numbers of `generation` comparable
    grids: dict[str, tuple[np.ndarray, np.ndarray]]  # arm -> inputs (N, H, W, 3), reconstructions (P, N, H, W, 3)
    prefixes: dict[str, list[int]]  # arm -> the P prefixes of its grid, ascending; the last one is all channels
    samples: dict[str, np.ndarray]  # class name, or '' without classes -> uint8 (K, H, W, 3)
    warnings: list[str]
    channels: dict[str, Rows] = field(default_factory=dict)  # arm -> 'channel', 'std', 'image_low', 'image_high'
    arm_summary: dict[str, dict[str, float]] = field(default_factory=dict)  # arm -> the measures in `measures.SUMMARY`
    channel_means: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)  # inputs, maps (P, N, h, w)
    milestones: Rows = field(default_factory=list)  # 'images' seen and the measures of generated images then

    @property
    def arms(self) -> list[str]:
        """Every arm of which anything is shown, in reading order."""
        shown = (self.reconstruction, self.structure, self.channels, self.arm_summary, self.grids, self.channel_means)
        return list(dict.fromkeys(arm for values in shown for arm in values))
