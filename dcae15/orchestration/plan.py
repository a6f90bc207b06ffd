"""The plan of a pipeline: its stages, what names each result, and which are there already. Pure arithmetic: no Ray, no data.

A fingerprint covers the configuration fields that can change a result, and the fingerprints of the inputs. So a stage that ran
with the same ones is reused, whoever ran it, and a sweep shares what its trials have in common.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dcae15 import artifacts, storage
from dcae15.channels import LANDMARKS, default_ladder
from dcae15.config import (
    AutoencoderConfig,
    Config,
    fingerprint,
    images_of,
    latent_channels,
    mask_kind,
    phase_fields,
    phases_of,
    prefix_choices,
    prefix_fields,
    result_fields,
    trained_prefixes,
    without_masks,
)
from dcae15.data.shards import LATENT_BYTES
from dcae15.export.importing import is_foreign, published_facts, weights_digest
from dcae15.export.loading import foreign_spec
from dcae15.models.presets import autoencoder_spec
from dcae15.models.spec import AutoencoderSpec

STAGES = (
    "prepare_images",
    "train_autoencoder",
    "train_baseline",
    "train_random",
    "cache_latents",
    "train_diffusion",
    "measure_milestones",
    "sample",
    "evaluate",
)
IMPORTS = {
    "import_autoencoder": "autoencoder",
    "import_baseline": "baseline",
    "import_random": "random",
    "import_initial": "initial",
}
"""Stages that a given autoencoder needs before the others when it is foreign, and its role."""
CONTROLS = ("train_baseline", "train_random")
"""Stages that the script of train_autoencoder runs, too."""
TRAINS = ("train_autoencoder", *CONTROLS, "train_diffusion", "measure_milestones")
"""Stages that run where networks train: on Ray's workers, or in the driver itself."""
DIFFUSION = ("cache_latents", "train_diffusion", "measure_milestones", "sample")
"""Stages that ``diffusion.enabled=false`` leaves out."""


@dataclass(frozen=True)
class Stage:
    """One stage of a pipeline.

    Attributes:
        name: as in `STAGES` or `IMPORTS`.
        kind: kind of the artifact that it makes.
        fingerprint: what names the result.
        uri: where the result is, or will be.
        inputs: URIs of the artifacts that it reads, by role.
        facts: what ``--dry-run`` prints: images, bytes, lengths.
    """

    name: str
    kind: str
    fingerprint: str
    uri: str
    inputs: dict[str, str] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """Whether the result is there."""
        return artifacts.finished(self.uri)


def plan(config: Config, given: Mapping[str, str] | None = None) -> list[Stage]:
    """Return the stages of the whole pipeline, in order.

    Args:
        config: the configuration.
        given: URIs of artifacts to use instead of those that this configuration would make, by role (``images``,
            ``autoencoder``, ``baseline``, ``random``, ``latents``, ``denoiser``, ``samples``); their stages are left out. An
            autoencoder may also be foreign weights (a file or folder); then a stage that imports them comes first.
    """
    initial = {"initial": config.autoencoder.initial} if config.autoencoder.initial else {}
    planner = _Planner(config, {**initial, **(given or {})})
    planner.import_foreign()
    for name in STAGES:
        if config.diffusion.enabled or name not in DIFFUSION:
            getattr(planner, name)()
    return planner.stages


