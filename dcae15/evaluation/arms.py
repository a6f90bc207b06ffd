"""All measures of one autoencoder (an arm of a comparison), ours or loaded: the place where the single measures meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

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
    decode_latents,
    encode_images,
    lpips,
    psnr,
    ssim,
)
from dcae15.evaluation.sparsity import sparsity_summary
from dcae15.evaluation.structure import BandShares

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
    size = settings.batch_size
    latents = encode_images(autoencoder, probes.images, batch_size=size, device=device)
    mean_image = probes.images.mean(axis=0, dtype=np.float64)
    reconstruction, structure, shown = [], [], []
    for prefix in prefixes:
        part = _measure_prefix(autoencoder, latents[:, :prefix], probes, settings, mean_image, perceptual, device)
        reconstruction.append({"prefix": prefix, **part[0]})
        structure.append({"prefix": prefix, **part[1]})
        shown.append(part[2])
    for row, rank in zip(structure, effective_ranks(latents, prefixes), strict=True):
        row["effective_rank"] = rank
    if probes.num_classes > 1 and len(probes.train_images) > 1:
        train = encode_images(autoencoder, probes.train_images, batch_size=size, device=device)
        accuracies = probe_accuracies(
            train, probes.train_labels, latents, probes.labels, prefixes, num_classes=probes.num_classes
        )
        for row, accuracy in zip(structure, accuracies, strict=True):
            row["probe_accuracy"] = accuracy
    channels = channel_rows(latents)
    means = torch.tensor([row["mean"] for row in channels])
    some = latents[: settings.channel_images]
    effects = channel_effects(autoencoder, some, means, batch_size=size, device=device)
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


def _measure_prefix(
    autoencoder: LatentCodec,
    latents_Nchw: Tensor,
    probes: Probes,
    settings: EvaluationConfig,
    mean_image_HWC: np.ndarray,
    perceptual: PerceptualDistance | None,
    device: torch.device | str,
) -> tuple[dict[str, float], dict[str, float], np.ndarray]:
    """Return rows of reconstruction and of structure, and the first reconstructions.

    Images are decoded and measured some at a time: memory does not grow with their number.
    """
    network, size, count = probes.network, settings.batch_size, len(probes.images)
    shares = BandShares(mean_image_HWC, device=device)
    sums = {"psnr": 0.0, "ssim": 0.0, **({"lpips": 0.0} if perceptual is not None else {})}
    right, seen, shown = 0, None, []
    for start in range(0, count, size):
        images = probes.images[start : start + size]
        decoded = decode_latents(autoencoder, latents_Nchw[start : start + size], batch_size=size, device=device)
        if decoded.shape != images.shape:
            raise DataError(f"images of shape {images.shape[1:]} come back with shape {decoded.shape[1:]}")
        sums["psnr"] += float(psnr(images, decoded).sum())
        sums["ssim"] += float(ssim(images, decoded, batch_size=size, device=device).sum())
        if perceptual is not None:
            sums["lpips"] += float(lpips(perceptual, images, decoded, batch_size=size, device=device).sum())
        features, labels = network.features_and_labels(decoded)
        seen = (seen or FeatureStatistics.empty(features.shape[1])).update(features)
        right += int((labels == probes.labels[start : start + size]).sum())
        shares.update(images, decoded)
        if start < settings.grid_images:
            shown.append(decoded[: settings.grid_images - start].copy())
    assert seen is not None
    row = {name: total / count for name, total in sums.items()}
    row["frechet_distance"] = frechet_distance(probes.reference, seen)
    if network.num_classes == probes.num_classes > 1:
        row["class_accuracy"] = right / count
    found = shares.row(latents_Nchw.shape[1])
    structure = {
        "explained_share": found["explained_share"],
        "low_frequency_share": found["share_low"],
        "high_frequency_share": found["share_high"],
    }
    return row, structure, np.concatenate(shown)
