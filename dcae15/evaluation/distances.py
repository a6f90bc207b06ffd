"""How generated images compare with real ones: the Fréchet distance between Gaussian fits of features, precision and recall."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dcae15.errors import DataError
from dcae15.evaluation import needs

CHUNK = 1_024  # rows of the distance matrix held at once; memory is as many times max(N, M) numbers of 8 bytes


@dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """Count, mean and scatter of feature vectors, in float64."""

    count: int  # number of feature vectors
    mean: np.ndarray  # their mean, D
    scatter: np.ndarray  # sum of the outer products of their deviations from the mean, D D

    @classmethod
    def empty(cls, dimensions: int) -> FeatureStatistics:
        """Return the statistics of no vectors, to begin with."""
        return cls(0, np.zeros(dimensions), np.zeros((dimensions, dimensions)))

    def update(self, features_ND: np.ndarray) -> FeatureStatistics:
        """Return the statistics with more vectors included (Chan et al. 1979: no cancellation).

        Raises:
            DataError: they are not finite.
        """
        features = np.asarray(features_ND, dtype=np.float64)
        if not np.isfinite(features).all():
            bad = int((~np.isfinite(features)).any(axis=1).sum())
            raise DataError(f"{bad} of {len(features)} feature vectors are not finite; look at the images behind them")
        if len(features) == 0:
            return self
        mean = features.mean(axis=0)
        deviations, gap, count = features - mean, mean - self.mean, self.count + len(features)
        between = np.outer(gap, gap) * (self.count * len(features) / count)
        scatter = self.scatter + deviations.T @ deviations + between
        return FeatureStatistics(count, self.mean + gap * (len(features) / count), scatter)

    def covariance(self) -> np.ndarray:
        """Return the unbiased covariance. Raises DataError: there are fewer than 2 vectors."""
        if self.count < needs.FRECHET:
            raise DataError(
                f"statistics hold {self.count} feature vectors; a covariance needs at least {needs.FRECHET} images"
            )
        return self.scatter / (self.count - 1)


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """Return the squared Fréchet (2-Wasserstein) distance between the Gaussian fits of two sets of features.

    ``|mean_a - mean_b|^2 + tr(A) + tr(B) - 2 tr((A^1/2 B A^1/2)^1/2)``; the last trace is the sum of the singular
    values of ``A^1/2 B^1/2``, with both roots from symmetric eigendecompositions. Nothing complex can appear, and
    rank-deficient covariances are fine. The number may be called FID only if the features are the Inception network's,
    and it compares only between sets of the same size.

    Raises:
        DataError: a set has fewer than 2 images.
    """
    covariance_a, covariance_b = a.covariance(), b.covariance()
    overlap = np.linalg.svd(_root(covariance_a) @ _root(covariance_b), compute_uv=False).sum()
    gap = a.mean - b.mean
    return max(0.0, float(gap @ gap + np.trace(covariance_a) + np.trace(covariance_b) - 2.0 * overlap))


def _root(covariance_DD: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance_DD)
    return (vectors * np.sqrt(values.clip(min=0.0))) @ vectors.T


def precision_recall(real_ND: np.ndarray, generated_MD: np.ndarray, *, neighbours: int = 3) -> tuple[float, float]:
    """Return improved precision and recall, 0 to 1 each: are the generated images real, and are all real ones covered?

    A set's manifold is the union of the balls around its features that just reach their k-th nearest neighbour in the
    set. Precision is the share of generated features inside the real manifold, recall the share of real features inside
    the generated one. Source: Kynkäänniemi et al. 2019, equations 1 and 2.

    Raises:
        DataError: one set has k images or fewer.
    """
    if min(len(real_ND), len(generated_MD)) < needs.manifold(neighbours):
        raise DataError(
            f"{len(real_ND)} real and {len(generated_MD)} generated images with {neighbours} neighbours; "
            "each set needs more images than neighbours"
        )
    real, generated = (torch.from_numpy(np.array(x, np.float64, order="C")) for x in (real_ND, generated_MD))
    precision = _share_inside(generated, real, _radii(real, neighbours))
    recall = _share_inside(real, generated, _radii(generated, neighbours))
    return precision, recall


def _distances(a_ND: Tensor, b_MD: Tensor) -> Tensor:
    # The matrix-product shortcut loses digits exactly where it matters: between near neighbours.
    return torch.cdist(a_ND, b_MD, compute_mode="donot_use_mm_for_euclid_dist")


def _radii(points_ND: Tensor, neighbours: int) -> Tensor:
    radii = []
    for start in range(0, len(points_ND), CHUNK):
        distances = _distances(points_ND[start : start + CHUNK], points_ND)
        rows = torch.arange(len(distances))
        distances[rows, start + rows] = torch.inf  # a point is not its own neighbour; its duplicate is
        radii.append(distances.kthvalue(neighbours, dim=1).values)
    return torch.cat(radii)


def _share_inside(points_MD: Tensor, centres_ND: Tensor, radii_N: Tensor) -> float:
    inside = 0
    for start in range(0, len(points_MD), CHUNK):
        distances = _distances(points_MD[start : start + CHUNK], centres_ND)
        inside += int((distances <= radii_N).any(dim=1).sum())
    return inside / len(points_MD)
