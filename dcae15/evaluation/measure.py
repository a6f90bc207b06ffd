"""evaluate from artifact to artifact: every measurement of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors

from dcae15 import artifacts, storage
from dcae15.config import Config, fingerprint, result_fields
from dcae15.data.loader import iterate_images, load_images
from dcae15.errors import ConfigError, DataError
from dcae15.evaluation.arms import ArmMeasures, Probes, measure_arm, prefix_ladders
from dcae15.evaluation.features import FeatureNetwork, train_features
from dcae15.evaluation.frechet import FeatureStatistics, frechet_distance
from dcae15.evaluation.precision_recall import precision_recall
from dcae15.evaluation.protocol import Protocol
from dcae15.evaluation.reconstruction import PerceptualDistance
from dcae15.evaluation.verdict import evaluation_warnings, headline_scalars
from dcae15.loading import load_autoencoder
from dcae15.losses.perceptual import load_lpips
from dcae15.models.autoencoder import Autoencoder

PICTURES = "pictures.safetensors"
GENERATED = "generated"
MOST_SHOWN_CLASSES = 20
"""Generated images are kept to be shown of at most the first so many classes."""
MOST_FEATURE_IMAGES = 50_000
"""The feature network trains on at most the first so many images of the set, which are held in memory."""


def evaluate(
    config: Config,
    *,
    images: str,
    autoencoders: Mapping[str, str],
    uri: str,
    fingerprint: str,
    denoiser: str = "",
    samples: str = "",
    perceptual: PerceptualDistance | None = None,
    device: str = "cpu",
    say: Callable[[str], None] = print,
) -> dict[str, float]:
    """Measure autoencoders and, where there are any, generated images; write the evaluation to ``uri``.

    Args:
        config: what to measure.
        images: URI of the image set.
        autoencoders: URIs by arm, at least one: ``structured``, ``baseline``, ``random``, or any other name; ours or whatever
            `dcae15.loading.load_autoencoder` opens.
        uri: where to write.
        fingerprint: what names the result.
        denoiser: URI of the denoiser that generated; only its settings are noted in the protocol.
        samples: URI of the generated images; empty leaves generation out.
        perceptual: LPIPS on ``device``; None loads it where ``autoencoder.losses.perceptual`` names its weights.
        device: where to compute.
        say: shows progress and warnings to the user.

    Returns:
        The headline numbers by name, see `dcae15.evaluation.verdict.headline_scalars`.

    Raises:
        ConfigError: there is no autoencoder, or one that cannot take images of this size.
        DataError: there are too few validation images.
    """
    if not autoencoders:
        raise ConfigError("there is no autoencoder to evaluate; pass autoencoder=URI")
    image_set = artifacts.ImageSet.open(images)
    settings = config.evaluation
    network = features_of(config, image_set, device, say)
    probes = _probes(config, image_set, network)
    perceptual = perceptual or _lpips(config, device)
    codecs = {arm: _load(arm, source, image_set) for arm, source in autoencoders.items()}
    ladders = prefix_ladders(
        {arm: codec.prefix_choices for arm, codec in codecs.items()},
        {arm: codec.spec.latent_channels for arm, codec in codecs.items()},
    )
    measured: dict[str, ArmMeasures] = {}
    for arm in list(codecs):
        say(f"evaluate: reconstructions and channels of the {arm} autoencoder")
        codec = codecs.pop(arm).to(device)
        measured[arm] = measure_arm(codec, ladders[arm], probes, settings, perceptual=perceptual, device=device)
    pictures = {"inputs": torch.from_numpy(probes.images[: settings.grid_images])}
    for arm, found in measured.items():
        pictures[f"reconstructions.{arm}"] = torch.from_numpy(found.reconstructions)
        if found.channel_means is not None:
            pictures[f"channel_means.{arm}"] = torch.from_numpy(found.channel_means)
    compared = {
        "reference_count": len(probes.images),
        "reference_digest": f"val of {image_set.fingerprint}",
        "extractor": "classifier trained on this image set (64 features)",
        "extractor_digest": network.digest,
        "resize": "none",
    }
    generation: dict[str, float] = {}
    if samples:
        say("evaluate: generated images")
        generation, counts, pictures["samples"] = _generation(config, image_set, samples, network, device)
        compared = _protocol(config, samples, {**compared, "count": counts[0], "reference_count": counts[1]}).to_dict()
    storage.write_bytes(storage.join(uri, PICTURES), to_safetensors(pictures))
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
        ),
    )
    evaluation.commit()
    for warning in evaluation.warnings:
        say(f"evaluate: warning: {warning}")
    return headline_scalars(evaluation.reconstruction, evaluation.structure, evaluation.summary, generation)


def _probes(config: Config, image_set: artifacts.ImageSet, network: FeatureNetwork) -> Probes:
    """Load the images that every arm is measured on."""
    settings = config.evaluation
    real, labels = load_images(image_set, "val", settings.reconstruction_images)
    if len(real) < 2:
        raise DataError(
            f"{image_set.uri} has {len(real)} validation images; measuring needs at least 2: raise data.val_fraction"
        )
    train, train_labels = load_images(image_set, "train", settings.probe_images) if settings.probe_images else ([], [])
    return Probes(
        images=real,
        labels=labels,
        train_images=np.asarray(train),
        train_labels=np.asarray(train_labels),
        num_classes=len(image_set.class_names),
        network=network,
        reference=_statistics(network, real),
    )


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


def _protocol(config: Config, samples: str, compared: Mapping[str, Any]) -> Protocol:
    """Return the protocol of the generated images, as they say themselves how they were made; else as configured."""
    configured = result_fields(config.sampling)
    made = artifacts.read_manifest(samples).get("sampling", configured) if samples else configured
    names = ("solver", "steps", "guidance", "guidance_start", "guidance_end", "prefix", "seed")
    return Protocol(**compared, **{name: made[name] for name in names}, ema_decay=config.diffusion.training.ema_decay)


def features_of(
    config: Config, image_set: artifacts.ImageSet, device: str, say: Callable[[str], None] = print
) -> FeatureNetwork:
    """Return the feature network of an image set: trained once, kept in the storage by what it was trained on."""
    settings = config.evaluation
    inputs = {"images": image_set.fingerprint, "feature_images": settings.feature_images, "seed": config.seed}
    uri = storage.join(config.storage, "features", fingerprint("features", inputs), "weights.safetensors")
    if storage.exists(uri):
        return FeatureNetwork.from_bytes(storage.read_bytes(uri), device)
    say(f"evaluate: training the feature network on {settings.feature_images:,} images")
    images, labels = load_images(image_set, "train", MOST_FEATURE_IMAGES)
    network = train_features(
        images,
        labels,
        num_classes=len(image_set.class_names),
        images_seen=settings.feature_images,
        seed=config.seed,
        device=device,
    )
    storage.write_bytes(uri, network.to_bytes())
    return network


def read_pictures(uri: str) -> dict[str, np.ndarray]:
    """Return the uint8 pictures of an evaluation.

    They are ``inputs`` (N, H, W, 3), ``reconstructions.<arm>`` (P, N, H, W, 3), ``channel_means.<arm>`` (P, N, h, w) where
    latents have several places, and ``samples`` (classes, K, H, W, 3) where images were generated.
    """
    tensors = from_safetensors(storage.read_bytes(storage.join(uri, PICTURES)))
    return {name: value.numpy() for name, value in tensors.items()}


def _generation(
    config: Config, image_set: artifacts.ImageSet, samples: str, network: FeatureNetwork, device: str
) -> tuple[dict[str, float], tuple[int, int], torch.Tensor]:
    """Compare generated with validation images, both cut to the same number: distances depend on it."""
    sample_set = artifacts.ImageSet.open(samples)
    if sample_set.resolution != image_set.resolution:
        raise ConfigError(
            f"generated images of {sample_set.resolution} pixels cannot be compared with images of {image_set.resolution} "
            "pixels; pass the image set that the denoiser was trained on"
        )
    count = min(sample_set.splits[GENERATED].count, image_set.splits["val"].count)
    shown: list[list[np.ndarray]] = [[] for _ in image_set.class_names[:MOST_SHOWN_CLASSES]]
    fake_parts, right = [], 0
    for images, labels in iterate_images(sample_set, GENERATED, count):
        features, guesses = network.features_and_labels(images)
        fake_parts.append(features)
        right += int((guesses == labels).sum())
        for label, rows in enumerate(shown):
            rows += [image.copy() for image in images[labels == label][: config.evaluation.grid_images - len(rows)]]
    fake, real = np.concatenate(fake_parts), _features(network, image_set, "val", count)
    reference, generated = (FeatureStatistics.empty(real.shape[1]).update(x) for x in (real, fake))
    train = FeatureStatistics.empty(real.shape[1]).update(_features(network, image_set, "train", count))
    precision, recall = precision_recall(real, fake, neighbours=config.evaluation.neighbours)
    generation = {
        "frechet_distance": frechet_distance(reference, generated),
        "frechet_distance_of_training_images": frechet_distance(reference, train),
        "precision": precision,
        "recall": recall,
        "images": float(len(fake)),
    }
    if network.num_classes == len(image_set.class_names) > 1:
        generation["class_accuracy"] = right / len(fake)
    shortest = min(len(rows) for rows in shown)
    side = sample_set.resolution
    grid = np.array([rows[:shortest] for rows in shown], np.uint8).reshape(len(shown), shortest, side, side, 3)
    return generation, (len(fake), len(real)), torch.from_numpy(grid)


def _features(network: FeatureNetwork, image_set: artifacts.ImageSet, split: str, count: int) -> np.ndarray:
    """Return the features of the first images of a split, read shard by shard."""
    return np.concatenate([network.features(images) for images, _ in iterate_images(image_set, split, count)])


def _statistics(network: FeatureNetwork, images: np.ndarray) -> FeatureStatistics:
    features = network.features(images)
    return FeatureStatistics.empty(features.shape[1]).update(features)
