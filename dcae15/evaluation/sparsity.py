"""How object structure is spread over the channels: one index from what each channel does to the image.

The paper (arXiv 2508.00413) calls its problem object information sparsity: with many channels most carry high-frequency detail,
and the few that carry objects are scattered among them; its remedy gathers the objects in the front channels. It gives
pictures and no number. The numbers here are this project's own: the low-frequency change of the image that each channel
makes (`dcae15.evaluation.ablation`), and of it

- how sparse it is: Hoyer's measure (Hoyer 2004, "Non-negative matrix factorization with sparseness constraints") of the root
  mean squares; not of the energies, because squares make even a random rotation of the channels look sparse (about 1/2
  instead of 1/4). To be compared between latents of equally many channels;
- whether the channels that have it come first: the part of the energy that the first quarter makes.

Both are unchanged when all channels, or any one, are scaled and the decoder undoes it. The same of the high frequencies
stands beside them: a front that holds everything is a small latent, a front that holds the objects alone is a structured one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from dcae15.errors import DataError

FRONT = 1 / 4
"""The part of the channels that counts as the front."""


def hoyer(values_C: Sequence[float] | np.ndarray) -> float:
    """Return Hoyer's sparsity: 0 where all values are equal, 1 where all but one are 0; 0 by definition for one value or none.

    ``(sqrt(C) - |x|_1 / |x|_2) / (sqrt(C) - 1)``, equation 1 of Hoyer 2004. Scaling all values changes nothing.

    Raises:
        DataError: a value is negative or not finite.
    """
    values = _checked(values_C)
    norm = np.sqrt(np.square(values).sum())
    if len(values) < 2 or norm == 0:
        return 0.0
    root = math.sqrt(len(values))
    return float(np.clip((root - values.sum() / norm) / (root - 1), 0.0, 1.0))


def front_share(values_C: Sequence[float] | np.ndarray, front: float = FRONT) -> float:
    """Return the part of the sum that the first channels hold, 0 to 1; evenly spread values give ``front``.

    Where ``front * C`` is no whole number, the channel at the edge counts in part. 0 by definition where all values are 0.

    Raises:
        DataError: a value is negative or not finite.
    """
    values = _checked(values_C)
    weights = np.clip(front * len(values) - np.arange(len(values)), 0.0, 1.0)
    total = values.sum()
    return float((values * weights).sum() / total) if total > 0 else 0.0


def sparsity_summary(effects: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return how object structure and detail are spread over the channels.

    Args:
        effects: ``image_low`` and ``image_high`` of each channel, in order (`dcae15.evaluation.ablation.channel_effects`).

    Returns:
        ``object_sparsity`` and ``object_front_share`` of the low frequencies, ``detail_sparsity`` and ``detail_front_share`` of
        the high ones, and ``object_share``, the mean over channels of low / (low + high): where it is small, most channels
        carry detail (channels without any effect are left out of it).
    """
    low, high = (np.array([effect[name] for effect in effects]) for name in ("image_low", "image_high"))
    both = low + high
    return {
        "object_sparsity": hoyer(np.sqrt(low)),
        "object_front_share": front_share(low),
        "detail_sparsity": hoyer(np.sqrt(high)),
        "detail_front_share": front_share(high),
        "object_share": float((low[both > 0] / both[both > 0]).mean()) if (both > 0).any() else 0.0,
    }


def _checked(values_C: Sequence[float] | np.ndarray) -> np.ndarray:
    values = np.asarray(values_C, dtype=np.float64)
    if not np.isfinite(values).all() or (values < 0).any():
        raise DataError(f"shares of channels need finite values of at least 0, not {values.tolist()}")
    return values
