"""Reconstruction from all channels or the first few, and its quality: PSNR and SSIM per image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dcae15.data.pixels import to_pixels, to_uint8
from dcae15.errors import DataError
from dcae15.models.autoencoder import Autoencoder

MAX_PSNR_DB = 100.0
"""PSNR given to images that agree (almost) exactly, so that a mean over images stays finite."""

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5


PerceptualDistance = Callable[[Tensor, Tensor], Tensor]
"""Pixels ``B C H W`` in [-1, 1], twice, to a distance ``B``; `dcae15.losses.perceptual.load_lpips` returns one."""


def psnr(a_NHWC: np.ndarray, b_NHWC: np.ndarray) -> np.ndarray:
    """Return the peak signal-to-noise ratio of each image in dB, float64, at most ``MAX_PSNR_DB``.

    Both sets are uint8 of one shape; the peak is 255; the squared error is averaged over the values of an image.
    """
    mse = np.array([np.square(a.astype(np.float64) - b).mean() for a, b in zip(a_NHWC, b_NHWC, strict=True)])
    with np.errstate(divide="ignore"):
        return np.minimum(10.0 * np.log10(255.0**2 / mse), MAX_PSNR_DB)


def ssim(a_NHWC: np.ndarray, b_NHWC: np.ndarray, device: torch.device | str = "cpu") -> np.ndarray:
    """Return the structural similarity of each image, float64, at most 1.

    Gaussian window of 11 pixels and sigma 1.5, K1 .01, K2 .03, range 255, population covariance, mean over channels and
    all windows inside the image. Source: Wang et al. 2004; the same numbers as scikit-image with
    ``gaussian_weights=True, sigma=1.5, use_sample_covariance=False``.

    Raises:
        DataError: the images are smaller than the window.
    """
    if min(a_NHWC.shape[1:3]) < SSIM_WINDOW:
        raise DataError(f"images of {a_NHWC.shape[1:3]} pixels; SSIM needs at least {SSIM_WINDOW} pixels on each side")
    offsets = torch.arange(SSIM_WINDOW, dtype=torch.float64, device=device) - SSIM_WINDOW // 2
    window = torch.exp(-0.5 * (offsets / SSIM_SIGMA) ** 2)
    window /= window.sum()

    def blur(x_BCHW: Tensor) -> Tensor:
        planes = x_BCHW.flatten(0, 1)[:, None]
        planes = F.conv2d(F.conv2d(planes, window[None, None, :, None]), window[None, None, None, :])
        return planes.reshape(*x_BCHW.shape[:2], *planes.shape[-2:])

    a, b = (torch.from_numpy(np.ascontiguousarray(x)).to(device).double().permute(0, 3, 1, 2) for x in (a_NHWC, b_NHWC))
    mean_a, mean_b = blur(a), blur(b)
    variance_a, variance_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    contrast_structure = (2 * covariance + c2) / (variance_a + variance_b + c2)
    return (luminance * contrast_structure).mean(dim=(1, 2, 3)).cpu().numpy()


@torch.no_grad()
def encode_batch(autoencoder: Autoencoder, images_NHWC: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """Return the latents ``N C h w`` of a batch of uint8 images, on the CPU; the autoencoder is in evaluation mode."""
    return autoencoder.encode(to_pixels(images_NHWC, device)).cpu()


@torch.no_grad()
def decode_batch(autoencoder: Autoencoder, latents_Nchw: Tensor, device: torch.device | str = "cpu") -> np.ndarray:
    """Return the uint8 images ``N H W C`` of a batch of raw latents, of all channels or a prefix.

    Raises:
        DataError: the decoder returned pixels that are not finite.
    """
    return to_uint8(autoencoder.decode(latents_Nchw.to(device)))


@torch.no_grad()
def lpips(
    module: PerceptualDistance, a_NHWC: np.ndarray, b_NHWC: np.ndarray, device: torch.device | str = "cpu"
) -> np.ndarray:
    """Return the learned perceptual distance of each image, float64, at least 0 and 0 for equal ones (Zhang et al. 2018)."""
    return module(to_pixels(a_NHWC, device), to_pixels(b_NHWC, device)).flatten().double().cpu().numpy()
