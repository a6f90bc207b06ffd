import base64
import io
import random
import struct
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from dcae15.data import images
from dcae15.data.images import BadImage
from dcae15.errors import DataError

AVIF_10_BIT = (
    "0000WW^{RQVRmU|00000VRmU|ZE0pPZE0a<O+hh10002%ZDn*}000000000XXk=`10000000000aA{+7000000000000000000004sdC7Z2$lO000"
    "310016oY;R)#0000)000310RR910RR926951JAOHXWC~0YKW&i*H00031000_kZf0cy000000RRADb}%tRZ)|UJ00000YH4tCZ~y=ROKEUpZvX%Q6l"
    "rsCWdHyG000005C8xG5C8xG5O8UDX#fBK00RmN3IG5A3}JRLLxCVb000006Ju{|a&BX6cmM(b0ssJj0000NX>e^}0000000001009I60)qqq001a$W"
    "MOm?015~=4FCDSfPf@25<~z1hRn|uXCjB+27ig-XQr0"
)
J2K_12_BIT = (
    "|4;u>051Rl000080000800000000000000800008000000000000RpF0Sf^E3jqQDQUDA90003200aa80smY81VCW_WB?@q0Yh?SVRU6=AYyqSPjF"
    ">!N>D{dAa-SPb7^mGATlmBE;Rp;015yA0000Q00IA#&*U5w07`f&MIC^E|Je"
)

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


def detail(data):
    with pytest.raises(BadImage) as caught:
        decode(data)
    return str(caught.value)


def written(image, kind, **options):
    """As `encoded`, also for HEIF."""
    if kind == "HEIF":
        import pillow_heif

        pillow_heif.register_heif_opener()  # and its encoder
    return encoded(image, kind, **options)


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


@pytest.mark.parametrize("kind", ["AVIF", "HEIF", "JPEG2000", "PPM"])
def test_newer_and_older_formats(kind):
    options = {"AVIF": {"quality": 100, "subsampling": "4:4:4"}, "HEIF": {"quality": -1, "chroma": 444}}.get(kind, {})
    difference = np.abs(np.asarray(decode(written(photo(), kind, **options))).astype(int) - np.asarray(photo()))
    assert difference.max() <= {"AVIF": 8, "HEIF": 3}.get(kind, 0)


def test_jpeg_2000_without_boxes_and_bigtiff():
    for data in (encoded(photo(), "JPEG2000", no_jp2=True), encoded(photo(), "TIFF", big_tiff=True)):
        np.testing.assert_array_equal(decode(data), photo())


@pytest.mark.parametrize(
    "data", [b"P1 2 2 0 1 1 0", b"P4\n2 2\n\x40\x80", b"P2 2 2 7 7 0 0 7", b"P5 # c\n2 2 3\n\3\0\0\3"]
)
def test_grey_and_bilevel_portable_maps(data):
    assert np.asarray(decode(data))[..., 0].tolist() == [[255, 0], [0, 255]]