class _Planner:
    def __init__(self, config: Config, given: dict[str, str]) -> None:
        self.config = config
        self.stages: list[Stage] = []
        self.given = given
        self.known = {role: (uri, _fingerprint_of(uri)) for role, uri in given.items()}
        self.graph = _graph_of(given.get("autoencoder", ""))

    def _add(
        self, name: str, kind: str, role: str, reads: tuple[str, ...], fields: dict[str, Any], **facts: str
    ) -> None:
        """Plan a stage unless its result was given."""
        if role in self.known:
            return
        inputs = {r: self.known[r] for r in reads if r in self.known}
        values = {**fields, "inputs": {r: print_ for r, (_, print_) in inputs.items()}}
        print_ = fingerprint(kind, values)
        uri = storage.join(self.config.storage, kind, print_)
        self.stages.append(Stage(name, kind, print_, uri, {r: u for r, (u, _) in inputs.items()}, facts))
        self.known[role] = (uri, print_)

    def import_foreign(self) -> None:
        """Plan the import of given autoencoders that are no artifacts; they are named by their content."""
        for name, role in IMPORTS.items():
            source = storage.resolve(self.known[role][0]) if role in self.known else ""
            if source and is_foreign(source):
                del self.known[role]
                spec = foreign_spec(source, autoencoder_spec(self.config.autoencoder))
                self.known["weights"] = (source, weights_digest(source))
                latent = f"{spec.latent_channels} channels, f{spec.spatial_compression}"
                fields = {"spec": spec.to_dict(), **published_facts(source, self.config.autoencoder.preset)}
                self._add(name, "autoencoder", role, ("weights",), fields, latent=latent)
                if role == "autoencoder":
                    self.graph = spec

    def prepare_images(self) -> None:
        data = self.config.data
        fields = result_fields(data)
        images = "as many as the source holds"
        if data.source == "shapes":
            count = data.shapes.images + data.shapes.val_images
            images = f"{count:,}" if not data.limit else f"{min(data.limit, count):,} or fewer"
        else:
            del fields["shapes"]
        del fields["random_crop_min_area"]  # training crops, see _autoencoder
        if data.crop == "center":
            del fields["store_side"]
        if data.kind == "auto" or data.source == "shapes":
            del fields["kind"]
        if fields["classes"]:
            fields["classes"] = sorted(set(data.classes))
        else:
            del fields["classes"]
        if data.upscale:
            del fields["upscale"]
        size = f"{data.resolution}x{data.resolution} pixels, {data.resolution**2 * 3:,} bytes uncompressed"
        self._add("prepare_images", "images", "images", (), fields, source=data.source, images=images, each=size)

    def train_autoencoder(self) -> None:
        self._autoencoder("train_autoencoder", "autoencoder", self.config.autoencoder)

    def train_baseline(self) -> None:
        if self.config.baseline and mask_kind(self.config.autoencoder) != "none":
            self._autoencoder("train_baseline", "baseline", without_masks(self.config.autoencoder))

    def train_random(self) -> None:
        if self.config.random_control and mask_kind(self.config.autoencoder) == "prefix":
            self._autoencoder("train_random", "random", without_masks(self.config.autoencoder, "random"))

    def _autoencoder(self, name: str, role: str, settings: AutoencoderConfig) -> None:
        spec, phases = autoencoder_spec(settings), phases_of(settings)
        fields = {
            "spec": spec.to_dict(),
            "flip": settings.flip,
            "phases": [phase_fields(phase, spec.latent_channels, self.config.data.resolution) for phase in phases],
            "seed": self.config.seed,
        }
        if self.config.data.crop == "random" or "images" in self.given:
            fields["random_crop_min_area"] = self.config.data.random_crop_min_area
        facts = {"latent": f"{spec.latent_channels} channels, f{spec.spatial_compression}"}
        for i, phase in enumerate(phases):
            masks = f"{phase.prefix.kind} masks {prefix_choices(phase.prefix, spec.latent_channels)}"
            facts[f"phase {i + 1}"] = "; ".join(
                [
                    *([phase.name] if len(phases) > 1 else []),
                    f"{images_of(phase):,} images in batches of {phase.training.batch_size}",
                    f"{phase.resolution or self.config.data.resolution} pixels",
                    f"trains {', '.join(phase.parts)}",
                    masks if phase.prefix.kind != "none" else "no masks",
                ]
            )
        self._add(name, "autoencoder", role, ("images", "initial"), fields, **facts)

    def cache_latents(self) -> None:
        latents, prepared = self.config.latents, self._resolution()
        spec = self.graph or autoencoder_spec(self.config.autoencoder)
        side = (latents.resolution or prepared) // spec.spatial_compression
        size = spec.latent_channels * side * side * LATENT_BYTES[latents.dtype]
        each = f"{spec.latent_channels}x{side}x{side} {latents.dtype}, {size:,} bytes"
        copies = "every image and its mirror" if latents.mirror else "every image once"
        fields = result_fields(latents)
        if latents.resolution in (0, prepared):
            del fields["resolution"]
        else:
            copies += f", reduced from {prepared} to {latents.resolution} pixels"
        self._add("cache_latents", "latents", "latents", ("images", "autoencoder"), fields, images=copies, each=each)

    def _resolution(self) -> int:
        """Return the side of the prepared images, as given ones say themselves."""
        uri = self.given.get("images", "")
        return artifacts.ImageSet.open(uri).resolution if uri else self.config.data.resolution

    def train_diffusion(self) -> None:
        settings = self.config.diffusion
        training = settings.training
        prefix = prefix_fields(settings.prefix, latent_channels(self.config.autoencoder))
        fields = {**result_fields(settings), "prefix": prefix, "seed": self.config.seed}
        if not settings.milestones:
            del fields["milestones"]
        facts = {
            "length": f"{training.images:,} images in batches of {training.batch_size}",
            "prefixes": settings.prefix.kind,
            "latents": f"{settings.scaling} scale, {'mean removed' if settings.shift else 'mean kept'}",
        }
        self._add("train_diffusion", "denoiser", "denoiser", ("latents",), fields, **facts)

    def measure_milestones(self) -> None:
        settings = self.config.diffusion
        foreign = "latents" in self.given and not {"images", "autoencoder"} <= self.given.keys()
        if not settings.milestones or foreign or "denoiser" in self.given:
            return
        evaluation = self.config.evaluation
        images = evaluation.milestone_images or self.config.sampling.images
        fields = {
            "sampling": {**result_fields(self.config.sampling), "images": images},
            "feature_images": evaluation.feature_images,
            "neighbours": evaluation.neighbours,
            "seed": self.config.data.seed,
        }
        facts = {
            "milestones": ", ".join(f"{images:,}" for images in settings.milestones),
            "images": f"{images:,} at each",
        }
        self._add(
            "measure_milestones", "milestones", "milestones", ("images", "autoencoder", "denoiser"), fields, **facts
        )

    def sample(self) -> None:
        settings = self.config.sampling
        facts = {
            "images": f"{settings.images:,}",
            "solver": f"{settings.solver}, {settings.steps} steps, guidance {settings.guidance:g}",
        }
        self._add("sample", "images", "samples", ("denoiser", "autoencoder"), result_fields(settings), **facts)

    def evaluate(self) -> None:
        reads = ("images", "autoencoder", "baseline", "random", "denoiser", "samples")
        fields = {**result_fields(self.config.evaluation), "seed": self.config.data.seed}
        del fields["milestone_images"]
        channels = latent_channels(self.config.autoencoder)
        trained = trained_prefixes(self.config.autoencoder, channels)
        if len(trained) > 1 and not set(default_ladder(channels)) <= set(trained):
            fields["shares"] = list(LANDMARKS.values())  # of the channels; once only the trained prefixes were measured
        perceptual = self.config.autoencoder.losses.perceptual
        if perceptual.vgg and perceptual.heads:
            fields["perceptual"] = [
                perceptual.vgg_sha256 or perceptual.vgg,
                perceptual.heads_sha256 or perceptual.heads,
            ]
        facts = {"images": f"{self.config.evaluation.reconstruction_images:,} validation images"}
        self._add("evaluate", "evaluation", "evaluation", reads, fields, **facts)


