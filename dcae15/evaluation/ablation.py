"""What each latent channel does to the image: the change that its absence makes, in low and high frequencies.

Two measures were possible: the marginal gain R(c) - R(c - 1) of prefixes, and the ablation of one channel among all. The
ablation was chosen, because it asks every channel the same question ("what is lost without it, given all others?"),
whatever the order of the channels and whatever prefixes the decoder was trained on. The gain of a prefix charges rear
channels of a baseline with what a decoder does to inputs that it never saw. Known limit: what two channels say alike, no
single ablation shows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dcae15.evaluation.reconstruction import LatentCodec
from dcae15.evaluation.spectrum import band_energies
from dcae15.evaluation.structure import LOW_PASS_CYCLES_PER_PIXEL


@torch.no_grad()
def channel_effects(
    autoencoder: LatentCodec,
    latents_NChw: Tensor,
    means_C: Tensor,
    *,
    cutoff: float = LOW_PASS_CYCLES_PER_PIXEL,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
) -> list[dict[str, float]]:
    """Return ``{image_low, image_high}`` of each channel, mean squared grey levels (0 to 255) per pixel and colour.

    Let R_k(x) be the reconstruction with channel k replaced by its mean over the image set, and R(x) that of all channels.
    ``image_low`` is the mean of ``|P (R(x) - R_k(x))|^2`` over images, pixels and colours with P the low-pass of
    `dcae15.evaluation.structure.structure_row`, and ``image_high`` the same of the rest of the spectrum. The mean, not zero,
    stands in for a missing channel, so that a channel's constant offset is not counted as information. Reconstructions
    are clamped to [-1, 1], which is what one sees.

    Scaling a latent channel in the encoder and undoing it in the decoder changes nothing.

    Args:
        autoencoder: on ``device``, in evaluation mode; decodes C + 1 times as many images as are given.
        latents_NChw: raw latents of the images to look at; some dozens suffice for a mean.
        means_C: mean of each channel over the image set.
        cutoff: upper end of the low band, cycles per pixel.
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
            bands = band_energies(change.flatten(0, 1) * 127.5, cutoff)
            energies_C2[channel] += torch.stack([energy.sum() for energy in bands]).cpu()
    return [{"image_low": low, "image_high": high} for low, high in (energies_C2 / values).tolist()]
