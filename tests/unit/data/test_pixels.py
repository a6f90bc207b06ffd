import numpy as np
import pytest
import torch

from dcae15.data.pixels import to_pixels, to_uint8
from dcae15.errors import DataError


def all_levels() -> np.ndarray:
    return np.arange(256 * 3, dtype=np.uint32).astype(np.uint8).reshape(2, 16, 8, 3)


def test_round_trip_is_exact_for_every_level():
    pixels = to_pixels(all_levels())
    assert pixels.shape == (2, 3, 16, 8)
    assert pixels.dtype == torch.float32
    assert (pixels.min(), pixels.max()) == (-1, 1)
    np.testing.assert_array_equal(to_uint8(pixels), all_levels())


def test_tensors_are_taken_as_arrays_are():
    images = all_levels()
    torch.testing.assert_close(to_pixels(torch.from_numpy(images)), to_pixels(images), rtol=0, atol=0)


def test_channels_keep_their_place():
    image = np.zeros((1, 4, 4, 3), dtype=np.uint8)
    image[0, 1, 2, 0] = 255
    assert to_pixels(image)[0, 0, 1, 2] == 1


def test_rounds_and_clamps():
    values = torch.tensor([-3.0, -1.0, 0.6 / 127.5 - 1, 0.4 / 127.5 - 1, 1.0, 3.0]).reshape(1, 1, 1, 6)
    assert to_uint8(values.expand(1, 3, 1, 6))[0, 0, :, 0].tolist() == [0, 0, 1, 0, 255, 255]


def test_half_precision_loses_at_most_a_level():
    restored = to_uint8(to_pixels(all_levels()).to(torch.bfloat16)).astype(int)
    assert np.abs(restored - all_levels()).max() <= 1


def test_read_only_and_mirrored_images_are_fine(recwarn):
    images = all_levels()
    images.setflags(write=False)
    mirrored = to_pixels(images[:, :, ::-1])
    assert not recwarn.list
    torch.testing.assert_close(mirrored, to_pixels(images).flip(3), rtol=0, atol=0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_pixels_that_are_not_finite_are_refused(bad):
    pixels = torch.zeros(3, 3, 2, 2)
    pixels[1, 0, 0, 0] = bad
    with pytest.raises(DataError, match="1 of 3 images"):
        to_uint8(pixels)


@pytest.mark.parametrize(
    "images", [np.zeros((1, 4, 4, 3)), np.zeros((4, 4, 3), np.uint8), np.zeros((1, 3, 4, 4), np.uint8)]
)
def test_other_layouts_are_refused(images):
    with pytest.raises(DataError, match="uint8 images of shape"):
        to_pixels(images)
