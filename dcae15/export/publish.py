"""An autoencoder as a folder for others: weights, config.json, statistics of its latents, and the model card that hubs read."""

from __future__ import annotations

import math
import re
from typing import Any

from safetensors.torch import save as to_safetensors

from dcae15 import artifacts, storage
from dcae15.errors import ArtifactError, ConfigError
from dcae15.export.foreign_config import diffusers_config, official_config, official_dotlist
from dcae15.export.layouts import StateDict, to_official
from dcae15.models.presets import PRESETS
from dcae15.models.spec import AutoencoderSpec

FORMATS = ("diffusers", "official")
STATISTICS = "latent_statistics.json"
_NOT_MEASURED = "not measured: export with a latent set (latents=URI) to measure it"


_ROWS = (
    ("latent channels C", "latent_channels"),
    ("encoder widths", "encoder_widths"),
    ("encoder depths", "encoder_depths"),
    ("encoder blocks", "encoder_blocks"),
    ("decoder widths", "decoder_widths"),
    ("decoder depths", "decoder_depths"),
    ("decoder blocks", "decoder_blocks"),
    ("decoder norms", "decoder_norms"),
    ("decoder activations", "decoder_acts"),
    ("latent shortcuts", "latent_shortcuts"),
    ("last activation", "out_act"),
    ("down, up", "downsample"),
)


def export_folder(
    state_dict: StateDict,
    artifact: artifacts.Autoencoder,
    to: str,
    *,
    latents: artifacts.LatentSet | None = None,
    layout: str = "diffusers",
    license: str = "unknown",
) -> None:
    """Write an autoencoder for others; config.json comes last.

    ``diffusers`` is what ``diffusers.AutoencoderDC.from_pretrained`` opens. ``official`` has the key layout of DC-Gen and, where a
    published model has this graph, its name in config.json, as the official folders have; else the official dotlist.

    Args:
        state_dict: Weights in our layout.
        artifact: Where they come from.
        to: Folder to write; files of the same name are replaced.
        latents: A latent set that the autoencoder made; its statistics are written beside the weights, and give the scaling
            factor 1 / RMS. Without it the factor is the published one of imported weights, or 1.
        layout: ``diffusers`` or ``official``.
        license: Licence of the weights, as the hub writes it (``apache-2.0``, ``mit``, ``other``, ...).

    Raises:
        ConfigError: The layout is unknown, or the licence is not one word.
        ArtifactError: The latents are those of another autoencoder, or the folder is an artifact.
        StorageError: A file cannot be written.
    """
    if layout not in FORMATS:
        raise ConfigError(f"format is '{layout}'; it must be {' or '.join(FORMATS)}")
    if not re.fullmatch(r"[\w.+-]+", license):
        raise ConfigError(
            f"license is '{license}'; give one word as model hubs write it, such as apache-2.0, mit or other"
        )
    if artifacts.finished(to):
        raise ArtifactError(
            f"{to} is an artifact of this project, whose files would be replaced; choose another folder"
        )
    if latents is not None and latents.spec.autoencoder != artifact.fingerprint:
        raise ArtifactError(
            f"the latents at {latents.uri} are those of autoencoder {latents.spec.autoencoder}, but {artifact.uri} is "
            f"{artifact.fingerprint}; pass latents that it made"
        )
    spec = AutoencoderSpec.from_dict(artifact.spec)
    manifest = artifacts.read_manifest(artifact.uri)
    factor, origin = _scaling(manifest, latents)
    if layout == "official":
        name, weights = "model.safetensors", to_official(state_dict, spec)
        config: dict[str, Any] = official_config(spec, manifest.get("model_name", ""))
        # null where it was not measured: the name alone would say the published one's
        config["scaling_factor"] = None if origin == _NOT_MEASURED else factor
    else:
        name, weights = "diffusion_pytorch_model.safetensors", state_dict
        config = diffusers_config(spec, factor)
    contiguous = {key: value.detach().cpu().contiguous() for key, value in weights.items()}
    storage.write_bytes(storage.join(to, name), to_safetensors(contiguous, metadata={"format": "pt"}))
    if latents is not None:
        storage.write_json(storage.join(to, STATISTICS), latent_statistics(latents, factor))
    library = "diffusers" if layout == "diffusers" else "dcae15"
    parts = [
        f"---\nlicense: {license}\nlibrary_name: {library}\ntags:\n- autoencoder\n- dc-ae\n---",
        f"# dc-ae-f{spec.spatial_compression}c{spec.latent_channels}",
        f"A deep-compression autoencoder of the DC-AE family: {spec.spatial_compression}x{spec.spatial_compression} pixels "
        f"become one latent pixel of {spec.latent_channels} channels. Pixels are RGB in [-1, 1].",
        f"Licence of the weights: {license}.",
        _training(artifact, manifest.get("source", "")),
        _prefixes(spec, artifact),
        _usage(spec, artifact, layout),
        _latents(factor, origin, latents),
        _graph(spec),
        _identity(artifact, latents),
    ]
    storage.write_bytes(storage.join(to, "README.md"), ("\n\n".join(parts) + "\n").encode())
    storage.write_json(storage.join(to, "config.json"), config)


