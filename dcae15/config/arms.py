"""The arms: autoencoders that are trained side by side, and compared. An arm is one row."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from dcae15.config.training import SHARED, AutoencoderConfig

STRUCTURED = "structured"
ARMS: dict[str, dict[str, Any]] = {
    STRUCTURED: {},
    "baseline": {"autoencoder.prefix.kind": "none"},
    "random": {"autoencoder.prefix.kind": "random"},
}
"""Names in reading order, and the fields of the autoencoder that an arm changes. The first makes the latents."""

CONTROLS = tuple(name for name in ARMS if name != STRUCTURED)


def with_arm(autoencoder: AutoencoderConfig, name: str) -> AutoencoderConfig:
    """Return the autoencoder of an arm: its changes made to it, and to each phase of its training.

    A phase without masks stays without: it was meant to see all channels, whatever the arm.
    """
    for path, value in ARMS[name].items():
        keys = path.split(".")[1:]
        phases = [
            phase if keys[0] == "prefix" and not phase.prefix.masks else _changed(phase, keys, value)
            for phase in (autoencoder.phases if hasattr(autoencoder.all_phases[0], keys[0]) else [])
        ]
        if keys[0] == "prefix" and not autoencoder.prefix.masks:
            autoencoder = autoencoder.changed(phases=phases)
        else:
            autoencoder = _changed(autoencoder.changed(phases=phases or autoencoder.phases), keys, value)
    return autoencoder


def _changed(section: Any, keys: list[str], value: Any) -> Any:
    first, *rest = keys
    return section.changed(**{first: _changed(getattr(section, first), rest, value) if rest else value})


def arms_of(autoencoder: AutoencoderConfig, controls: Collection[str]) -> list[str]:
    """Return the arms to train, in reading order: the structured one, and those of the controls that differ from it."""
    ours = _training(autoencoder)
    return [
        name
        for name in ARMS
        if name == STRUCTURED or (name in controls and _training(with_arm(autoencoder, name)) != ours)
    ]


def _training(autoencoder: AutoencoderConfig) -> AutoencoderConfig:
    """Return what trains: where phases are given, the sections that they take over say nothing themselves."""
    return autoencoder.changed(phases=autoencoder.all_phases, **dict.fromkeys(SHARED))
