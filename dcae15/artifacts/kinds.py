"""The kinds of artifacts that stages hand to each other.

Everything that the next stage must know (shapes, class names, prefix choices, statistics) travels inside the manifest, so that
it cannot disagree with the data.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, get_args, get_origin, get_type_hints

from dcae15 import storage
from dcae15.artifacts.manifests import read_manifest, write_manifest
from dcae15.errors import ArtifactError

LATENT_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}
"""Bytes of a number of each stored type of latents."""


@dataclass(frozen=True)
class Shard:
    """One shard file.

    Attributes:
        path: relative to the artifact.
        count: rows.
        bytes: size of the file.
        sha256: names the content.
        xxh3: finds damage whenever the shard is read, because it costs so little; empty in sets that were written without it.
    """

    path: str
    count: int
    bytes: int
    sha256: str
    xxh3: str = field(default="", repr=False)  # plans of latents, which are named by their repr, stay the same


@dataclass(frozen=True)
class Split:
    """The shards of one split (``train`` or ``val``), in order."""

    shards: tuple[Shard, ...]

    @property
    def count(self) -> int:
        """Rows in all shards."""
        return sum(shard.count for shard in self.shards)

    @property
    def bytes(self) -> int:
        """Bytes of all shards."""
        return sum(shard.bytes for shard in self.shards)


@dataclass(frozen=True)
class Statistics:
    """Statistics of raw latents over all images and positions, per channel.

    Attributes:
        count: latent positions that were measured (images times h times w).
        mean: mean of each channel.
        std: standard deviation of each channel.
    """

    count: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def rms(self) -> tuple[float, ...]:
        """Root mean square of each channel."""
        return tuple((m * m + s * s) ** 0.5 for m, s in zip(self.mean, self.std, strict=True))


@dataclass(frozen=True)
class LatentSpec:
    """What a latent is.

    Attributes:
        channels: C.
        height: h, latent pixels.
        width: w, latent pixels.
        compression: f, image pixels per latent pixel.
        prefix_choices: prefix lengths that the autoencoder was trained with; only C for a baseline.
        autoencoder: fingerprint of the autoencoder.
    """

    channels: int
    height: int
    width: int
    compression: int
    prefix_choices: tuple[int, ...]
    autoencoder: str


@dataclass(frozen=True)
class Artifact:
    """A finished result of a stage: where it is and what names it."""

    uri: str
    fingerprint: str
    KIND: ClassVar[str] = ""

    def commit(self, **extra: Any) -> None:
        """Write the manifest, which makes the artifact exist; every other file must be there already."""
        body = dataclasses.asdict(self)
        write_manifest(body.pop("uri"), self.KIND, {**extra, **body})

    @classmethod
    def open(cls, uri: str) -> Self:
        """Read a finished artifact; raise ArtifactError when it is missing, unfinished or of another kind."""
        manifest = read_manifest(uri)
        if manifest["kind"] != cls.KIND:
            raise ArtifactError(
                f"{uri} holds {manifest['kind']!r}, but {cls.KIND!r} is needed here; pass the URI that the {cls.KIND} stage printed"
            )
        try:
            body = {f.name: manifest[f.name] for f in dataclasses.fields(cls) if f.name != "uri"}
            return _decoded(cls, {**body, "uri": storage.resolve(uri)})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"the manifest of {uri} is damaged ({error}); delete the folder and run its stage again"
            ) from error


def _decoded(kind: Any, value: Any) -> Any:
    """Return a value of a manifest as its field's type says: lists become tuples, objects become dataclasses."""
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        types = _types(kind)
        return kind(**{name: _decoded(types[name], item) for name, item in value.items()})
    if get_origin(kind) is tuple:
        return tuple(_decoded(get_args(kind)[0], item) for item in value)
    if get_origin(kind) is dict:
        return {name: _decoded(get_args(kind)[1], item) for name, item in value.items()}
    return value


_types = functools.cache(get_type_hints)


@dataclass(frozen=True)
class ImageSet(Artifact):
    """Prepared images in shards.

    Attributes:
        class_names: names by label.
        resolution: side of a square image, pixels; with crop ``random`` the side that training crops to.
        encoding: ``raw`` (H x W x 3 uint8) or ``png``.
        crop: ``center`` (images are squares) or ``random`` (whole images).
        splits: ``train`` and ``val``.
        rejected: quarantined images by reason; the list with ids is ``rejected.jsonl``.
        source: where the images came from.
    """

    class_names: tuple[str, ...]
    resolution: int
    encoding: str
    crop: str
    splits: dict[str, Split]
    rejected: dict[str, int]
    source: str
    KIND: ClassVar[str] = "images"