def _fingerprint_of(uri: str) -> str:
    """Name a given artifact by its manifest; foreign weights get their name when they are imported.

    Raises:
        ArtifactError: there is neither.
    """
    return f"foreign {uri}" if is_foreign(storage.resolve(uri)) else artifacts.read_manifest(uri)["fingerprint"]


def _graph_of(uri: str) -> AutoencoderSpec | None:
    """Return the graph of a given autoencoder, if it is an artifact."""
    return AutoencoderSpec.from_dict(artifacts.Autoencoder.open(uri).spec) if uri and artifacts.finished(uri) else None


def describe(stages: list[Stage], config: Config) -> str:
    """Return the plan as text: each stage, reused or to run, fingerprint, inputs, images, bytes."""
    lines = [f"storage: {config.storage}"]
    for stage in stages:
        lines.append(f"{stage.name:<18} {'reused' if stage.done else 'to run':<7} {stage.fingerprint}  {stage.uri}")
        lines += [f"{'':<18}   reads {role}: {uri}" for role, uri in stage.inputs.items()]
        lines += [f"{'':<18}   {name}: {value}" for name, value in stage.facts.items()]
    return "\n".join(lines)


def announce(stage: Stage, what: str) -> None:
    """Say on the console that a stage runs or is reused."""
    print(f"{stage.name}: {what} {stage.fingerprint}" + (f": {stage.uri}" if what == "reused" else ""), flush=True)
