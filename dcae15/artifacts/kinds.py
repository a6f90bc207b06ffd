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
    """One shard file."""

    path: str  # relative to the artifact
    count: int  # rows
    bytes: int  # size of the file
    sha256: str  # names the content
    # finds damage whenever the shard is read, because it costs so little; empty in sets that were written without it
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
    """Statistics of raw latents over all images and positions, per channel."""

    count: int  # latent positions that were measured (images times h times w)
    mean: tuple[float, ...]  # mean of each channel
    std: tuple[float, ...]  # standard deviation of each channel

    @property
    def rms(self) -> tuple[float, ...]:
        """Root mean square of each channel."""
        return tuple((m * m + s * s) ** 0.5 for m, s in zip(self.mean, self.std, strict=True))


@dataclass(frozen=True)
class LatentSpec:
    """What a latent is."""

    channels: int  # C
    height: int  # h, latent pixels
    width: int  # w, latent pixels
    compression: int  # f, image pixels per latent pixel
    prefix_choices: tuple[int, ...]  # prefix lengths that the autoencoder was trained with; only C for a baseline
    autoencoder: str  # fingerprint of the autoencoder


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
            return _decoded(cls, {**body, "uri": storage.canonical(uri)})
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
    """Prepared images in shards."""

    class_names: tuple[str, ...]  # names by label
    resolution: int  # side of a square image, pixels; with crop ``random`` the side that training crops to
    encoding: str  # ``raw`` (H x W x 3 uint8) or ``png``
    crop: str  # ``center`` (images are squares) or ``random`` (whole images)
    splits: dict[str, Split]  # ``train`` and ``val``
    rejected: dict[str, int]  # quarantined images by reason; the list with ids is ``rejected.jsonl``
    source: str  # where the images came from
    KIND: ClassVar[str] = "images"


@dataclass(frozen=True)
class Autoencoder(Artifact):
    """An autoencoder: ``weights.safetensors`` (moving average) and, if trained here, ``weights_raw.safetensors`` (last step)."""

    spec: dict[str, Any]  # the graph, as `dcae15.models.spec.AutoencoderSpec.to_dict` gives it
    resolution: int  # side of the training images, pixels; 0 for an imported one
    # prefix lengths that it was trained with; only C for a baseline, empty for an imported one
    prefix_choices: tuple[int, ...]
    mask_kind: str  # ``prefix``, ``random`` or ``none``; ``unknown`` for an imported one
    images_seen: int  # length of its training; 0 for an imported one
    images: str  # fingerprint of the image set; empty for an imported one
    warnings: tuple[str, ...] = ()  # what was noticed while it trained
    KIND: ClassVar[str] = "autoencoder"


@dataclass(frozen=True)
class LatentSet(Artifact):
    """Raw latents of an image set in shards, with the statistics that normalise them."""

    spec: LatentSpec  # shape and origin of a latent
    dtype: str  # stored type
    statistics: Statistics  # of the training split
    splits: dict[str, Split]  # ``train`` and ``val``
    class_names: tuple[str, ...]  # names by label
    mirror: bool  # whether each training image is there twice, plain and mirrored
    images: str  # fingerprint of the image set
    autoencoder_uri: str  # where the autoencoder was when the latents were made
    KIND: ClassVar[str] = "latents"


@dataclass(frozen=True)
class Denoiser(Artifact):
    """A trained denoiser: ``weights.safetensors`` (moving average) and ``weights_raw.safetensors`` (last step)."""

    spec: dict[str, Any]  # the graph, as `dcae15.models.spec.DiTSpec.to_dict` gives it
    latents: LatentSpec  # what it generates
    shift: tuple[float, ...]  # subtracted from each raw channel before the denoiser sees it
    scale: tuple[float, ...]  # then multiplied with it
    prefix_choices: tuple[int, ...]  # prefix lengths that it was trained with
    class_names: tuple[str, ...]  # names by label; the null class is the next label
    images_seen: int  # length of its training
    latent_set: str  # fingerprint of the latent set
    autoencoder_uri: str  # where the autoencoder was when the latents were made
    warnings: tuple[str, ...] = ()  # what was noticed while it trained
    KIND: ClassVar[str] = "denoiser"


@dataclass(frozen=True)
class Milestones(Artifact):
    """What a denoiser generated at the milestones of its training."""

    # one per milestone: ``images`` (seen), ``frechet_distance.generated`` and others
    rows: tuple[dict[str, float], ...]
    KIND: ClassVar[str] = "milestones"


@dataclass(frozen=True)
class Evaluation(Artifact):
    """Measurements of autoencoders and generated images; pictures lie beside the manifest in ``pictures.safetensors``.

    Arms are the autoencoders that were measured: ``structured``, ``baseline``, ``random``, or other names. What was not
    measured has no entry. `dcae15.evaluation.arms.ArmMeasures` says what the rows hold.
    """

    # rows per prefix, by arm: the quality of what the first channels decode to
    reconstruction: dict[str, list[dict[str, float]]]
    structure: dict[str, list[dict[str, float]]]  # rows per prefix, by arm: what the first channels hold
    # rows per latent channel, by arm: mean, standard deviation, energies in low and high frequencies
    channels: dict[str, list[dict[str, float]]]
    summary: dict[str, dict[str, float]]  # numbers of the whole latent, by arm
    generation: dict[str, float]  # numbers of the generated images; empty without any
    protocol: dict[str, str]  # everything that makes the numbers comparable
    prefixes: dict[str, list[int]]  # prefix lengths of the rows and pictures, by arm; the last is all of its channels
    warnings: list[str] = field(default_factory=list)  # signs that a training went wrong, one sentence each
    KIND: ClassVar[str] = "evaluation"
