"""evaluate from artifact to artifact: every measurement of a run."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors

from dcae15 import artifacts, storage
from dcae15.config import Config, fingerprint
from dcae15.data.loader import load_images
from dcae15.errors import ConfigError, DataError
from dcae15.evaluation.features import FeatureNetwork, train_features
from dcae15.evaluation.frechet import FeatureStatistics, frechet_distance
from dcae15.evaluation.precision_recall import precision_recall
from dcae15.evaluation.protocol import Protocol
from dcae15.evaluation.reconstruction import encode_images, partial_reconstructions, reconstruction_row
from dcae15.evaluation.structure import channel_rows, structure_row
from dcae15.loading import load_autoencoder

PICTURES = "pictures.safetensors"
GENERATED = "generated"
ENCODE_BATCH = 64
MOST_FEATURE_IMAGES = 50_000
"""The feature network trains on at most the first so many images of the set, which are held in memory."""


def evaluate(
    config: Config,
    *,
    images: str,
    autoencoders: dict[str, str],
    denoiser: str,
    samples: str,
    uri: str,
    fingerprint: str,
    device: str = "cpu",
    say: Callable[[str], None] = print,
) -> None:
    """Measure autoencoders and generated images and write the evaluation to ``uri``.

    Args:
        config: what to measure.
        images: URI of the image set.
        autoencoders: URIs by arm: ``structured`` and, to compare with, ``baseline``.
        denoiser: URI of the denoiser; only its settings are noted in the protocol.
        samples: URI of the generated images.
        uri: where to write.
        fingerprint: what names the result.
        device: where to compute.
        say: shows progress to the user.
    """
    image_set = artifacts.ImageSet.open(images)
    settings = config.evaluation
    network = features_of(config, image_set, device, say)
    real, real_labels = load_images(image_set, "val", settings.reconstruction_images)
    if len(real) < 2:
        raise DataError(
            f"{images} has {len(real)} validation images; measuring needs at least 2: raise data.val_fraction"
        )
    prefixes: list[int] = []
    reconstruction: dict[str, list[dict[str, float]]] = {}
    structure: dict[str, list[dict[str, float]]] = {}
    energy: dict[str, list[float]] = {}
    pictures = {"inputs": torch.from_numpy(real[: settings.grid_images])}
    reference = _statistics(network, real)
    for arm, source in autoencoders.items():
        say(f"evaluate: reconstructions of the {arm} autoencoder")
        autoencoder = load_autoencoder(source).to(device)
        channels = autoencoder.spec.latent_channels
        prefixes = prefixes or list(autoencoder.prefix_choices) or [channels]
        reconstruction[arm], structure[arm], shown = [], [], []
        for prefix, decoded in partial_reconstructions(
            autoencoder, real, [p for p in prefixes if p <= channels], batch_size=ENCODE_BATCH, device=device
        ):
            row = reconstruction_row(prefix, real, decoded)
            row["frechet_distance"] = frechet_distance(reference, _statistics(network, decoded))
            if network.num_classes == len(image_set.class_names) > 1:
                row["class_accuracy"] = float((network.predict(decoded) == real_labels).mean())
            reconstruction[arm].append(row)
            shares = structure_row(prefix, real, decoded)
            structure[arm].append(
                {
                    "prefix": prefix,
                    "explained_share": shares["explained_share"],
                    "low_frequency_share": shares["share_low"],
                    "high_frequency_share": shares["share_high"],
                }
            )
            shown.append(torch.from_numpy(decoded[: settings.grid_images]))
        energy[arm] = [
            r["std"] for r in channel_rows(encode_images(autoencoder, real, batch_size=ENCODE_BATCH, device=device))
        ]
        pictures[f"reconstructions.{arm}"] = torch.stack(shown)
    say("evaluate: generated images")
    generation, counts, grid = _generation(config, image_set, samples, network, device)
    pictures["samples"] = grid
    storage.write_bytes(storage.join(uri, PICTURES), to_safetensors(pictures))
    protocol = Protocol(
        count=counts[0],
        reference_count=counts[1],
        reference_digest=f"val of {image_set.fingerprint}",
        extractor="classifier trained on this image set (64 features)",
        extractor_digest=network.digest,
        resize="none",
        solver=config.sampling.solver,
        steps=config.sampling.steps,
        guidance=config.sampling.guidance,
        guidance_start=config.sampling.guidance_start,
        guidance_end=config.sampling.guidance_end,
        prefix=config.sampling.prefix or artifacts.Denoiser.open(denoiser).latents.channels,
        seed=config.sampling.seed,
        ema_decay=config.diffusion.training.ema_decay,
    )
    artifacts.Evaluation(
        uri,
        fingerprint,
        reconstruction=reconstruction,
        structure=structure,
        channel_energy=energy,
        generation=generation,
        protocol={name: str(value) for name, value in protocol.to_dict().items()},
        prefixes=prefixes,
    ).commit()


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

    They are ``inputs`` (N, H, W, 3), ``reconstructions.<arm>`` (P, N, H, W, 3) and ``samples`` (classes, K, H, W, 3).
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
    fake, fake_labels = load_images(sample_set, GENERATED, count)
    real, _ = load_images(image_set, "val", count)
    train, _ = load_images(image_set, "train", count)
    real_features, fake_features = network.features(real), network.features(fake)
    reference = FeatureStatistics.empty(real_features.shape[1]).update(real_features)
    generated = FeatureStatistics.empty(real_features.shape[1]).update(fake_features)
    precision, recall = precision_recall(real_features, fake_features, neighbours=config.evaluation.neighbours)
    generation = {
        "frechet_distance": frechet_distance(reference, generated),
        "frechet_distance_of_training_images": frechet_distance(reference, _statistics(network, train)),
        "precision": precision,
        "recall": recall,
        "images": float(len(fake)),
    }
    if network.num_classes == len(image_set.class_names) > 1:
        generation["class_accuracy"] = float((network.predict(fake) == fake_labels).mean())
    per_class = config.evaluation.grid_images
    classes = [np.flatnonzero(fake_labels == label)[:per_class] for label in range(len(image_set.class_names))]
    shortest = min(len(rows) for rows in classes)
    return generation, (len(fake), len(real)), torch.from_numpy(np.stack([fake[rows[:shortest]] for rows in classes]))


def _statistics(network: FeatureNetwork, images: np.ndarray) -> FeatureStatistics:
    features = network.features(images)
    return FeatureStatistics.empty(features.shape[1]).update(features)