@pytest.mark.parametrize("highest", [65535, 1000, 255, 100, 1])
def test_portable_maps_are_scaled_by_their_largest_value(highest):
    values = np.array([[[0, highest, highest // 2]] * 3] * 2, ">u2" if highest > 255 else np.uint8)
    expected = np.round(values[0, 0] / highest * 255)
    plain = " ".join(str(value) for value in values.ravel()).encode()
    for data in (b"P6 3 2 %d\n" % highest + values.tobytes(), b"P3 3 2 %d\n" % highest + plain):
        np.testing.assert_allclose(np.asarray(decode(data))[1, 2], expected, atol=1)
    for data in (b"P5 3 2 %d\n" % highest + values[..., 1].tobytes(), b"P2 3 2 %d " % highest + plain):
        assert np.asarray(decode(data)).max() == 255
    assert reason(b"P6 3 2 %d\n" % highest + values.tobytes()[:-1]) == "truncated"


def test_10_bit_avif_is_scaled():
    """Made with libavif: 16 x 16 pixels, the left half 1023, the right half 512 of 1023."""
    pixels = np.asarray(decode(base64.b85decode(AVIF_10_BIT)))
    np.testing.assert_allclose(pixels[0, [0, 15]], [[255] * 3, [128] * 3], atol=1)


@pytest.mark.parametrize(("mode", "channels"), [("RGB;16", 3), ("I;16", 1)])
def test_10_bit_heif_is_scaled(mode, channels):
    import pillow_heif

    wide = np.full((64, 64, channels), 65535, np.uint16)
    wide[:, 32:] = 32768
    buffer = io.BytesIO()
    pillow_heif.from_bytes(mode, (64, 64), wide.tobytes()).save(buffer, quality=-1)
    assert pillow_heif.open_heif(buffer.getvalue()).info["bit_depth"] == 10
    np.testing.assert_allclose(np.asarray(decode(buffer.getvalue()))[5, [3, 60]], [[255] * 3, [128] * 3], atol=2)


def test_16_bit_jpeg_2000():
    """Pillow turns the brightest colours of deep files into black, so these are not taken; grey ones are right."""
    wide = np.repeat(np.array([[0, 257, 32768, 65535]], np.uint16), 4, 0)
    assert np.asarray(decode(encoded(Image.fromarray(wide), "JPEG2000")))[0, :, 0].tolist() == [0, 1, 128, 255]
    assert reason(base64.b85decode(J2K_12_BIT)) == "unsupported"
    assert "more than 8 bits" in detail(base64.b85decode(J2K_12_BIT))


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
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "AVIF", "HEIF"])
def test_exif_orientation_is_applied(orientation, kind):
    wide = orientation < 5
    scale = 4 if kind == "HEIF" else 1  # its coder blurs the edge of a block
    size = (48 * scale, 32 * scale) if wide else (32 * scale, 48 * scale)
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
    data = written(image, kind, exif=exif.tobytes() if kind == "HEIF" else exif)
    if kind in ("AVIF", "HEIF") and orientation > 1:
        assert b"irot" in data or b"imir" in data, "the file should say it in its own way, too"
    result = decode(data)
    assert result.size == (48 * scale, 32 * scale)
    for point, colour in (((12, 8), RED), ((36, 8), BLUE), ((12, 24), WHITE), ((36, 24), WHITE)):
        np.testing.assert_allclose(result.getpixel((point[0] * scale, point[1] * scale)), colour, atol=5)


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


def test_the_preview_in_a_phones_heif_is_no_frame():
    data = written(photo(256), "HEIF", thumbnails=[64], quality=-1, chroma=444)
    assert data.count(b"ispe") == 2
    assert np.abs(np.asarray(decode(data)).astype(int) - np.asarray(photo(256))).max() <= 3


# What a file holds besides its pixels


def with_chunk(kind, body, crc=None, before=b"IDAT"):
    """A PNG file with a chunk more."""
    data = encoded(photo(), "PNG", exif=upright(3))
    at = data.index(before) - 4
    extra = chunk(kind, body)
    return data[:at] + (extra[:-4] + crc if crc else extra) + data[at:]


def upright(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


LONG_TEXT = zlib.compress(b"x" * (3 << 20))
NOISE = np.random.default_rng(0).bytes(3 << 20)


@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (b"zTXt", b"workflow\0\0" + LONG_TEXT),
        (b"iTXt", b"prompt\0\1\0\0\0" + LONG_TEXT),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + LONG_TEXT),
        (b"iCCP", b"profile\0\0" + zlib.compress(NOISE)),
        (b"iCCP", b"profile\0\7wrong method"),
        (b"iCCP", b""),
        (b"pHYs", b"short"),
        (b"gAMA", b""),
        (b"cHRM", b"\0"),
        (b"sRGB", b""),
        (b"zTXt", b"no end of the keyword"),
        (b"vpAg", b"whatever this is"),
    ],
)
def test_other_chunks_of_a_png_do_not_cost_the_image(kind, body, before):
    for data in (with_chunk(kind, body, before=before), with_chunk(kind, body, b"\0\0\0\0", before)):
        np.testing.assert_array_equal(decode(data), photo().transpose(Image.Transpose.ROTATE_180))
        assert images.shorter_side(data) == 64


def test_much_text_in_a_png():
    text = b"".join(chunk(b"tEXt", b"a%d\0" % i + b"x" * (1 << 20)) for i in range(66))
    data = encoded(photo(), "PNG")
    np.testing.assert_array_equal(decode(data[:33] + text + data[33:]), photo())