def _scaling(manifest: dict[str, Any], latents: artifacts.LatentSet | None) -> tuple[float, str]:
    """Return what latents are multiplied with before a diffusion model sees them, and where the number comes from."""
    if latents is not None:
        square = sum(rms * rms for rms in latents.statistics.rms) / latents.spec.channels
        if not square > 0:
            raise ArtifactError(f"all latents at {latents.uri} are 0 and cannot be scaled; cache them again")
        images = latents.splits["train"].count // (2 if latents.mirror else 1)
        return 1 / math.sqrt(square), f"1 / RMS of the latents of {images:,} training images"
    if isinstance(factor := manifest.get("scaling_factor"), (int, float)):
        return float(factor), "as published with the weights"
    return 1.0, _NOT_MEASURED


def latent_statistics(latents: artifacts.LatentSet, factor: float) -> dict[str, Any]:
    """Return what latent_statistics.json says of raw latents over all training images and positions."""
    measured = latents.statistics
    return {
        "channels": latents.spec.channels,
        "positions": measured.count,
        "mean": list(measured.mean),
        "std": list(measured.std),
        "scaling_factor": factor,
        "latent_set": latents.fingerprint,
        "autoencoder": latents.spec.autoencoder,
    }


def _training(artifact: artifacts.Autoencoder, source: str) -> str:
    if source:
        return f"## Training\n\nImported from `{source.rstrip('/').rsplit('/', 1)[-1]}`; how it was trained is not known here."
    return (
        f"## Training\n\nTrained with dcae15 on {artifact.images_seen:,} images seen, at {artifact.resolution} x "
        f"{artifact.resolution} pixels; channel masks while training: `{artifact.mask_kind}`. The weights are their moving "
        "average."
    )


def _prefixes(spec: AutoencoderSpec, artifact: artifacts.Autoencoder) -> str:
    channels = spec.latent_channels
    if artifact.mask_kind == "prefix" and len(artifact.prefix_choices) > 1:
        what = (
            f"Trained to decode the first c channels alone, for c in {list(artifact.prefix_choices)} (structured latent space, "
            "arXiv 2508.00413). Other values of c work, but were not trained."
        )
    elif artifact.prefix_choices:
        what = f"Trained on all {channels} channels only: fewer channels decode to poor images."
    else:
        what = "Whether it was trained on fewer channels is not known."
    return (
        f"## Channel prefixes\n\n{what} To keep c channels, cut the latent after channel c; to decode, fill the others with "
        f"zeros, which is the same function as leaving them out."
    )


def _usage(spec: AutoencoderSpec, artifact: artifacts.Autoencoder, layout: str) -> str:
    prefix = artifact.prefix_choices[0] if artifact.prefix_choices else max(1, spec.latent_channels // 2)
    ours = (
        "```python\n"
        "from dcae15 import load_autoencoder\n\n"
        f'model = load_autoencoder("FOLDER")\n'
        f"latents = model.encode(pixels, prefix={prefix})  # pixels (B, 3, H, W) in [-1, 1]; None keeps all channels\n"
        "images = model.decode(latents)\n"
        "```"
    )
    if layout == "official":
        theirs = (
            "The weights have the key layout of DC-Gen. Its classes build the graph from the name in `config.json` or, for other "
            f"graphs, from this dotlist:\n\n```\n{official_dotlist(spec)}\n```"
        )
    else:
        theirs = (
            "```python\n"
            "import torch\n"
            "from diffusers import AutoencoderDC\n\n"
            'model = AutoencoderDC.from_pretrained("FOLDER")\n'
            "latents = model.encode(pixels).latent\n"
            f"latents[:, {prefix}:] = 0  # a prefix of {prefix} channels\n"
            "images = model.decode(latents).sample\n"
            "```"
        )
    title = "diffusers" if layout == "diffusers" else "the official code"
    return f"## Use\n\nWith {title}:\n\n{theirs}\n\nWith dcae15, which computes the kept channels only:\n\n{ours}"


def _latents(factor: float, origin: str, latents: artifacts.LatentSet | None) -> str:
    text = f"## Latents\n\n`scaling_factor` {factor:.6g} ({origin})."
    if latents is not None:
        text += " Mean and standard deviation of each channel of raw latents are in `latent_statistics.json`."
    return text


def _graph(spec: AutoencoderSpec) -> str:
    published = [name for name, graph in PRESETS.items() if graph == spec]
    lines = ["## Graph", ""]
    if published:
        lines += [f"The graph of {', '.join(f'`{name}`' for name in published)}.", ""]
    lines += ["| | |", "|---|---|", f"| spatial compression f | {spec.spatial_compression} |"]
    for title, field in _ROWS:
        value: Any = getattr(spec, field)
        if field == "downsample":
            value = f"{spec.downsample}, {spec.upsample}"
        elif isinstance(value, tuple):
            value = ", ".join(map(str, value if len(set(value)) > 1 or isinstance(value[0], int) else value[:1]))
        lines.append(f"| {title} | {value} |")
    return "\n".join(lines)


def _identity(artifact: artifacts.Autoencoder, latents: artifacts.LatentSet | None) -> str:
    rows = [("autoencoder", artifact.fingerprint)]
    if artifact.images:
        rows.append(("training images", artifact.images))
    if latents is not None:
        rows.append(("latents", latents.fingerprint))
    return "## Fingerprints\n\n| | |\n|---|---|\n" + "\n".join(f"| {what} | `{print_}` |" for what, print_ in rows)
