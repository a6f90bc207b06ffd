"""The model card of an exported autoencoder: README.md, with the front matter that model hubs read."""

from __future__ import annotations

from typing import Any

from dcae15 import artifacts
from dcae15.export.foreign_config import official_dotlist
from dcae15.models.presets import PRESETS
from dcae15.models.spec import AutoencoderSpec

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


def model_card(
    spec: AutoencoderSpec,
    artifact: artifacts.Autoencoder,
    factor: float,
    origin: str,
    latents: artifacts.LatentSet | None,
    layout: str,
    license: str,
    source: str = "",
) -> str:
    """Return README.md.

    Args:
        spec: The graph.
        artifact: The autoencoder.
        factor: Its scaling factor.
        origin: Where the factor comes from.
        latents: The latent set that was measured, if any.
        layout: ``diffusers`` or ``official``.
        license: Licence of the weights.
        source: Where imported weights came from; empty for trained ones.
    """
    name = f"dc-ae-f{spec.spatial_compression}c{spec.latent_channels}"
    library = "diffusers" if layout == "diffusers" else "dcae15"
    front = ["---", f"license: {license}", f"library_name: {library}", "tags:", "- autoencoder", "- dc-ae", "---"]
    parts = [
        "\n".join(front),
        f"# {name}",
        f"A deep-compression autoencoder of the DC-AE family: {spec.spatial_compression}x{spec.spatial_compression} pixels "
        f"become one latent pixel of {spec.latent_channels} channels. Pixels are RGB in [-1, 1].",
        f"Licence of the weights: {license}.",
        _training(artifact, source),
        _prefixes(spec, artifact),
        _usage(spec, artifact, layout),
        _latents(factor, origin, latents),
        _graph(spec),
        _identity(artifact, latents),
    ]
    return "\n\n".join(parts) + "\n"


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
