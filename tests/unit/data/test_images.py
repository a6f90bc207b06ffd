import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from dcae15.data import images
from dcae15.data.images import BadImage
from dcae15.errors import DataError

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decode(data, min_side=2, max_pixels=1_000_000):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = images.decode(data, min_side=min_side, max_pixels=max_pixels)
    assert image.mode == "RGB"
    return image


def reason(data, **limits):
    with pytest.raises(BadImage) as caught:
        decode(data, **limits)
    assert caught.value.reason in str(caught.value)
    return caught.value.reason


def photo(side=64):
    x, y = np.meshgrid(np.linspace(0, 255, side), np.linspace(0, 255, side))
    noise = np.random.default_rng(0).uniform(0, 255, (side, side))
    return Image.fromarray(np.stack([x, y, noise], -1).astype(np.uint8))


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width, height, depth=8, colour=2, pixels=b""):
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


# What is right, and is converted


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP", "JPEG"])
def test_rgb_of_every_format(kind):
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    difference = np.abs(np.asarray(decode(encoded(photo(), kind, **options))).astype(int) - np.asarray(photo()))
    assert difference.max() <= (0 if kind != "JPEG" else 40)
    assert difference.mean() < 5


def test_single_frame_gif():
    image = Image.new("P", (9, 9), 1)
    image.putpalette([0, 0, 0, *RED])
    assert decode(encoded(image, "GIF")).getpixel((4, 4)) == RED


@pytest.mark.parametrize(
    ("ink", "colour"),
    [((0, 255, 255, 0), RED), ((0, 0, 0, 0), WHITE), ((0, 0, 0, 255), (0, 0, 0)), ((255, 255, 0, 0), BLUE)],
)
@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_inks_become_their_colours(ink, colour, kind):
    data = encoded(Image.new("CMYK", (16, 16), ink), kind)
    if kind == "JPEG":
        assert b"Adobe" in data, "the file should be one with inverted inks"
    np.testing.assert_allclose(decode(data).getpixel((8, 8)), colour, atol=3)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_and_not_clipped(kind):
    wide = np.repeat(np.array([[0, 128, 257, 32768, 65278, 65535]], np.uint16), 4, 0)
    pixels = np.asarray(decode(encoded(Image.fromarray(wide), kind)))
    assert pixels[0, :, 0].tolist() == [0, 0, 1, 128, 254, 255]
    assert (pixels[..., 0] == pixels[..., 2]).all()


def test_16_bit_colour():
    row = b"\x00" + struct.pack(">6H", 0, 32768, 65535, 65535, 257, 0)
    pixels = np.asarray(decode(png(2, 2, depth=16, pixels=row * 2)))
    np.testing.assert_allclose(pixels[0], [(0, 128, 255), (255, 1, 0)], atol=1)


@pytest.mark.parametrize(("mode", "value", "expected"), [("L", 77, (77,) * 3), ("1", 1, WHITE), ("1", 0, (0, 0, 0))])
def test_grey_and_bilevel(mode, value, expected):
    assert decode(encoded(Image.new(mode, (5, 5), value), "PNG")).getpixel((2, 2)) == expected


def test_palette_with_transparency_shows_white():
    image = Image.new("P", (4, 4), 0)
    image.putpalette([*RED, *BLUE])
    image.putpixel((1, 1), 1)
    pixels = decode(encoded(image, "PNG", transparency=0))
    assert (pixels.getpixel((0, 0)), pixels.getpixel((1, 1))) == (WHITE, BLUE)


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("LA", (0, 255), 0),
        ("LA", (0, 0), 255),
        ("LA", (100, 128), 177),
        ("RGBA", (0, 0, 0, 0), 255),
        ("RGBA", (100, 100, 100, 128), 177),
    ],
)
def test_alpha_is_composited_on_white(mode, value, expected):
    pixel = decode(encoded(Image.new(mode, (4, 4), value), "PNG")).getpixel((0, 0))
    np.testing.assert_allclose(pixel, (expected,) * 3, atol=1)


def test_colour_key_transparency_shows_white():
    image = Image.new("RGB", (4, 4), RED)
    image.putpixel((1, 1), BLUE)
    pixels = decode(encoded(image, "PNG", transparency=RED))
    assert (pixels.getpixel((0, 0)), pixels.getpixel((1, 1))) == (WHITE, BLUE)


