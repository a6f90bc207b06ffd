"""Weights that others wrote: what a plan must know of them, the autoencoder that they are, and their import as an artifact.

After the import every stage treats them like trained ones.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, field
from typing import Any

from safetensors.torch import save as to_safetensors

from dcae15 import artifacts, storage
from dcae15.errors import ArtifactError, ConfigError, WeightsError
from dcae15.export import foreign_places as places
from dcae15.export.foreign_config import spec_from_config, spec_from_official
from dcae15.export.foreign_places import Place
from dcae15.export.layouts import AUTOENCODER, build_autoencoder, detect_layout, from_official
from dcae15.models.autoencoder import Autoencoder
from dcae15.models.presets import PRESETS, SCALING_FACTORS, published_name
from dcae15.models.spec import AutoencoderSpec
from dcae15.redaction import redact
from dcae15.weights import read_state_dict, require_finite

_log = logging.getLogger(__name__)

UNKNOWN = "unknown"
"""``mask_kind`` of an imported autoencoder: nobody wrote into its weights how it was trained."""

_PIECE = 2**23


@dataclass(frozen=True)
class GivenAutoencoder:
    """What a plan must know of an autoencoder that is given to it: an artifact, or foreign weights that are imported first."""

    uri: str  # where it is
    foreign: bool  # whether it must be imported
    spec: AutoencoderSpec  # its graph
    digest: str  # what names it: the fingerprint of an artifact, the SHA-256 of foreign weights
    # what else an import depends on: the graph as plain values, and what was published of the weights
    facts: dict[str, Any] = field(default_factory=dict)
    taken: str = ""  # which files are read where there was a choice, in a sentence


def given_autoencoder(uri: str, graph: AutoencoderSpec, preset: str) -> GivenAutoencoder:
    """Find out what is given as an autoencoder.

    Args:
        uri: An artifact, or foreign weights, see `load_foreign_autoencoder`.
        graph: The configured graph, which a bare weights file needs; folders and artifacts say their own.
        preset: The configured name of a published model, which a bare weights file may have.

    Raises:
        ArtifactError: There is neither foreign weights nor a finished autoencoder.
        ConfigError: The folder's configuration is unknown or unsupported.
        StorageError: A file cannot be read, or the folder holds no weights.
    """
    if not is_foreign(uri):
        artifact = artifacts.Autoencoder.open(storage.resolve(require_autoencoder(uri)))
        return GivenAutoencoder(artifact.uri, False, AutoencoderSpec.from_dict(artifact.spec), artifact.fingerprint)
    place = places.find(uri)
    spec = _spec(place, graph)
    facts = {"spec": spec.to_dict(), **_published_facts(place, preset)}
    if place.entry:
        facts["entry"] = place.entry
    entry = places.split(uri)[1]
    source = f"{place.given}#{entry}" if entry else place.given
    return GivenAutoencoder(source, True, spec, _weights_digest(place), facts, "; ".join(place.notes))


def is_foreign(uri: str) -> bool:
    """Tell whether there are foreign weights: a file, or a folder that has config.json or weights, and is no artifact of ours."""
    place = storage.resolve(places.split(uri)[0])
    return not artifacts.finished(place) and places.is_there(place)


def require_autoencoder(uri: str) -> str:
    """Return a URI that holds no foreign weights, so that it should be an artifact of ours.

    Raises:
        ArtifactError: It is something else; says what lies there.
    """
    place, entry = places.split(uri)
    if entry:
        raise ArtifactError(
            f"{place} is {'an artifact' if artifacts.finished(place) else 'no weights file'}, which has no entries: leave out "
            f"#{entry}"
        )
    if checkpoint := "" if artifacts.finished(place) else places.unfinished(place):
        raise ArtifactError(
            f"{place} is unfinished (it has no manifest.json): run its training again, which continues; or give its newest "
            f"checkpoint as weights, {checkpoint}"
        )
    if not artifacts.finished(place) and storage.exists(place):
        raise ArtifactError(
            f"{place} is no autoencoder: it holds {places.described(place)}, neither a finished artifact (manifest.json) nor "
            f"weights; pass the URI that train_autoencoder printed, or foreign weights ({places.EXPECTED})"
        )
    return place


def foreign_spec(uri: str, config: str | AutoencoderSpec | None = None) -> AutoencoderSpec:
    """Return the graph of foreign weights.

    Args:
        uri: A weights file or a folder with config.json.
        config: The graph, or a name or dotlist of it. Needed for a file and where config.json is missing; for a folder that has
            one a text replaces it, whereas a spec yields to it.

    Raises:
        ArtifactError: Nothing is there.
        ConfigError: The configuration is missing, unknown or asks for an unsupported feature.
        StorageError: config.json cannot be read, or the folder holds no weights.
    """
    return spec_from_official(config) if isinstance(config, str) else _spec(places.find(uri), config)


def _spec(place: Place, config: str | AutoencoderSpec | None) -> AutoencoderSpec:
    if isinstance(config, str):
        return spec_from_official(config)
    if place.folder:
        try:
            return spec_from_config(_folder_config(place.folder))
        except ConfigError as error:
            raise ConfigError(f"{storage.join(place.folder, places.CONFIG)}: {error}") from error
    if config is None:
        what = "a bare weights file" if place.given in place.files else "a folder of weights without config.json"
        raise ConfigError(
            f"{place.given} is {what}, which does not say its configuration; give the name of a published "
            "model (dc-ae-f32c128-1.5) or the official dotlist"
        )
    return config


def load_foreign_autoencoder(
    uri: str, config: str | AutoencoderSpec | None = None, *, ema: float | bool | None = None
) -> Autoencoder:
    """Build an autoencoder from weights in the official or the diffusers layout, recognised by their keys.

    What was taken where there was a choice, and what was left, is logged as a warning.

    Args:
        uri: A weights file; a folder with weights and config.json, see `dcae15.export.foreign_places.find`; or the folder of a
            pipeline with vae/ in it. Of a file that holds several networks or averages, ``URI#NAME`` takes one.
        config: The graph, or the name of a published model or official dotlist, see `foreign_spec`.
        ema: The moving average to take, by its decay or, where there is only one, True; see `dcae15.weights.read_state_dict`.

    Returns:
        The autoencoder in float32 (whatever the file holds), on the CPU, in evaluation mode.

    Raises:
        ArtifactError: Nothing is there.
        ConfigError: The configuration is missing, unknown or asks for an unsupported feature.
        StorageError: A file cannot be read, or the folder holds no weights.
        WeightsError: The weights are damaged, foreign, not finite, or do not fit the configuration.
    """
    place = places.find(uri)
    spec = _spec(place, config)
    for note in place.notes:
        _log.warning("%s: %s", place.given, note)
    files = place.files[0] if len(place.files) == 1 else place.files
    weights = read_state_dict(files, ema, entry=place.entry, wanted=AUTOENCODER, name=place.given)
    require_finite(weights, place.weights)
    try:
        return build_autoencoder(
            from_official(weights, spec) if detect_layout(weights) == "official" else weights, spec
        )
    except WeightsError as error:
        mending = (
            "its config.json must describe the graph that they were trained with"
            if place.folder and not isinstance(config, str)
            else "give the graph that they were trained with: autoencoder.preset=NAME or the fields of a custom graph"
        )
        raise WeightsError(f"{place.weights}: {error}; {mending}") from error


def import_autoencoder(source: str, spec: AutoencoderSpec, *, uri: str, fingerprint: str, preset: str = "") -> None:
    """Write foreign weights as an `Autoencoder` artifact to ``uri``.

    Its prefix choices are empty and its mask kind is ``unknown``; it has seen 0 images here. Its manifest also says where it
    comes from and, where known, what its latents are multiplied with elsewhere (``scaling_factor``) and its published name.

    Raises:
        ConfigError: The folder's configuration is unknown or unsupported.
        StorageError: A file cannot be read or written.
        WeightsError: The weights are damaged, foreign, or do not fit the graph.
    """
    network = load_foreign_autoencoder(source, spec)
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
    return _published_facts(places.find(source), preset)


def _published_facts(place: Place, preset: str) -> dict[str, Any]:
    config = _folder_config(place.folder) if place.folder else {"model_name": preset}
    name = published_name(str(config.get("model_name", "")))
    known: dict[str, Any] = {"model_name": name} if name in PRESETS else {}
    scaling = config.get("scaling_factor", SCALING_FACTORS.get(name))  # null says that it is not known
    if isinstance(scaling, (int, float)):
        known["scaling_factor"] = float(scaling)
    return known


def _folder_config(folder: str) -> dict[str, Any]:
    path = storage.join(folder, places.CONFIG)
    values = storage.read_json(path)
    if not isinstance(values, dict):
        raise ConfigError(f"{path} is not a JSON object")
    return values


def _weights_digest(place: Place) -> str:
    """SHA-256 of the file; of shards, that of the names and SHA-256 of their index and of each."""
    digests = {name: _digest(uri) for name, uri in places.pieces(place)}
    if len(digests) == 1:
        return next(iter(digests.values()))
    return hashlib.sha256("".join(f"{name} {digest}\n" for name, digest in digests.items()).encode()).hexdigest()


def _digest(uri: str) -> str:
    digest = hashlib.sha256()
    with storage.open_read(uri) as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()
