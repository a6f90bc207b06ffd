"""Foreign autoencoders as artifacts: after the import every stage treats them like trained ones."""

from __future__ import annotations

import hashlib
from typing import Any

from safetensors.torch import save as to_safetensors

from dcae15 import artifacts, storage
from dcae15.export.loading import foreign_config, foreign_weights, load_foreign_autoencoder
from dcae15.models.presets import PRESETS, SCALING_FACTORS, published_name
from dcae15.models.spec import AutoencoderSpec
from dcae15.redaction import redact
from dcae15.weights import is_weights_file

UNKNOWN = "unknown"
"""``mask_kind`` of an imported autoencoder: nobody wrote into its weights how it was trained."""

_PIECE = 2**23


def is_foreign(uri: str) -> bool:
    """Tell whether there are foreign weights: a weights file, or a folder that has config.json and is no artifact."""
    if artifacts.finished(uri):
        return False
    return storage.exists(uri if is_weights_file(uri) else storage.join(uri, "config.json"))


def weights_digest(uri: str) -> str:
    """Return the SHA-256 of the weights file of a foreign autoencoder, which names it wherever it is.

    Raises:
        StorageError: The file cannot be read.
    """
    digest = hashlib.sha256()
    with storage.open_read(foreign_weights(uri)) as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def import_autoencoder(
    source: str, spec: AutoencoderSpec, *, uri: str, fingerprint: str, preset: str = "", ema: float | None = None
) -> None:
    """Write foreign weights as an `Autoencoder` artifact to ``uri``.

    Its prefix choices are empty and its mask kind is ``unknown``; it has seen 0 images here. Its manifest also says where it
    comes from and, where known, what its latents are multiplied with elsewhere (``scaling_factor``) and its published name.

    Args:
        source: Weights file, official folder or diffusers folder.
        spec: The graph of a bare file; a folder says its own.
        uri: Where to write.
        fingerprint: What names the result.
        preset: Published name of a bare file's model; other names say nothing.
        ema: Decay of a moving average to take, see `dcae15.weights.read_state_dict`.

    Raises:
        ConfigError: The folder's configuration is unknown or unsupported.
        StorageError: A file cannot be read or written.
        WeightsError: The weights are damaged, foreign, or do not fit the graph.
    """
    network = load_foreign_autoencoder(source, spec, ema=ema)
    state = {key: value.contiguous() for key, value in network.state_dict().items()}
    storage.write_bytes(storage.join(uri, "weights.safetensors"), to_safetensors(state))
    artifacts.Autoencoder(
        uri,
        fingerprint,
        spec=network.spec.to_dict(),
        resolution=0,
        prefix_choices=(),
        mask_kind=UNKNOWN,
        images_seen=0,
        images="",
    ).commit(
        parameters=sum(value.numel() for value in network.parameters()),
        source=redact(source),
        **published_facts(source, preset),
    )


def published_facts(source: str, preset: str) -> dict[str, Any]:
    """Return ``model_name`` and ``scaling_factor`` as far as they are known."""
    config = {"model_name": preset} if is_weights_file(source) else foreign_config(source)
    name = published_name(str(config.get("model_name", "")))
    known: dict[str, Any] = {"model_name": name} if name in PRESETS else {}
    scaling = config.get("scaling_factor", SCALING_FACTORS.get(name))  # null says that it is not known
    if isinstance(scaling, (int, float)):
        known["scaling_factor"] = float(scaling)
    return known