# The top left block of the upright image is red, the one to its right blue; here is where a camera stores them.
STORED = {1: "rb--", 2: "br--", 3: "--br", 4: "--rb", 5: "r-b-", 6: "b-r-", 7: "-b-r", 8: "-r-b"}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied(orientation, kind):
    wide = orientation < 5
    size = (48, 32) if wide else (32, 48)
    image = Image.new("RGB", size, WHITE)
    for place, colour in enumerate(STORED[orientation]):
        if colour != "-":
            column, row = place % 2, place // 2
            half = (size[0] // 2, size[1] // 2)
            image.paste(
                {"r": RED, "b": BLUE}[colour],
                (column * half[0], row * half[1], (column + 1) * half[0], (row + 1) * half[1]),
            )
    exif = Image.Exif()
    exif[0x0112] = orientation
    result = decode(encoded(image, kind, exif=exif))
    assert result.size == (48, 32)
    for point, colour in (((12, 8), RED), ((36, 8), BLUE), ((12, 24), WHITE), ((36, 24), WHITE)):
        np.testing.assert_allclose(result.getpixel(point), colour, atol=4)


def test_a_damaged_exif_block_does_not_cost_the_image():
    data = encoded(Image.new("RGB", (16, 16), RED), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff\x01")
    with pytest.warns(UserWarning, match="EXIF"):
        image = images.decode(data, min_side=2, max_pixels=1_000)
    np.testing.assert_allclose(image.getpixel((8, 8)), RED, atol=3)


def test_a_phones_second_picture_is_no_animation():
    main, gain_map = Image.new("RGB", (32, 32), RED), Image.new("RGB", (16, 16), BLUE)
    data = encoded(main, "MPO", save_all=True, append_images=[gain_map])
    assert Image.open(io.BytesIO(data)).n_frames == 2
    result = decode(data)
    assert result.size == (32, 32)
    np.testing.assert_allclose(result.getpixel((8, 8)), RED, atol=3)


# What is wrong, and is set aside


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_several_frames(kind):
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, BLUE, WHITE)]
    assert reason(encoded(frames[0], kind, save_all=True, append_images=frames[1:])) == "animated"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
@pytest.mark.parametrize("share", [0.001, 0.01, 0.05, 0.3, 0.5, 0.9, 0.99])
def test_cut_files(kind, share):
    whole = encoded(photo(), kind)
    cut = whole[: max(1, int(len(whole) * share))]
    assert reason(cut) in (
        ("truncated",) if share >= 0.3 and kind in ("JPEG", "PNG", "BMP") else ("truncated", "unreadable")
    )


