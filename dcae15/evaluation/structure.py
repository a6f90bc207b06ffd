"""Is the latent space structured? What the first channels carry of an image set.

The definitions are this project's own; the paper shows the effect in pictures of partial-channel decoding.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dcae15.errors import DataError
from dcae15.evaluation.spectrum import band_energies

LOW_PASS_CYCLES_PER_PIXEL = 1 / 8


def structure_row(
    prefix: int,
    images_NHWC: np.ndarray,
    reconstructions_NHWC: np.ndarray,
    *,
    cutoff: float = LOW_PASS_CYCLES_PER_PIXEL,
    batch_size: int = 32,
) -> dict[str, float]:
    """Return ``{prefix, explained_share, share_low, share_high}`` of reconstructions from a prefix.

    Let R(x) be the reconstruction of image x and m the mean image of the set (the best guess without looking). Then
    ``share = 1 - sum |P x - P R(x)|^2 / sum |P x - P m|^2`` with sums over images, where P is

    - for ``explained_share`` the identity: the explained variance of the pixels;
    - for ``share_low`` an ideal low-pass below ``cutoff``, in the 2-D cosine basis (mirrored borders, so that a border
      is no edge); cosine k of n pixels has the frequency k / 2n;
    - for ``share_high`` the rest of the spectrum.

    A share is 1 for a perfect reconstruction, 0 for one no better than m, negative for a worse one; 0 by definition
    where the images have nothing in the band.

    Args:
        prefix: number of front channels kept; goes into the row.
        images_NHWC: uint8 images.
        reconstructions_NHWC: uint8 reconstructions, of the same shape.
        cutoff: upper end of the low band, cycles per pixel, 0 to 0.5.
        batch_size: images transformed at once.

    Raises:
        DataError: the shapes differ, or the images are all alike.
    """
    shares = BandShares(images_NHWC.mean(axis=0, dtype=np.float64), cutoff=cutoff, batch_size=batch_size)
    shares.update(images_NHWC, reconstructions_NHWC)
    return shares.row(prefix)


class BandShares:
    """The sums behind `structure_row`, over images that come in parts.

    Args:
        mean_image_HWC: m, the mean image of the whole set.
        cutoff: upper end of the low band, cycles per pixel.
        batch_size: images transformed at once.
        device: where to transform.
    """

    def __init__(
        self,
        mean_image_HWC: np.ndarray,
        *,
        cutoff: float = LOW_PASS_CYCLES_PER_PIXEL,
        batch_size: int = 32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.mean = torch.from_numpy(mean_image_HWC).to(device)
        self.cutoff, self.batch_size, self.device = cutoff, batch_size, device
        self.count = 0
        self.error, self.energy = torch.zeros(2, 2, dtype=torch.float64)

    def update(self, images_NHWC: np.ndarray, reconstructions_NHWC: np.ndarray) -> None:
        """Take in images and their reconstructions, uint8 of one shape; raise DataError when the shapes differ."""
        if images_NHWC.shape != reconstructions_NHWC.shape or images_NHWC.ndim != 4:
            raise DataError(
                f"images of shape {images_NHWC.shape} and reconstructions of shape {reconstructions_NHWC.shape}; "
                "pass two sets of one shape (N, H, W, C)"
            )
        self.count += len(images_NHWC)
        for start in range(0, len(images_NHWC), self.batch_size):
            images, reconstructions = (
                torch.from_numpy(np.ascontiguousarray(a[start : start + self.batch_size])).to(self.device).double()
                for a in (images_NHWC, reconstructions_NHWC)
            )
            self.error += self._bands(images - reconstructions)
            self.energy += self._bands(images - self.mean)

    def row(self, prefix: int) -> dict[str, float]:
        """Return the shares; raise DataError when all images are alike."""
        total = self.energy.sum().item()
        if total <= 0:
            raise DataError(f"all {self.count} images are alike; shares need images that differ")
        pairs = zip(self.error.tolist(), self.energy.tolist(), strict=True)
        low, high = (1 - e / t if t > 1e-9 * total else 0.0 for e, t in pairs)
        return {
            "prefix": prefix,
            "explained_share": 1 - self.error.sum().item() / total,
            "share_low": low,
            "share_high": high,
        }

    def _bands(self, differences_NHWC: Tensor) -> Tensor:
        """Return the energies of the low and the high band, summed over images and colours."""
        maps = differences_NHWC.permute(0, 3, 1, 2).flatten(0, 1)
        return torch.stack([energy.sum() for energy in band_energies(maps, self.cutoff)]).cpu()
