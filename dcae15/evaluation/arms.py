"""All measures of one autoencoder (an arm of a comparison), ours or loaded: the place where the single measures meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dcae15.channels import default_ladder
from dcae15.config import EvaluationConfig
from dcae15.errors import DataError
from dcae15.evaluation.ablation import channel_effects
from dcae15.evaluation.features import FeatureNetwork
from dcae15.evaluation.frechet import FeatureStatistics, frechet_distance
from dcae15.evaluation.latents import channel_means, channel_rows, effective_ranks
from dcae15.evaluation.probe import probe_accuracies
from dcae15.evaluation.reconstruction import (
    LatentCodec,
    PerceptualDistance,
    decoded_prefixes,
    encode_images,
    lpips,
    reconstruction_row,
)
from dcae15.evaluation.sparsity import sparsity_summary
from dcae15.evaluation.structure import structure_row

BATCH = 64

Rows = list[dict[str, float]]


@dataclass(frozen=True, eq=False)
class Probes:
    """The images that every arm is measured on, and the network that looks at them.

    Attributes:
        images: uint8 validation images (N, H, W, 3).
        labels: their classes (N,).
        train_images: uint8 training images of the linear probe; may be empty.
        train_labels: their classes.
        num_classes: classes of the image set; 1 means unlabelled.
        network: measures Fréchet distances and class accuracy.
        reference: the network's features of ``images``.
    """

    images: np.ndarray
    labels: np.ndarray
    train_images: np.ndarray
    train_labels: np.ndarray
    num_classes: int
    network: FeatureNetwork
    reference: FeatureStatistics


@dataclass(frozen=True, eq=False)
class ArmMeasures:
    """What was measured of one autoencoder.

    Attributes:
        reconstruction: rows per prefix: ``psnr`` (dB), ``ssim``, ``frechet_distance`` (never FID), ``class_accuracy`` where there
            are classes, ``lpips`` where its weights are configured.
        structure: rows per prefix: ``explained_share``, ``low_frequency_share``, ``high_frequency_share``, ``effective_rank``, and
            ``probe_accuracy`` where there are classes.
        channels: rows per channel: ``mean``, ``std``, ``latent_low``, ``latent_high``, ``image_low``, ``image_high``.
        summary: ``channels``, ``effective_rank`` and the numbers of `dcae15.evaluation.sparsity.sparsity_summary`.
        reconstructions: uint8 (P, K, H, W, 3), of the first K images.
        channel_means: uint8 (P, K, h, w), the mean over the first channels; None where h = w = 1.
    """

    reconstruction: Rows
    structure: Rows
    channels: Rows
    summary: dict[str, float]
    reconstructions: np.ndarray
    channel_means: np.ndarray | None


def prefix_ladders(trained: Mapping[str, Sequence[int]], channels: Mapping[str, int]) -> dict[str, list[int]]:
    """Return the prefixes to measure of each arm, ascending; the last is all of its channels.

    All arms are measured at the prefixes of the first arm that was trained with several, so that their curves compare;
    where none was (a baseline alone, foreign weights), at an eighth, a quarter, a half and all of its channels.

    Args:
        trained: prefixes that each arm was trained with; empty when unknown.
        channels: C of each arm.
    """
    ladder = next((list(prefixes) for prefixes in trained.values() if len(prefixes) > 1), None)
    return {
        arm: sorted({*(p for p in ladder if p < count), count}) if ladder else default_ladder(count)
        for arm, count in channels.items()
    }


def measure_arm(
    autoencoder: LatentCodec,
    prefixes: Sequence[int],
    probes: Probes,
    settings: EvaluationConfig,
    *,
    perceptual: PerceptualDistance | None = None,
    device: torch.device | str = "cpu",
) -> ArmMeasures:
    """Measure one autoencoder.

    Args:
        autoencoder: on ``device``, in evaluation mode.
        prefixes: numbers of front channels, ascending; the last is all of them.
        probes: the images.
        settings: how many images for what.
        perceptual: LPIPS, on ``device``; None leaves it out.
        device: where to compute.

    Raises:
        DataError: the decoder returns images of another size, or pixels that are not finite.
    """
    images, network = probes.images, probes.network
    classified = network.num_classes == probes.num_classes > 1
    latents = encode_images(autoencoder, images, batch_size=BATCH, device=device)
    reconstruction, structure, shown = [], [], []
    for prefix, decoded in decoded_prefixes(autoencoder, latents, prefixes, batch_size=BATCH, device=device):
        if decoded.shape != images.shape:
            raise DataError(f"images of shape {images.shape[1:]} come back with shape {decoded.shape[1:]}")
        row = reconstruction_row(prefix, images, decoded)
        if perceptual is not None:
            row["lpips"] = float(lpips(perceptual, images, decoded, batch_size=BATCH, device=device).mean())
        features, labels = network.features_and_labels(decoded)
        seen = FeatureStatistics.empty(features.shape[1]).update(features)
        row["frechet_distance"] = frechet_distance(probes.reference, seen)
        if classified:
            row["class_accuracy"] = float((labels == probes.labels).mean())
        reconstruction.append(row)
        shares = structure_row(prefix, images, decoded)
        structure.append(
            {
                "prefix": prefix,
                "explained_share": shares["explained_share"],
                "low_frequency_share": shares["share_low"],
                "high_frequency_share": shares["share_high"],
            }
        )
        shown.append(decoded[: settings.grid_images])
    for row, rank in zip(structure, effective_ranks(latents, prefixes), strict=True):
        row["effective_rank"] = rank
    if probes.num_classes > 1 and len(probes.train_images) > 1:
        train = encode_images(autoencoder, probes.train_images, batch_size=BATCH, device=device)
        accuracies = probe_accuracies(
            train, probes.train_labels, latents, probes.labels, prefixes, num_classes=probes.num_classes
        )
        for row, accuracy in zip(structure, accuracies, strict=True):
            row["probe_accuracy"] = accuracy
    channels = channel_rows(latents)
    means = torch.tensor([row["mean"] for row in channels])
    some = latents[: settings.channel_images]
    effects = channel_effects(autoencoder, some, means, batch_size=BATCH, device=device)
    height, width = latents.shape[-2:]
    return ArmMeasures(
        reconstruction=reconstruction,
        structure=structure,
        channels=[{**row, **effect} for row, effect in zip(channels, effects, strict=True)],
        summary={
            "channels": float(latents.shape[1]),
            "effective_rank": structure[-1]["effective_rank"],
            **sparsity_summary(effects),
        },
        reconstructions=np.stack(shown),
        channel_means=channel_means(latents[: settings.grid_images], prefixes) if height * width > 1 else None,
    )
