"""evaluate from artifact to artifact: every measurement of a run."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as to_safetensors

from dcae15 import artifacts, storage
from dcae15.artifacts.claims import claim
from dcae15.config import Config, fingerprint
from dcae15.data.disk_cache import disk_cache
from dcae15.data.loader import image_batches
from dcae15.data.stream import ImageStream, load_images
from dcae15.errors import ConfigError
from dcae15.evaluation import needs
from dcae15.evaluation.arms import ArmMeasures, Probes, look_at, measure_arm, prefix_ladders
from dcae15.evaluation.distances import FeatureStatistics, frechet_distance
from dcae15.evaluation.features import BATCH_SIZE, FeatureNetwork, random_batches, train_features
from dcae15.evaluation.generation import compare_with_real, require_size
from dcae15.evaluation.reconstruction import PerceptualDistance
from dcae15.evaluation.verdict import evaluation_warnings, headline_scalars
from dcae15.library import load_autoencoder
from dcae15.losses.perceptual import load_lpips
from dcae15.models.autoencoder import Autoencoder

GENERATED = "generated"
MOST_SHOWN_CLASSES = 20
"""Generated images are kept to be shown of at most the first so many classes."""
MOST_SHOWN = 1_000
"""Generated images that are looked through for some to show, where those that are compared are too few."""
MOST_FEATURE_IMAGES = 50_000
MOST_FEATURE_BYTES = 1 << 30
"""The feature network trains on the first so many images of the set; where these take more memory, on all of them, streamed."""


def evaluate(
    config: Config,
    *,
    images: str,
    autoencoders: Mapping[str, str],
    uri: str,
    fingerprint: str,
    samples: str = "",
    perceptual: PerceptualDistance | None = None,
    device: str = "cpu",
    say: Callable[[str], None] = print,
) -> dict[str, float]:
    """Measure autoencoders and, where there are any, generated images; write the evaluation to ``uri``.

    Measures that need more images than there are have no entry, and a sentence among the warnings, see `dcae15.evaluation.needs`.

    Args:
        config: what to measure.
        images: URI of the image set.
        autoencoders: URIs by arm, at least one: ``structured``, ``baseline``, ``random``, or any other name; ours or whatever
            `dcae15.library.load_autoencoder` opens.
        uri: where to write.
        fingerprint: what names the result.
        samples: URI of the generated images; empty leaves generation out.
        perceptual: LPIPS on ``device``; None loads it where ``autoencoder.losses.perceptual`` names its weights.
        device: where to compute.
        say: shows progress and warnings to the user.

    Returns:
        The headline numbers by name, see `dcae15.evaluation.verdict.headline_scalars`.

    Raises:
        ConfigError: there is no autoencoder, or one that cannot take images of this size.
    """
    if not autoencoders:
        raise ConfigError("there is no autoencoder to evaluate; pass autoencoder=URI")
    image_set = artifacts.ImageSet.open(images)
    settings = config.evaluation
    sample_set = artifacts.ImageSet.open(samples) if samples else None
    counts = needs.Counts(image_set.splits["train"].count, image_set.splits["val"].count)
    missing = list(needs.left_out(config, counts, sample_set.splits[GENERATED].count if sample_set else 0))
    network = features_of(config, image_set, device, say)
    codecs = {arm: _load(arm, source, image_set) for arm, source in autoencoders.items()}
    ladders = prefix_ladders(
        {arm: codec.prefix_choices for arm, codec in codecs.items()},
        {arm: codec.spec.latent_channels for arm, codec in codecs.items()},
    )
    measured: dict[str, ArmMeasures] = {}
    pictures: dict[str, torch.Tensor] = {}
    if counts.val:
        probes = _probes(config, image_set, network)
        perceptual = perceptual or _lpips(config, device)
        pictures["inputs"] = torch.from_numpy(probes.shown)
        for arm in list(codecs):
            say(f"evaluate: reconstructions and channels of the {arm} autoencoder")
            codec = codecs.pop(arm).to(device)
            measured[arm] = measure_arm(codec, ladders[arm], probes, settings, perceptual=perceptual, device=device)
    for arm, found in measured.items():
        pictures[f"reconstructions.{arm}"] = torch.from_numpy(found.reconstructions)
        if found.channel_means is not None:
            pictures[f"channel_means.{arm}"] = torch.from_numpy(found.channel_means)
    compared = {
        "reference_count": min(settings.reconstruction_images, counts.val),
        "reference_digest": f"val of {image_set.fingerprint}",
        "extractor": "classifier trained on this image set (64 features)",
        "extractor_digest": network.digest,
        "resize": "none",
    }
    generation: dict[str, float] = {}
    if sample_set:
        say("evaluate: generated images")
        generation, count, pictures["samples"] = _generation(config, image_set, sample_set, network, device)
        compared = {"count": count, **compared, "reference_count": count, **_generated_with(config, samples)}
    storage.write_bytes(storage.join(uri, artifacts.PICTURES), to_safetensors(pictures))
    if any("explained_share" not in row for found in measured.values() for row in found.structure) and counts.val > 1:
        missing.append("the shares of frequencies are left out: all validation images are alike")
    evaluation = artifacts.Evaluation(
        uri,
        fingerprint,
        reconstruction={arm: found.reconstruction for arm, found in measured.items()},
        structure={arm: found.structure for arm, found in measured.items()},
        channels={arm: found.channels for arm, found in measured.items()},
        summary={arm: found.summary for arm, found in measured.items()},
        generation=generation,
        protocol={name: str(value) for name, value in compared.items()},
        prefixes=ladders,
        warnings=evaluation_warnings(
            {arm: found.reconstruction for arm, found in measured.items()},
            {arm: found.channels for arm, found in measured.items()},
            full_channel_gap_db=settings.full_channel_gap_db,
        )
        + missing,
    )
    evaluation.commit()
    for warning in evaluation.warnings:
        say(f"evaluate: warning: {warning}")
    return headline_scalars(evaluation.reconstruction, evaluation.structure, evaluation.summary, generation)


def _probes(config: Config, image_set: artifacts.ImageSet, network: FeatureNetwork) -> Probes:
    """Look once at the images that every arm is measured on."""
    settings, disk = config.evaluation, disk_cache(config.scaling, image_set.uri)
    real = ImageStream(image_set, "val", settings.reconstruction_images, disk)
    train = ImageStream(image_set, "train", settings.probe_images, disk) if settings.probe_images else None
    return look_at(real, train, len(image_set.class_names), network, settings.grid_images)


def _load(arm: str, source: str, image_set: artifacts.ImageSet) -> Autoencoder:
    autoencoder = load_autoencoder(source)
    factor = autoencoder.spec.spatial_compression
    if image_set.resolution % factor:
        raise ConfigError(
            f"the {arm} autoencoder {source} compresses by {factor}, which does not divide the images of "
            f"{image_set.resolution} pixels of {image_set.uri}; prepare images of another data.resolution"
        )
    return autoencoder


def _lpips(config: Config, device: str) -> PerceptualDistance | None:
    """Return LPIPS where both of its weight files are configured."""
    perceptual = config.autoencoder.losses.perceptual
    if not (perceptual.vgg and perceptual.heads):
        return None
    return load_lpips(perceptual, "autoencoder.losses.perceptual").to(device)


def _generated_with(config: Config, samples: str) -> dict[str, Any]:
    """Return how generated images say themselves that they were made; else as configured."""
    made = artifacts.read_manifest(samples).get("sampling", config.sampling.model_dump())
    names = ("solver", "steps", "guidance", "guidance_start", "guidance_end", "prefix", "seed")
    return {name: made[name] for name in names} | {"ema_decay": config.diffusion.training.ema_decay}


def features_of(
    config: Config, image_set: artifacts.ImageSet, device: str, say: Callable[[str], None] = print
) -> FeatureNetwork:
    """Return the feature network of an image set: trained once, kept in the storage by what it was trained on."""
    settings = config.evaluation
    inputs = {"images": image_set.fingerprint, "feature_images": settings.feature_images, "seed": config.data.seed}
    name = fingerprint("features", inputs)
    uri = storage.join(config.storage, "features", name, "weights.safetensors")
    if not storage.exists(uri):
        with claim(config.storage, f"features-{name}", lambda line: say(f"features: {line}")):
            if not storage.exists(uri):
                say(f"features: training the network on {settings.feature_images:,} images")
                storage.write_bytes(uri, _train_features(config, image_set, device).to_bytes())
    return FeatureNetwork.from_bytes(storage.read_bytes(uri), device)


def _train_features(config: Config, image_set: artifacts.ImageSet, device: str) -> FeatureNetwork:
    settings = config.evaluation
    training = {
        "resolution": image_set.resolution,
        "num_classes": len(image_set.class_names),
        "images_seen": settings.feature_images,
        "seed": config.data.seed,
        "device": device,
    }
    held = min(image_set.splits["train"].count, MOST_FEATURE_IMAGES) * image_set.resolution**2 * 3
    if held <= MOST_FEATURE_BYTES:
        return train_features(random_batches(*load_images(image_set, MOST_FEATURE_IMAGES)), **training)
    with closing(_streamed(config, image_set)) as stream:
        return train_features(lambda generator: stream, **training)


def _streamed(config: Config, image_set: artifacts.ImageSet) -> Generator[tuple[np.ndarray, np.ndarray], None, None]:
    """Yield centre-cropped training images in the loader's order."""
    batches = image_batches(
        image_set,
        seed=config.data.seed,
        batch_size=BATCH_SIZE,
        start=0,
        rank=0,
        world=1,
        augment=False,
        disk=disk_cache(config.scaling, image_set.uri),
    )
    with closing(iter(batches)) as stream:
        for batch in stream:
            yield batch.inputs.numpy(), batch.labels.numpy()


