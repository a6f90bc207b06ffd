"""What follows from the fields' own words on when they are active: the names of results, and advice on values without effect."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from dcae15.config.graph import autoencoder_spec
from dcae15.config.schema import Config
from dcae15.config.training import SHARED, PhaseConfig
from dcae15.fields import Section, facts_of

SCHEMA_VERSION = 4


def fingerprint(kind: str, inputs: dict[str, Any]) -> str:
    """Return 16 hex digits that name a result: the same for the same kind, schema and inputs, whatever the machine.

    ``inputs`` holds plain values: the active fields of the sections that matter, and the fingerprints of the inputs.
    """
    text = json.dumps({"kind": kind, "schema": SCHEMA_VERSION, "inputs": inputs}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def active_fields(own: Section, root: Section, path: str = "") -> dict[str, Any]:
    """Return the fields of a section that are active and can change a result, as plain nested dicts.

    Args:
        own: the section.
        root: the configuration that it belongs to.
        path: where it is in there, if it is one of it.
    """
    values: dict[str, Any] = {}
    for name, field in type(own).model_fields.items():
        value, facts, at = getattr(own, name), facts_of(field), f"{path}.{name}" if path else name
        if any(condition(own, root, path) for condition in facts["active_if"]):
            continue
        if isinstance(value, Section):
            values[name] = active_fields(value, root, at)
        elif isinstance(value, list) and value and isinstance(value[0], Section):
            values[name] = [active_fields(item, root, f"{at}[{i}]") for i, item in enumerate(value)]
        elif facts.get("affects_result", True) is True or (
            callable(facts["affects_result"]) and facts["affects_result"](own)
        ):
            values[name] = value
    return values


def warnings_for(config: Config) -> list[str]:
    """Return one sentence for each value that has no effect, and each unusual combination; none for the defaults."""
    defaults = {path: value for path, value, _ in leaves(Config(), Config())}
    found = {path: (value, reason) for path, value, reason in leaves(config, config)}
    by_reason: dict[str, list[str]] = {}
    for path, (value, own_reason) in found.items():
        usual = _inherited(config, path) if path.startswith("autoencoder.phases[") else defaults.get(path)
        reason = _taken_over(config, found, path) if path.startswith(_SHARED) else own_reason
        if reason and value != usual and not reason.startswith(f"{path} is "):  # the field that decides
            by_reason.setdefault(reason, []).append(path)
    without_effect = [f"{', '.join(paths)}: no effect, because {reason}" for reason, paths in by_reason.items()]
    return [*without_effect, *_unusual(config)]


def leaves(own: Section, root: Section, path: str = "", because: str = "") -> Iterator[tuple[str, Any, str]]:
    """Yield (path, value, why it has no effect) of every field that is not a section, in the schema's order."""
    for name, field in type(own).model_fields.items():
        value, at = getattr(own, name), f"{path}.{name}" if path else name
        reasons = (condition(own, root, path) for condition in facts_of(field)["active_if"])
        reason = because or next((reason for reason in reasons if reason), "")
        if isinstance(value, Section):
            yield from leaves(value, root, at, reason)
        elif isinstance(value, list) and value and isinstance(value[0], Section):
            for i, item in enumerate(value):
                yield from leaves(item, root, f"{at}[{i}]", reason)
        else:
            yield at, value, reason


_SHARED = tuple(f"autoencoder.{name}." for name in SHARED)


def _taken_over(config: Config, found: dict[str, tuple[Any, str]], path: str) -> str:
    """Return why a field has no effect that phases take over, where there are any: all say otherwise, or have no use for it."""
    value, reason = found[path]
    perceptual = config.autoencoder.losses.perceptual
    if not config.autoencoder.phases or (
        perceptual.vgg and perceptual.heads and ".perceptual." in path
    ):  # for evaluate
        return reason
    name = path.removeprefix("autoencoder.")
    phases = [found[f"autoencoder.phases[{i}].{name}"] for i in range(len(config.autoencoder.phases))]
    reasons = [why for taken, why in phases if taken == value]
    return "" if "" in reasons else next(iter(reasons), "each of autoencoder.phases says otherwise")


def _inherited(config: Config, path: str) -> Any:
    """Return what a phase's field would be if the phase did not say it."""
    value: Any = config.autoencoder if path.split(".")[2] in SHARED else PhaseConfig()
    for name in path.split(".")[2:]:
        value = getattr(value, name)
    return value


def _unusual(config: Config) -> Iterator[str]:
    trained = config.trained_arms
    for arm in (arm for arm in config.arms if arm not in trained):
        yield f"arms names '{arm}', which is no other training than the autoencoder's own: it is left out"
    data, diffusion, sampling = config.data, config.diffusion, config.sampling
    seen, ours = config.autoencoder.mask_kind, diffusion.prefix
    if diffusion.enabled and ours.masks and ours.kind != seen:
        yield (
            f"diffusion.prefix.kind is '{ours.kind}' but autoencoder.prefix.kind is '{seen}': the denoiser trains "
            "on channel subsets that the autoencoder was never asked to decode; right for a control, wrong otherwise"
        )
    channels = autoencoder_spec(config.autoencoder).latent_channels
    prefixes = ours.prefixes(channels) if ours.masks else [channels]
    if diffusion.enabled and sampling.prefix and sampling.prefix not in prefixes:
        yield (
            f"sampling.prefix {sampling.prefix} is not among the prefixes that diffusion.prefix trains {prefixes}: "
            "expect poor images"
        )
    if data.source == "shapes" and data.shapes.resolution != data.resolution:
        yield (
            f"data.shapes.resolution {data.shapes.resolution} is not data.resolution {data.resolution}: "
            "the drawn images are resized and lose their fine patterns"
        )
    held_out = min(data.shapes.val_images, data.limit or data.shapes.val_images)
    if data.source == "shapes" and config.evaluation.reconstruction_images > held_out:
        yield (
            f"evaluation.reconstruction_images {config.evaluation.reconstruction_images} is more than the "
            f"{held_out} validation images"
        )
    if diffusion.enabled and sampling.images < 500:
        yield (
            f"sampling.images is {sampling.images}: Fréchet distances over so few images are strongly biased; "
            "compare them only at the same count"
        )