def test_a_broken_png_chunk():
    data = bytearray(encoded(photo(), "PNG"))
    data[len(data) // 2] ^= 0x10
    assert reason(bytes(data)) == "unreadable"


def test_a_png_whose_checksum_alone_is_broken():
    data = bytearray(encoded(Image.new("RGB", (8, 8), RED), "PNG"))
    data[data.index(b"IEND") - 5] ^= 1  # last byte of the pixel chunk's checksum
    assert reason(bytes(data)) == "unreadable"


@pytest.mark.parametrize(
    "start", [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"GIF89a", b"BM", b"II*\x00", b"MM\x00*"]
)
def test_noise_behind_a_right_beginning(start):
    generator = np.random.default_rng(1)
    for length in (0, 10, 100, 1000):
        assert reason(start + generator.bytes(length)) in {"unreadable", "truncated", "too_small", "too_large"}


@pytest.mark.parametrize(
    "data", [b"this is a text file\n", b"<html>404</html>", b"\x00" * 100, b"%!PS-Adobe-3.0 EPSF-3.0\n"]
)
def test_no_image_at_all(data):
    assert reason(data) == "unreadable"


def test_no_bytes():
    assert reason(b"") == "empty"


def test_declared_sizes_are_judged_before_pixels_are_decoded():
    bomb = png(60_000, 60_000, pixels=b"")
    assert reason(bomb) == "too_large"
    assert reason(bomb, max_pixels=100_000_000) == "too_large"
    assert reason(encoded(photo(64), "JPEG"), max_pixels=64 * 64 - 1) == "too_large"
    assert decode(encoded(photo(64), "JPEG"), max_pixels=64 * 64).size == (64, 64)


def test_pillows_own_limit_neither_warns_nor_stops(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for kind in ("PNG", "JPEG", "WEBP", "BMP"):
        limit_applies = kind == "WEBP"  # this reader has the check built in
        data = encoded(photo(64), kind)
        assert reason(data) == "too_large" if limit_applies else decode(data).size == (64, 64)


def test_small_images():
    assert reason(encoded(Image.new("RGB", (1, 1)), "PNG"), min_side=8) == "too_small"
    assert reason(encoded(Image.new("RGB", (7, 500)), "PNG"), min_side=8) == "too_small"
    assert decode(encoded(Image.new("RGB", (8, 500)), "PNG"), min_side=8).size == (8, 500)


def test_pixels_without_a_defined_range():
    assert reason(encoded(Image.new("F", (8, 8), 0.5), "TIFF")) == "unsupported"


def test_decoding_leaves_pillows_switches_alone():
    before = (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS)
    decode(encoded(photo(), "JPEG"))
    assert before == (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS)


def test_real_photographs():
    folder = Path(pytest.importorskip("skimage", reason="scikit-image brings the photographs").__file__).parent / "data"
    rejected, sizes = {}, {}
    for path in sorted(p for p in folder.iterdir() if p.suffix in (".png", ".jpg", ".gif", ".tif")):
        try:
            image = decode(path.read_bytes(), min_side=8, max_pixels=100_000_000)
        except BadImage as bad:
            rejected[path.name] = bad.reason
            continue
        sizes[path.name] = image.size
        assert images.center_crop(image, 32).std() > 1, path.name
    assert len(sizes) >= 20
    assert sizes["astronaut.png"] == (512, 512)
    # Pages and frames; Pillow cannot read the layout of the first file at all.
    assert rejected.pop("multipage_rgb.tif", "unreadable") in ("unreadable", "animated")
    assert rejected == dict.fromkeys(("multipage.tif", "no_time_for_that_tiny.gif"), "animated")


# Crops


@pytest.mark.parametrize(
    "size", [(64, 64), (200, 90), (90, 200), (31, 33), (33, 31), (1000, 10), (10, 1000), (65, 129)]
)
def test_center_crop_gives_the_square_asked_for(size):
    image = Image.new("RGB", size, (10, 20, 30))
    crop = images.center_crop(image, 32)
    assert (crop.shape, crop.dtype) == ((32, 32, 3), np.uint8)
    assert (crop == (10, 20, 30)).all()
    assert min(images.resize_shorter(image, 36).size) == 36


def test_center_crop_takes_the_middle():
    image = Image.new("RGB", (96, 32), RED)
    image.paste(BLUE, (32, 0, 64, 32))
    assert (images.center_crop(image, 32) == BLUE).all()
    image = image.transpose(Image.Transpose.ROTATE_90)
    assert (images.center_crop(image, 32) == BLUE).all()


def test_center_crop_of_the_right_size_is_the_image():
    np.testing.assert_array_equal(images.center_crop(photo(32), 32), np.asarray(photo(32)))


def test_halving_is_a_box_mean():
    pixels = np.asarray(photo(64)).astype(float)
    expected = pixels.reshape(32, 2, 32, 2, 3).mean((1, 3))
    np.testing.assert_allclose(images.center_crop(photo(64), 32), expected, atol=1)


def test_halving_stops_above_the_side_asked_for_and_bicubic_does_the_rest():
    halved = photo(100).resize((50, 50), Image.Resampling.BOX)
    expected = halved.resize((32, 32), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(images.center_crop(photo(100), 32), np.asarray(expected))


def test_a_crop_is_independent_of_the_image_and_writable():
    crop = images.center_crop(photo(32), 32)
    crop[:] = 0
    assert images.center_crop(photo(32), 32).max() > 0


def test_a_strip_does_not_fill_the_memory():
    strip = Image.new("RGB", (400_000, 8))
    strip.paste(RED, (199_000, 0, 201_000, 8))
    assert (images.center_crop(strip, 256) == RED).all()
    assert images.resize_shorter(strip, 256).size == (2048, 256)


def test_random_crops_cover_the_stated_share_and_stay_inside():
    ramp = np.zeros((80, 120, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(120)[None, :], np.arange(80)[:, None]
    image, generator = Image.fromarray(ramp), np.random.default_rng(3)
    shares, aspects = [], []
    for _ in range(300):
        crop = images.random_resized_crop(image, 32, generator, 0.25).astype(float)
        # The ramps tell the part: 31 of its 32 pixel steps lie between the centres of the outer pixels.
        width, height = (
            (crop[:, -1, 0] - crop[:, 0, 0]).mean() * 32 / 31,
            (crop[-1, :, 1] - crop[0, :, 1]).mean() * 32 / 31,
        )
        shares.append(width * height / (120 * 80))
        aspects.append(width / height)
    assert min(shares) > 0.22
    assert 0.85 < max(shares) < 1.02
    assert 0.4 < np.mean(shares) < 0.6  # below the middle: the largest parts seldom fit
    assert 0.69 < min(aspects) < 0.85
    assert 1.2 < max(aspects) < 1.43


def test_random_crops_repeat_with_the_generator():
    first, again, other = (images.random_resized_crop(photo(), 16, np.random.default_rng(s), 0.3) for s in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_random_crop_of_a_strip_takes_the_middle():
    strip = Image.new("RGB", (1000, 10), RED)
    strip.paste(BLUE, (450, 0, 550, 10))
    crop = images.random_resized_crop(strip, 16, np.random.default_rng(0), 0.5)
    assert crop.shape == (16, 16, 3)
    assert (crop == BLUE).all()


# Our own coding


def test_png_coding_is_lossless():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    np.testing.assert_array_equal(images.decode_png(images.encode_png(pixels)), pixels)


@pytest.mark.parametrize("data", [b"", b"no image", images.encode_png(np.zeros((32, 32, 3), np.uint8))[:60]])
def test_damaged_stored_images_are_reported(data):
    with pytest.raises(DataError, match="damaged"):
        images.decode_png(data)


def test_foreign_stored_images_are_reported():
    with pytest.raises(DataError, match="mode L"):
        images.decode_png(encoded(Image.new("L", (8, 8)), "PNG"))
