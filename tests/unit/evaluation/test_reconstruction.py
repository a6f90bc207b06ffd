import numpy as np
import pytest
import torch
from skimage.data import astronaut, coffee
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from dcae15.errors import DataError
from dcae15.evaluation.reconstruction import MAX_PSNR_DB, decode_batch, encode_batch, lpips, psnr, ssim


class SplitPixels:
    """A lossless codec: the latent of an image is its 2x2 blocks, coarse (the mean) first, then the differences."""

    mixing = torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2

    def encode(self, pixels):
        blocks = torch.nn.functional.pixel_unshuffle(pixels, 2).unflatten(1, (3, 4))
        return torch.einsum("ij,bcjhw->bichw", self.mixing, blocks).flatten(1, 2)

    def decode(self, latents):
        full = torch.cat([latents, latents.new_zeros(len(latents), 12 - latents.shape[1], *latents.shape[2:])], dim=1)
        blocks = torch.einsum("ji,bjchw->bcihw", self.mixing, full.unflatten(1, (4, 3)))
        return torch.nn.functional.pixel_shuffle(blocks.flatten(1, 2), 2)


@pytest.fixture(scope="module")
def photographs() -> np.ndarray:
    return np.stack([astronaut()[:96, 180:300], coffee()[100:196, 200:320], coffee()[200:296, 0:120]])


@pytest.fixture(scope="module")
def damaged(photographs) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, [[[[2]]], [[[10]]], [[[40]]]], photographs.shape)
    return (photographs + noise).clip(0, 255).astype(np.uint8)


def test_psnr_agrees_with_scikit_image(photographs, damaged):
    expected = [peak_signal_noise_ratio(a, b) for a, b in zip(photographs, damaged, strict=True)]
    np.testing.assert_allclose(psnr(photographs, damaged), expected, rtol=1e-12)


def test_ssim_agrees_with_scikit_image(photographs, damaged):
    expected = [
        structural_similarity(
            a, b, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
        )
        for a, b in zip(photographs, damaged, strict=True)
    ]
    np.testing.assert_allclose(ssim(photographs, damaged), expected, rtol=1e-9)


def test_identical_images_have_finite_scores(photographs):
    assert psnr(photographs, photographs).tolist() == [MAX_PSNR_DB] * 3
    np.testing.assert_allclose(ssim(photographs, photographs), 1.0)


def test_one_level_of_error_is_48_db():
    black = np.zeros((1, 16, 16, 3), np.uint8)
    assert psnr(black, black + 1)[0] == pytest.approx(20 * np.log10(255))


def test_each_prefix_adds_detail_and_all_channels_are_lossless(photographs):
    codec = SplitPixels()
    latents = encode_batch(codec, photographs)
    assert latents.shape == (3, 12, 48, 60)
    decoded = [decode_batch(codec, latents[:, :prefix]) for prefix in (3, 6, 12)]
    for measure, best in ((psnr, MAX_PSNR_DB), (ssim, 1)):
        first, second, whole = (measure(photographs, images).mean() for images in decoded)
        assert first < second < whole == pytest.approx(best)
    np.testing.assert_array_equal(decoded[-1], photographs)
    means = photographs.reshape(3, 48, 2, 60, 2, 3).mean(axis=(2, 4), keepdims=True)
    gap = decoded[0].reshape(3, 48, 2, 60, 2, 3) - means
    assert np.abs(gap).max() <= 0.5 + 1e-3, "the first channels alone are the means of blocks"


def test_ssim_of_tiny_images_is_refused():
    with pytest.raises(DataError, match="at least 11 pixels"):
        ssim(*np.zeros((2, 1, 8, 16, 3), np.uint8))


def test_lpips_takes_pixels(photographs, damaged):
    def stand_in(a, b):
        return (a - b).square().mean(dim=(1, 2, 3))[:, None, None, None]  # some implementations keep dimensions

    expected = np.square(photographs / 127.5 - damaged / 127.5).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(lpips(stand_in, photographs, damaged), expected, rtol=1e-5)