@dataclass(frozen=True)
class Autoencoder(Artifact):
    """An autoencoder: ``weights.safetensors`` (moving average) and, if trained here, ``weights_raw.safetensors`` (last step).

    Attributes:
        spec: the graph, as `dcae15.models.spec.AutoencoderSpec.to_dict` gives it.
        resolution: side of the training images, pixels; 0 for an imported one.
        prefix_choices: prefix lengths that it was trained with; only C for a baseline, empty for an imported one.
        mask_kind: ``prefix``, ``random`` or ``none``; ``unknown`` for an imported one.
        images_seen: length of its training; 0 for an imported one.
        images: fingerprint of the image set; empty for an imported one.
        warnings: what was noticed while it trained.
    """

    spec: dict[str, Any]
    resolution: int
    prefix_choices: tuple[int, ...]
    mask_kind: str
    images_seen: int
    images: str
    warnings: tuple[str, ...] = ()
    KIND: ClassVar[str] = "autoencoder"


@dataclass(frozen=True)
class LatentSet(Artifact):
    """Raw latents of an image set in shards, with the statistics that normalise them.

    Attributes:
        spec: shape and origin of a latent.
        dtype: stored type.
        statistics: of the training split.
        splits: ``train`` and ``val``.
        class_names: names by label.
        mirror: whether each training image is there twice, plain and mirrored.
        images: fingerprint of the image set.
        autoencoder_uri: where the autoencoder was when the latents were made.
    """

    spec: LatentSpec
    dtype: str
    statistics: Statistics
    splits: dict[str, Split]
    class_names: tuple[str, ...]
    mirror: bool
    images: str
    autoencoder_uri: str
    KIND: ClassVar[str] = "latents"


@dataclass(frozen=True)
class Denoiser(Artifact):
    """A trained denoiser: ``weights.safetensors`` (moving average) and ``weights_raw.safetensors`` (last step).

    Attributes:
        spec: the graph, as `dcae15.models.spec.DiTSpec.to_dict` gives it.
        latents: what it generates.
        shift: subtracted from each raw channel before the denoiser sees it.
        scale: then multiplied with it.
        prefix_choices: prefix lengths that it was trained with.
        class_names: names by label; the null class is the next label.
        images_seen: length of its training.
        latent_set: fingerprint of the latent set.
        autoencoder_uri: where the autoencoder was when the latents were made.
        warnings: what was noticed while it trained.
    """

    spec: dict[str, Any]
    latents: LatentSpec
    shift: tuple[float, ...]
    scale: tuple[float, ...]
    prefix_choices: tuple[int, ...]
    class_names: tuple[str, ...]
    images_seen: int
    latent_set: str
    autoencoder_uri: str
    warnings: tuple[str, ...] = ()
    KIND: ClassVar[str] = "denoiser"


@dataclass(frozen=True)
class Milestones(Artifact):
    """What a denoiser generated at the milestones of its training.

    Attributes:
        rows: one per milestone: ``images`` (seen), ``frechet_distance.generated`` and others.
    """

    rows: tuple[dict[str, float], ...]
    KIND: ClassVar[str] = "milestones"


@dataclass(frozen=True)
class Evaluation(Artifact):
    """Measurements of autoencoders and generated images; pictures lie beside the manifest in ``pictures.safetensors``.

    Arms are the autoencoders that were measured: ``structured``, ``baseline``, ``random``, or other names. What was not
    measured has no entry. `dcae15.evaluation.arms.ArmMeasures` says what the rows hold.

    Attributes:
        reconstruction: rows per prefix, by arm: the quality of what the first channels decode to.
        structure: rows per prefix, by arm: what the first channels hold.
        channels: rows per latent channel, by arm: mean, standard deviation, energies in low and high frequencies.
        summary: numbers of the whole latent, by arm.
        generation: numbers of the generated images; empty without any.
        protocol: everything that makes the numbers comparable.
        prefixes: prefix lengths of the rows and pictures, by arm; the last is all of its channels.
        warnings: signs that a training went wrong, one sentence each.
    """

    reconstruction: dict[str, list[dict[str, float]]]
    structure: dict[str, list[dict[str, float]]]
    channels: dict[str, list[dict[str, float]]]
    summary: dict[str, dict[str, float]]
    generation: dict[str, float]
    protocol: dict[str, str]
    prefixes: dict[str, list[int]]
    warnings: list[str] = field(default_factory=list)
    KIND: ClassVar[str] = "evaluation"