def test_an_orientation_in_a_text_of_a_png_survives_the_other_texts():
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="3"/></x:xmpmeta>'
    for packed in (b"\0\0\0\0" + xmp, b"\1\0\0\0" + zlib.compress(xmp)):
        extra = chunk(b"zTXt", b"long\0\0" + LONG_TEXT) + chunk(b"iTXt", b"XML:com.adobe.xmp\0" + packed)
        data = encoded(photo(), "PNG")
        result = decode(data[:33] + extra + data[33:])
        np.testing.assert_array_equal(result, photo().transpose(Image.Transpose.ROTATE_180))


def test_what_a_png_needs_is_not_left_out():
    long = chunk(b"zTXt", b"long\0\0" + LONG_TEXT)
    image = Image.new("P", (8, 8), 0)
    image.putpalette([*RED, *BLUE])
    data = encoded(image, "PNG", transparency=0)
    assert decode(data[:33] + long + data[33:]).getpixel((0, 0)) == WHITE
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, BLUE)]
    data = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])
    assert reason(data[:33] + long + data[33:]) == "animated"
    data = bytearray(data[:33] + long + data[33:])
    data[data.index(b"IDAT") + 6] ^= 1
    assert reason(bytes(data[: data.index(b"acTL") - 4] + data[data.index(b"acTL") + 16 :])) == "unreadable"


def segment(marker, body):
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


@pytest.mark.parametrize(
    "extra",
    [
        segment(0xE0, b"JFIF"),
        segment(0xE2, b"ICC_PROFILE\0"),
        segment(0xEE, b"Adobe"),
        segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed"),
        segment(0xFE, b"comment" * 9000),
        b"".join(segment(0xE2, b"ICC_PROFILE\0" + bytes([i, 120]) + NOISE[:60_000]) for i in range(1, 121)),
        segment(0xE2, b"MPF\0" + NOISE[:100]),
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + NOISE[:60_000]),
    ],
)
def test_other_segments_of_a_jpeg_do_not_cost_the_image(extra):
    data = encoded(photo(), "JPEG", exif=upright(3))
    np.testing.assert_array_equal(decode(data[:2] + extra + data[2:]), decode(data))


def test_profiles_texts_and_trailing_bytes_of_other_formats():
    for kind in ("WEBP", "TIFF", "AVIF", "HEIF", "JPEG2000", "JPEG", "PNG"):
        image = photo()
        if kind != "JPEG2000":
            image.info["icc_profile"] = NOISE[: 3 << 20]
        data = written(image, kind, **({"icc_profile": image.info["icc_profile"]} if kind in ("WEBP", "TIFF") else {}))
        np.testing.assert_array_equal(decode(data), decode(written(photo(), kind)), err_msg=kind)
    for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "JPEG2000", "PPM"):
        data = encoded(photo().quantize() if kind == "GIF" else photo(), kind)
        np.testing.assert_array_equal(decode(data + b"\0" * 700 + b"more"), decode(data), err_msg=kind)
    assert decode(encoded(photo().quantize(), "GIF", comment=b"c" * 100_000)).size == (64, 64)
    assert decode(encoded(photo(), "PNG")[:-3]).size == (64, 64), "cut in the checksum of its end mark"


def test_odd_tags_of_a_tiff_do_not_cost_the_image():
    tags = {65000: "private" * 100_000, 700: b"<xmp", 34377: NOISE[:100_000], 306: "no date"}
    np.testing.assert_array_equal(decode(encoded(photo(), "TIFF", tiffinfo=tags)), photo())


# What is wrong, and is set aside


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF", "HEIF"])
def test_several_frames(kind):
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, BLUE, WHITE)]
    assert reason(written(frames[0], kind, save_all=True, append_images=frames[1:])) == "animated"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "HEIF", "JPEG2000", "PPM"])
@pytest.mark.parametrize("share", [0.001, 0.01, 0.05, 0.3, 0.5, 0.9, 0.99])
def test_cut_files(kind, share):
    whole = written(photo(128), kind)
    cut = whole[: max(1, int(len(whole) * share))]
    assert reason(cut) in (
        ("truncated", "unreadable") if share < 0.3 or kind in ("WEBP", "GIF", "TIFF") else ("truncated",)
    )


