"""All measures of one autoencoder (an arm of a comparison), ours or loaded: the place where the single measures meet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dcae15.channels import default_ladder
from dcae15.config import EvaluationConfig
from dcae15.data.stream import ImageStream
from dcae15.errors import DataError
from dcae15.evaluation import needs
from dcae15.evaluation.channel_effects import channel_effects, sparsity_summary
from dcae15.evaluation.distances import FeatureStatistics, frechet_distance
from dcae15.evaluation.features import FEATURES, FeatureNetwork
from dcae15.evaluation.frequencies import BandShares
from dcae15.evaluation.latents import LatentSums, channel_means
from dcae15.evaluation.probe import fit_probe
from dcae15.evaluation.reconstruction import PerceptualDistance, decode_batch, encode_batch, lpips, psnr, ssim
from dcae15.models.autoencoder import Autoencoder

Rows = list[dict[str, float]]
_BATCH_SIZE = 64  # of the feature network, as everywhere


@dataclass(frozen=True, eq=False)
class Probes:
    """The images that every arm is measured on, and the network that looks at them."""

    images: ImageStream  # validation images
    train: ImageStream | None  # training images of the linear probe, if it is asked for
    num_classes: int  # classes of the image set; 1 means unlabelled
    network: FeatureNetwork  # measures Fréchet distances and class accuracy
    reference: FeatureStatistics  # the network's features of ``images``
    mean_image: np.ndarray  # mean of ``images``, float64 (H, W, 3)
    shown: np.ndarray  # uint8, the first few of ``images``


def look_at(
    images: ImageStream, train: ImageStream | None, num_classes: int, network: FeatureNetwork, shown: int
) -> Probes:
    """Return the probes of some images, after one pass over them; ``shown`` is how many to keep to be shown."""
    reference, total, first = FeatureStatistics.empty(FEATURES), np.zeros(()), _FirstRows(shown)
    for batch, _ in images.batches(_BATCH_SIZE):
        reference = reference.update(network.features(batch))
        total = total + batch.sum(axis=0, dtype=np.float64)
        first.take(batch)
    return Probes(images, train, num_classes, network, reference, total / len(images), first.all())


class _FirstRows:
    """Keeps the first rows of a stream."""

    def __init__(self, count: int) -> None:
        self.missing, self.parts = count, list[np.ndarray]()

    def take(self, rows: np.ndarray) -> None:
        if self.missing > 0:
            self.parts.append(rows[: self.missing].copy())
            self.missing -= len(self.parts[-1])

    def all(self) -> np.ndarray:
        return np.concatenate(self.parts)


@dataclass(frozen=True, eq=False)
class ArmMeasures:
    """What was measured of one autoencoder."""

    # rows per prefix: ``psnr`` (dB), ``ssim``, ``frechet_distance`` (never FID; of two images or more), ``class_accuracy`` where
    # there are classes, ``lpips`` where its weights are configured
    reconstruction: Rows
    # rows per prefix: ``explained_share``, ``low_frequency_share``, ``high_frequency_share``, ``effective_rank``, and
    # ``probe_accuracy`` where there are classes
    structure: Rows
    # rows per channel: ``mean``, ``std``, ``latent_low``, ``latent_high``, ``image_low``, ``image_high``
    channels: Rows
    # ``channels``, ``effective_rank`` and the numbers of `dcae15.evaluation.channel_effects.sparsity_summary`
    summary: dict[str, float]
    reconstructions: np.ndarray  # uint8 (P, K, H, W, 3), of the first K images
    channel_means: np.ndarray | None  # uint8 (P, K, h, w), the mean over the first channels; None where h = w = 1


def prefix_ladders(trained: Mapping[str, Sequence[int]], channels: Mapping[str, int]) -> dict[str, list[int]]:
    """Return the prefixes to measure of each arm, ascending; the last is all of its channels.

    Every arm is measured at an eighth, a quarter, a half and all of its channels, so that runs with different prefixes compare,
    and at the prefixes of the first arm that was trained with several, so that the curves of this run do.
    """
    ladder = next((list(prefixes) for prefixes in trained.values() if len(prefixes) > 1), [])
    return {arm: sorted({*(p for p in ladder if p < count), *default_ladder(count)}) for arm, count in channels.items()}


def measure_arm(
    autoencoder: Autoencoder,
    prefixes: Sequence[int],
    probes: Probes,
    settings: EvaluationConfig,
    *,
    perceptual: PerceptualDistance | None = None,
    device: torch.device | str = "cpu",
) -> ArmMeasures:
    """Measure one autoencoder, in one pass over the images: memory does not grow with their number.

    Raises:
        DataError: the decoder returns images of another size, or pixels that are not finite.
    """
    size = settings.batch_size

    def encoded(images: ImageStream) -> Iterator[tuple[np.ndarray, np.ndarray, Tensor]]:
        for batch, labels in images.batches(size):
            yield batch, labels, encode_batch(autoencoder, batch, device)

    probe = None
    if probes.train is not None and probes.num_classes > 1 and len(probes.train) > 1:
        train = ((latents, labels) for _, labels, latents in encoded(probes.train))
        probe = fit_probe(train, prefixes, num_classes=probes.num_classes)
    by_prefix = [_Prefix(prefix, probes, settings.grid_images, perceptual, device) for prefix in prefixes]
    sums, right, kept = LatentSums(), np.zeros(len(prefixes), np.int64), _FirstRows(settings.channel_images)
    for images, labels, latents in encoded(probes.images):
        for measured in by_prefix:
            measured.update(autoencoder, images, labels, latents)
        sums.update(latents)
        kept.take(latents.numpy())
        if probe is not None:
            right += probe.right(latents, labels)
    structure = [{"prefix": measured.prefix, **measured.shares.row()} for measured in by_prefix]
    for i, (row, rank) in enumerate(zip(structure, sums.ranks(prefixes), strict=True)):
        row["effective_rank"] = rank
        if probe is not None:
            row["probe_accuracy"] = float(right[i]) / len(probes.images)
    channels, some = sums.rows(), torch.from_numpy(kept.all())
    means = torch.tensor([row["mean"] for row in channels])
    effects = channel_effects(autoencoder, some, means, batch_size=size, device=device)
    height, width = some.shape[-2:]
    return ArmMeasures(
        reconstruction=[measured.reconstruction() for measured in by_prefix],
        structure=structure,
        channels=[{**row, **effect} for row, effect in zip(channels, effects, strict=True)],
        summary={
            "channels": float(len(channels)),
            "effective_rank": structure[-1]["effective_rank"],
            **sparsity_summary(effects),
        },
        reconstructions=np.stack([measured.first.all() for measured in by_prefix]),
        channel_means=channel_means(some[: settings.grid_images], prefixes) if height * width > 1 else None,
    )


class _Prefix:
    """What is measured of the reconstructions from one prefix, over images that come in parts."""

    def __init__(
        self, prefix: int, probes: Probes, shown: int, perceptual: PerceptualDistance | None, device: torch.device | str
    ) -> None:
        self.prefix, self.probes = prefix, probes
        self.perceptual, self.device = perceptual, device
        self.shares = BandShares(probes.mean_image, device)
        self.sums = {"psnr": 0.0, "ssim": 0.0, **({"lpips": 0.0} if perceptual is not None else {})}
        self.seen = FeatureStatistics.empty(FEATURES)
        self.right, self.first = 0, _FirstRows(shown)

    def update(self, autoencoder: Autoencoder, images: np.ndarray, labels: np.ndarray, latents: Tensor) -> None:
        decoded = decode_batch(autoencoder, latents[:, : self.prefix], self.device)
        if decoded.shape != images.shape:
            raise DataError(f"images of shape {images.shape[1:]} come back with shape {decoded.shape[1:]}")
        self.sums["psnr"] += float(psnr(images, decoded).sum())
        self.sums["ssim"] += float(ssim(images, decoded, self.device).sum())
        if self.perceptual is not None:
            self.sums["lpips"] += float(lpips(self.perceptual, images, decoded, self.device).sum())
        features, guesses = self.probes.network.features_and_labels(decoded)
        self.seen = self.seen.update(features)
        self.right += int((guesses == labels).sum())
        self.shares.update(images, decoded)
        self.first.take(decoded)

    def reconstruction(self) -> dict[str, float]:
        row = {"prefix": self.prefix, **{name: total / self.seen.count for name, total in self.sums.items()}}
        if self.seen.count >= needs.FRECHET:
            row["frechet_distance"] = frechet_distance(self.probes.reference, self.seen)
        if self.probes.network.num_classes == self.probes.num_classes > 1:
            row["class_accuracy"] = self.right / self.seen.count
        return row
