"""A linear probe: is the class there for the taking in the first c channels?

The probe is a ridge regression on one-hot classes (a least-squares classifier), not a logistic one: it has a closed form, so
that there is no learning rate, no stopping and no seed to argue about, and the first c channels of one Gram matrix are a block
of it. Latents are averaged over at most 4 x 4 cells and flattened, not averaged over the whole map: classes are shapes and
layouts, which the mean over all places (a mean colour, for a nearly linear autoencoder) does not have. Idea: Alain &
Bengio 2016 ("Understanding intermediate layers using linear classifier probes").

Known limit: latents of a nearly linear autoencoder change sign with the contrast, so classes that keep their shape while
colours change freely (the embedded images) stay near chance in every arm; that does not say that they are not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

CELLS = 4
"""Latent maps are averaged to at most this many cells a side."""

_STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # ridge per image, of features with unit variance


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """A fitted probe: of the first c channels, for each c."""

    mean: Tensor  # of the training images' features, P
    scale: Tensor  # what makes their variance 1, P
    weights: tuple[Tensor, ...]  # for each prefix, of its features and the classes
    bias: Tensor  # of the classes, K

    def right(self, latents_NChw: Tensor, labels_N: np.ndarray) -> list[int]:
        """Return, for each prefix, how many images it puts into their class."""
        features_NP = (pooled(latents_NChw) - self.mean) * self.scale
        truth = torch.from_numpy(labels_N.astype(np.int64))
        scores = (features_NP[:, : len(weights)] @ weights + self.bias for weights in self.weights)
        return [int((score.argmax(dim=1) == truth).sum()) for score in scores]


def fit_probe(train: Iterable[tuple[Tensor, np.ndarray]], prefixes: Sequence[int], *, num_classes: int) -> LinearProbe:
    """Fit a probe of the first c channels, for each c.

    Features are standardised with the training images' mean and standard deviation, so that scaling a channel changes nothing; the
    ridge is chosen per prefix by generalised cross-validation on the training images (Golub, Heath & Wahba 1979), so that few and
    many channels are treated alike. ``train`` yields latents ``N C h w`` of training images and their classes, 0 to ``num_classes``
    - 1.
    """
    parts, all_labels, channels = [], [], 1
    for latents, labels in train:
        parts.append(pooled(latents))
        all_labels.append(labels)
        channels = latents.shape[1]
    train_labels_N = np.concatenate(all_labels)
    train_NP = torch.cat(parts)
    per_channel = train_NP.shape[1] // channels
    mean = train_NP.mean(dim=0)
    std = train_NP.std(dim=0, correction=0)
    scale = torch.where(std > 1e-12 * (mean.abs() + std), 1 / std, 0.0)
    train_NP = (train_NP - mean) * scale
    targets_NK = F.one_hot(torch.from_numpy(train_labels_N.astype(np.int64)), num_classes).double()
    bias_K = targets_NK.mean(dim=0)
    targets_NK = targets_NK - bias_K
    gram_PP, products_PK = train_NP.T @ train_NP, train_NP.T @ targets_NK
    energy = targets_NK.square().sum().item()
    kept = [prefix * per_channel for prefix in prefixes]
    weights = tuple(_ridge(gram_PP[:k, :k], products_PK[:k], energy, len(train_NP)) for k in kept)
    return LinearProbe(mean, scale, weights, bias_K)


def pooled(latents_NChw: Tensor) -> Tensor:
    """Return the features ``N C*cells``, channel by channel."""
    cells = (min(CELLS, latents_NChw.shape[-2]), min(CELLS, latents_NChw.shape[-1]))
    return F.adaptive_avg_pool2d(latents_NChw.double(), cells).flatten(1)


def _ridge(gram_PP: Tensor, products_PK: Tensor, energy: float, count: int) -> Tensor:
    """Solve a ridge regression of centred data; its strength has the least generalised cross-validation error."""
    values, vectors = torch.linalg.eigh(gram_PP)
    values = values.clamp(min=0.0)
    turned_PK = vectors.T @ products_PK
    power = turned_PK.square().sum(dim=1)

    def error(strength: float) -> float:
        shrunk = values + strength * count
        residual = energy - 2 * (power / shrunk).sum() + (values * power / shrunk**2).sum()
        freedom = count - 1 - (values / shrunk).sum()  # the bias takes one
        return (residual.clamp(min=0.0) / freedom.clamp(min=1e-9) ** 2).item()

    best = min(_STRENGTHS, key=error)
    return vectors @ (turned_PK / (values + best * count)[:, None])
