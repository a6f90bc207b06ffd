import numpy as np
import pytest
import torch
from PIL import Image

from dcae15.artifacts import ImageSet, LatentSet, Split
from dcae15.data import encoding, shards
from dcae15.data.images import center_crop, encode_png
from dcae15.data.pixels import to_pixels
from dcae15.errors import ConfigError
from dcae15.library import load_autoencoder
from dcae15.stages.latent_caching import latent_spec
from tests.latent_sets import make_autoencoder, make_images, make_latents


def test_a_smaller_resolution_encodes_the_reduced_images(tmp_path):
    images, autoencoder = make_images(str(tmp_path / "images")), make_autoencoder(str(tmp_path / "autoencoder"))
    latents = make_latents(str(tmp_path / "latents"), images, autoencoder, resolution=8, mirror=True, dtype="float32")
    latent_set, image_set = LatentSet.open(latents), ImageSet.open(images)
    shard = shards.read_shard(images, image_set.splits["train"].shards[1])
    squares = [np.frombuffer(row, np.uint8).reshape(16, 16, 3) for row in shard["image"].to_pylist()]
    reduced = np.stack([center_crop(Image.fromarray(square), 8) for square in squares])
    table = shards.read_shard(latents, latent_set.splits["train"].shards[1])
    stored = shards.decode_latents(table["latent"], (4, 2, 2), "float32")
    pixels = to_pixels(np.concatenate([reduced, reduced[:, :, ::-1]]))
    with torch.no_grad():
        torch.testing.assert_close(stored, load_autoencoder(autoencoder).encode(pixels))
    assert table["id"].to_pylist() == [*shard["id"].to_pylist(), *(f"{i}#mirror" for i in shard["id"].to_pylist())]
    assert table["flipped"].to_pylist() == [False] * 4 + [True] * 4
    assert latent_set.splits["val"].count == 5, "no mirrored copies of validation images"


def test_whole_images_are_cropped_and_then_reduced(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (24, 40, 3), np.uint8)
    png = shards.image_table(["a"], [0], [encode_png(image)], {})
    image_set = ImageSet(str(tmp_path), "f", ("a",), 16, "png", "random", {"train": Split(())}, {}, "test")
    square = center_crop(Image.fromarray(image), 16)
    assert np.array_equal(encoding.squares(png, image_set, 16), square[None])
    assert np.array_equal(encoding.squares(png, image_set, 8), center_crop(Image.fromarray(square), 8)[None])


@pytest.mark.parametrize(
    ("resolution", "message"),
    [(32, "larger than the images of 16 pixels"), (10, r"10 pixels do not fit .* 4-fold; use latents.resolution=8")],
)
def test_a_resolution_that_cannot_be_is_refused(tmp_path, resolution, message):
    images, autoencoder = make_images(str(tmp_path / "images")), make_autoencoder(str(tmp_path / "autoencoder"))
    with pytest.raises(ConfigError, match=message):
        latent_spec(ImageSet.open(images), autoencoder, resolution)