@pytest.mark.parametrize("kind", ["AVIF", "HEIF", "JPEG2000", "PPM"])
def test_flipped_bits_give_an_image_or_a_reason(kind):
    whole, generator = written(photo(), kind), random.Random(0)
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[generator.randrange(min(len(whole), 600))] = generator.randrange(256)
        try:
            assert decode(bytes(damaged)).mode == "RGB"
        except BadImage as bad:
            assert bad.reason in {"unreadable", "truncated", "too_large", "too_small", "animated", "unsupported"}


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
    ("data", "named"),
    [
        (b"this is a text file\n", "no picture; it begins with b'this is "),
        (b"<html>404</html>", "an HTML page"),
        (b"\x00" * 100, "no picture"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS (run `git lfs pull`)"),
    ],
)
def test_no_image_at_all(data, named):
    assert reason(data) == "unreadable"
    assert named in detail(data)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "an EPS file"),
        (b"%PDF-1.7\n", "a PDF file"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG file"),
        (b"8BPS\0\1" + bytes(30), "a Photoshop file"),
        (b"\xff\x0a\xfa", "a JPEG XL file"),
        (b"II*\0\x10\0\0\0CR\x02\0", "a Canon CR2 file"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "a Canon CR3 file"),
        (encoded(Image.new("RGB", (16, 16)), "ICO"), "an ICO file"),
        (encoded(Image.new("RGB", (16, 16)), "TGA"), "a TGA file"),
        (encoded(Image.new("F", (16, 16)), "PPM"), "a PFM file"),
    ],
)
def test_pictures_that_nothing_reads_are_named(data, named):
    assert reason(data) == "unsupported"
    assert f"{named}; nothing here reads it" in detail(data)


@pytest.mark.parametrize("tags", [{50706: b"\1\4\0\0"}, {254: 1, 330: 8}])
def test_the_preview_of_a_cameras_raw_file_is_not_taken_for_the_picture(tags):
    data = encoded(Image.new("RGB", (32, 24)), "TIFF", tiffinfo=tags)
    assert reason(data) == "unsupported"
    assert "raw file" in detail(data)
    assert decode(encoded(Image.new("RGB", (32, 24)), "TIFF", tiffinfo={254: 0})).size == (32, 24)


@pytest.mark.parametrize(
    ("kind", "advice"),
    [("HEIF", "pip install pillow-heif"), ("AVIF", "Pillow 11.3"), ("JPEG2000", "pip install -U pillow")],
)
def test_what_to_install_is_said(kind, advice, monkeypatch):
    data = written(Image.new("RGB", (64, 64)), kind)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr(images.features, "check", lambda name: False)
    assert reason(data) == "unsupported"
    assert advice in detail(data)


def test_no_bytes():
    assert reason(b"") == "empty"


def test_declared_sizes_are_judged_before_pixels_are_decoded():
    bomb = png(60_000, 60_000, pixels=b"")
    assert reason(bomb) == "too_large"
    assert reason(bomb, max_pixels=100_000_000) == "too_large"
    assert reason(encoded(photo(64), "JPEG"), max_pixels=64 * 64 - 1) == "too_large"
    assert decode(encoded(photo(64), "JPEG"), max_pixels=64 * 64).size == (64, 64)


@pytest.mark.parametrize("kind", ["AVIF", "HEIF", "JPEG2000", "PPM"])
def test_declared_sizes_of_newer_and_older_formats(kind, monkeypatch):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("pixels were decoded"))
    data = written(Image.new("RGB", (100, 70)), kind)
    assert reason(data, max_pixels=100 * 70 - 1) == "too_large"
    assert reason(data, min_side=71) == "too_small"
    with pytest.raises(BadImage) as caught:
        images.decode(data, min_side=2, max_pixels=10**6, fill=71)
    assert (caught.value.reason, images.shorter_side(data)) == (images.LEFT_OUT, 70)
    if kind == "PPM":
        assert reason(b"P6 60000 60000 255\n") == "too_large"
    else:
        at = data.index({"JPEG2000": b"ihdr"}.get(kind, b"ispe")) + (4 if kind == "JPEG2000" else 8)
        assert reason(data[:at] + struct.pack(">II", 60_000, 60_000) + data[at + 8 :]) == "too_large"


def test_a_large_heif_with_a_small_crop_is_not_decoded():
    """The reader reports the crop's size."""
    data = written(Image.new("RGB", (100, 70)), "HEIF")
    at = data.index(b"ispe") + 8
    bomb = data[:at] + struct.pack(">II", 20_000, 20_000) + data[at + 8 :]
    assert reason(bomb, max_pixels=100_000_000) == "too_large"


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
