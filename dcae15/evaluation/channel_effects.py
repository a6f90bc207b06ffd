"""What each latent channel does to the image, and how object structure is spread over the channels.

Two measures were possible: the marginal gain R(c) - R(c - 1) of prefixes, and the ablation of one channel among all. The
ablation was chosen, because it asks every channel the same question ("what is lost without it, given all others?"),
whatever the order of the channels and whatever prefixes the decoder was trained on. The gain of a prefix charges rear
channels of a baseline with what a decoder does to inputs that it never saw. Known limit: what two channels say alike, no
single ablation shows.

The paper (arXiv 2508.00413) calls its problem object information sparsity: with many channels most carry high-frequency detail,
and the few that carry objects are scattered among them; its remedy gathers the objects in the front channels. It gives
pictures and no number. The numbers here are this project's own: the low-frequency change of the image that each channel
makes (`channel_effects`), and of it

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
import torch
from torch import Tensor

from dcae15.errors import DataError
from dcae15.evaluation.frequencies import LOW_PASS_CYCLES_PER_PIXEL, band_energies
from dcae15.models.autoencoder import Autoencoder

FRONT = 1 / 4
"""The part of the channels that counts as the front."""


@torch.no_grad()
def channel_effects(
    autoencoder: Autoencoder,
    latents_NChw: Tensor,
    means_C: Tensor,
    *,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
) -> list[dict[str, float]]:
    """Return ``{image_low, image_high}`` of each channel, mean squared grey levels (0 to 255) per pixel and colour.

    Let R_k(x) be the reconstruction with channel k replaced by its mean over the image set, and R(x) that of all channels.
    ``image_low`` is the mean of ``|P (R(x) - R_k(x))|^2`` over images, pixels and colours with P the low band below
    `LOW_PASS_CYCLES_PER_PIXEL`, and ``image_high`` the same of the rest of the spectrum. The mean, not zero,
    stands in for a missing channel, so that a channel's constant offset is not counted as information. Reconstructions
    are clamped to [-1, 1], which is what one sees.

    Scaling a latent channel in the encoder and undoing it in the decoder changes nothing.

    Args:
        autoencoder: on ``device``, in evaluation mode; decodes C + 1 times as many images as are given.
        latents_NChw: raw latents of the images to look at; some dozens suffice for a mean.
        means_C: mean of each channel over the image set.
        batch_size: latents decoded at once.
        device: where the autoencoder is.
    """
    channels = latents_NChw.shape[1]
    energies_C2 = torch.zeros(channels, 2, dtype=torch.float64)
    values = 0
    for latents in latents_NChw.to(device).split(batch_size):
        whole = autoencoder.decode(latents).float().clamp(-1, 1)
        values += whole.numel()
        for channel in range(channels):
            without = latents.clone()
            without[:, channel] = means_C[channel].to(latents)
            change = whole - autoencoder.decode(without).float().clamp(-1, 1)
            bands = band_energies(change.flatten(0, 1) * 127.5, LOW_PASS_CYCLES_PER_PIXEL)
            energies_C2[channel] += torch.stack([energy.sum() for energy in bands]).cpu()
    return [{"image_low": low, "image_high": high} for low, high in (energies_C2 / values).tolist()]


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


def front_share(values_C: Sequence[float] | np.ndarray) -> float:
    """Return the part of the sum that the first channels hold, 0 to 1; evenly spread values give `FRONT`.

    The channel at the edge counts in part where a quarter of the channels is no whole number. 0 where all values are 0.

    Raises:
        DataError: a value is negative or not finite.
    """
    values = _checked(values_C)
    weights = np.clip(FRONT * len(values) - np.arange(len(values)), 0.0, 1.0)
    total = values.sum()
    return float((values * weights).sum() / total) if total > 0 else 0.0


def sparsity_summary(effects: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return how object structure and detail are spread over the channels.

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
