"""Generated images: how they are made, and how they compare with real ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch

from dcae15 import artifacts
from dcae15.config import SamplingConfig
from dcae15.data.pixels import to_uint8
from dcae15.errors import ConfigError
from dcae15.evaluation import needs
from dcae15.evaluation.distances import FeatureStatistics, frechet_distance, precision_recall
from dcae15.evaluation.features import FeatureNetwork
from dcae15.library import LoadedDenoiser
from dcae15.models.autoencoder import Autoencoder


@torch.inference_mode()
def generate(
    denoiser: LoadedDenoiser, autoencoder: Autoencoder, settings: SamplingConfig, start: int, stop: int
) -> Iterator[tuple[np.ndarray, list[int]]]:
    """Yield images ``start`` to ``stop`` in batches: uint8 (N, H, W, 3), and labels.

    Image i is of class i modulo the number of classes, and a pure function of (``settings.seed``, i) and the weights.
    """
    classes = len(denoiser.artifact.class_names)
    for first in range(start, stop, settings.batch_size):
        labels = [i % classes for i in range(first, min(stop, first + settings.batch_size))]
        latents = denoiser.sample(labels, settings, first)
        yield to_uint8(autoencoder.decode(latents)), labels


def require_decoder(denoiser: artifacts.Denoiser, autoencoder: Autoencoder, source: str) -> None:
    """Raise ConfigError when a denoiser generates latents of another autoencoder than the one that was loaded from ``source``."""
    if autoencoder.fingerprint != denoiser.latents.autoencoder:
        raise ConfigError(
            f"the denoiser at {denoiser.uri} generates latents of autoencoder {denoiser.latents.autoencoder}, but {source} is "
            f"{autoencoder.fingerprint}; pass the autoencoder that its latents were made with"
        )


def require_size(resolution: int, image_set: artifacts.ImageSet) -> None:
    """Raise ConfigError when generated images of ``resolution`` pixels cannot be compared with an image set's."""
    if resolution != image_set.resolution:
        raise ConfigError(
            f"generated images of {resolution} pixels cannot be compared with images of {image_set.resolution} pixels; pass an "
            f"image set of {resolution} pixels"
        )


def compare_with_real(
    network: FeatureNetwork,
    generated: Iterable[tuple[np.ndarray, Sequence[int] | np.ndarray]],
    real_ND: np.ndarray,
    neighbours: int,
) -> dict[str, float]:
    """Compare generated images with real ones, at least one of each.

    ``generated`` yields images (n, H, W, 3) and the classes asked for; ``real_ND`` holds the features of as many real images.

    Returns:
        ``frechet_distance``, ``precision``, ``recall``, and ``class_accuracy`` where there are classes; without those that need
        more images, see `dcae15.evaluation.needs`.
    """
    parts, right = [], 0
    for images, labels in generated:
        features, guesses = network.features_and_labels(images)
        parts.append(features)
        right += int((guesses == np.asarray(labels)).sum())
    fake_ND = np.concatenate(parts)
    found: dict[str, float] = {}
    if min(len(real_ND), len(fake_ND)) >= needs.FRECHET:
        reference, seen = (FeatureStatistics.empty(x.shape[1]).update(x) for x in (real_ND, fake_ND))
        found["frechet_distance"] = frechet_distance(reference, seen)
    if min(len(real_ND), len(fake_ND)) >= needs.manifold(neighbours):
        found["precision"], found["recall"] = precision_recall(real_ND, fake_ND, neighbours=neighbours)
    return found | ({"class_accuracy": right / len(fake_ND)} if network.num_classes > 1 else {})
