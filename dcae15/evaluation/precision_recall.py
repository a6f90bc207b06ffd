"""Improved precision and recall: are the generated images real, and are all real images covered?"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dcae15.errors import DataError

CHUNK = 1_024  # rows of the distance matrix held at once; memory is as many times max(N, M) numbers of 8 bytes


def precision_recall(real_ND: np.ndarray, generated_MD: np.ndarray, *, neighbours: int = 3) -> tuple[float, float]:
    """Return precision and recall, 0 to 1 each.

    A set's manifold is the union of the balls around its features that just reach their k-th nearest neighbour in the
    set. Precision is the share of generated features inside the real manifold, recall the share of real features inside
    the generated one. Source: Kynkäänniemi et al. 2019, equations 1 and 2.

    Raises:
        DataError: the features have different dimensions, are not finite, or one set has k images or fewer.
    """
    if real_ND.ndim != 2 or generated_MD.ndim != 2 or real_ND.shape[1] != generated_MD.shape[1]:
        raise DataError(
            f"features have shapes {real_ND.shape} and {generated_MD.shape}; "
            "both must come from the same feature network"
        )
    if neighbours < 1 or min(len(real_ND), len(generated_MD)) <= neighbours:
        raise DataError(
            f"{len(real_ND)} real and {len(generated_MD)} generated images with {neighbours} neighbours; "
            "each set needs more images than neighbours, and neighbours at least 1"
        )
    if not (np.isfinite(real_ND).all() and np.isfinite(generated_MD).all()):
        raise DataError("features are not finite; look at the images behind them")
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