def _generation(
    config: Config, image_set: artifacts.ImageSet, sample_set: artifacts.ImageSet, network: FeatureNetwork, device: str
) -> tuple[dict[str, float], int, torch.Tensor]:
    """Compare generated with validation images, both cut to the same number, because distances depend on it.

    Where there are no validation images, they are only shown.
    """
    require_size(sample_set.resolution, image_set)
    count = min(sample_set.splits[GENERATED].count, image_set.splits["val"].count)
    shown: list[list[np.ndarray]] = [[] for _ in image_set.class_names[:MOST_SHOWN_CLASSES]]

    def generated(count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the first ones, and keep some of each class."""
        stream = ImageStream(sample_set, GENERATED, count, disk_cache(config.scaling, sample_set.uri))
        for images, labels in stream.by_shard():
            for label, rows in enumerate(shown):
                rows += [image.copy() for image in images[labels == label][: config.evaluation.grid_images - len(rows)]]
            yield images, labels

    generation: dict[str, float] = {}
    if count:
        real, train = (_features(config, network, image_set, split, count) for split in ("val", "train"))
        generation = compare_with_real(network, generated(count), real, config.evaluation.neighbours)
        if min(len(real), len(train)) >= needs.FRECHET:
            reference, training = (FeatureStatistics.empty(x.shape[1]).update(x) for x in (real, train))
            generation["frechet_distance_of_training_images"] = frechet_distance(reference, training)
        generation["images"] = float(count)
    if not all(shown):  # too few are compared
        deque(generated(MOST_SHOWN), maxlen=0)
    shortest = min(len(rows) for rows in shown)
    side = sample_set.resolution
    grid = np.array([rows[:shortest] for rows in shown], np.uint8).reshape(len(shown), shortest, side, side, 3)
    return generation, count, torch.from_numpy(grid)


def _features(
    config: Config, network: FeatureNetwork, image_set: artifacts.ImageSet, split: str, count: int
) -> np.ndarray:
    """Return the features of the first images of a split, read shard by shard."""
    stream = ImageStream(image_set, split, count, disk_cache(config.scaling, image_set.uri))
    return np.concatenate([network.features(images) for images, _ in stream.by_shard()])
