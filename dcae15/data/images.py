"""Images: robust decoding of foreign files, crops, and the PNG coding of our own shards."""

from __future__ import annotations

import io
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, features
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from dcae15.data import essentials
from dcae15.data.formats import describe, format_of
from dcae15.errors import DataError

Pixels = NDArray[np.uint8]
Reader = type[ImageFile.ImageFile]

# Pillow's readers, chosen here by a file's first bytes rather than by Image.open, which has checks of its own on the
# number of pixels (a process-wide limit, with warnings), knows formats that run other programs, and takes phone
# photographs with a second picture inside (MPO) for animations.
_READERS: dict[str, Reader] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "WEBP": WebPImageFile,
    "GIF": GifImageFile,
    "BMP": BmpImageFile,
    "TIFF": TiffImageFile,
    "PNM": PpmImageFile,
    "JPEG 2000": Jpeg2KImageFile,
}

_NEW_SUBFILE_TYPE, _SUB_IFDS, _DNG_VERSION = 254, 330, 50706  # tags of TIFF

_ORIENTATION_TAG = 0x0112
_UPRIGHT: dict[int, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_LONGEST_ASPECT = 8  # longer images lose their ends, or a 8 x 10,000,000 file would fill the memory once it is resized


_SIGNS_OF_A_CUT = (
    "truncated",
    "incomplete",
    "not enough",
    "insufficient",
    "end of file",
    "reached eof",
    "cannot read full",
)

LEFT_OUT = "too_small_to_fill"  # the reason of images that are right, but smaller than what was asked for


class BadImage(Exception):  # noqa: N818 - a finding about one image, which is set aside and counted, not a failure
    """One image cannot be used.

    Attributes:
        reason: One stable word to count by: "missing", "forbidden", "unreachable", "empty", "unreadable", "truncated",
            "animated", "too_small", "too_large", or "unsupported"; or `LEFT_OUT`.
    """

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


def shorter_side(data: bytes) -> int:
    """Return the shorter side, as the header says, of a file that `decode` took or left out."""
    try:
        return min(_opened(data).size)
    except Exception:  # as `decode` does, which then tries the file without what no pixel needs
        return min(_opened(essentials.of(data)).size)


def decode(data: bytes, *, min_side: int, max_pixels: int, fill: int = 0) -> Image.Image:
    """Decode a file of a format in `dcae15.data.formats.READABLE` to an upright RGB image of 8 bits.

    - The contents decide about the format, not the name.
    - More than 8 bits are scaled to 8. 32-bit and float pixels are "unsupported": their range is not defined.
    - CMYK is converted, with the inverted inks of Adobe's JPEG files put right. Colour profiles are not applied.
    - Transparent pixels show white, as on a page.
    - The orientation (of EXIF, or of an AVIF or HEIF file itself) is applied; an EXIF block that cannot be read is ignored.
    - What a file holds besides its pixels (texts, profiles, previews) costs nobody the image, however large or damaged.
    - Files with several frames or pages are "animated": nobody said which frame is the image. The second picture of a
      phone's JPEG or HEIF (depth or gain map, preview) is no frame; the main one is taken.
    - Flipped bits inside the pixel data are found where the format has checksums (PNG); a JPEG's go unnoticed.
    - Known formats that nothing here reads (camera raw, PSD, SVG, PDF ...) are "unsupported", and named.

    Args:
        data: The whole file.
        min_side: Images with a shorter side below this are "too_small".
        max_pixels: Images with more pixels are "too_large", judged by the header, before memory is taken for pixels.
        fill: Images with a shorter side below this are left out, judged by the header.

    Raises:
        BadImage: The image cannot be used.
    """
    if not data:
        raise BadImage("empty", "the file has no bytes")
    try:
        return _decode(data, min_side, max_pixels, fill)
    except BadImage as error:
        plain = essentials.of(data) if error.reason in ("unreadable", "truncated") else data
        if plain is data:
            raise
        return _decode(plain, min_side, max_pixels, fill)


def _decode(data: bytes, min_side: int, max_pixels: int, fill: int) -> Image.Image:
    name = format_of(data)
    if name in ("AVIF", "HEIF"):  # their readers have limits of their own
        _check_area(essentials.largest_picture(data), max_pixels)
    try:
        image = _opened(data)
        _check_size(image, min_side, max_pixels, fill)
        if getattr(image, "is_animated", False):
            raise BadImage("animated", "the file holds more than one frame; save the one that is meant")
        if name == "PNG":
            # Pillow skips the checksums of pixel chunks while it decodes.
            PngImageFile(io.BytesIO(data)).verify()
        if name == "JPEG 2000" and image.mode != "I;16" and essentials.deepest_channel(data) > 8:
            # Seen in Pillow 13.0: the brightest values become 0.
            raise BadImage(
                "unsupported", "JPEG 2000 with more than 8 bits a channel, which Pillow reads wrong; save it as PNG"
            )
        image = _deep_pnm(image, data) if name == "PNM" else image
        image.load()
        orientation = _orientation(image)
        image = _to_rgb(image)
        return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image
    except (BadImage, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise BadImage("too_large", str(error)) from error
    except Exception as error:  # damaged bytes reach Pillow's parsers, which raise almost anything
        raise BadImage(*_diagnose(error, name, data)) from error


def resize_shorter(image: Image.Image, side: int) -> Image.Image:
    """Resize so that the shorter side is ``side`` pixels, keeping the aspect.

    As ADM (Dhariwal and Nichol, 2021) prepared ImageNet: halve with a box filter while the shorter side is at least
    twice as long as asked for, then bicubic. Images longer than 8 times their shorter side lose their ends.
    """
    width, height = image.size
    longest = _LONGEST_ASPECT * min(width, height)
    if max(width, height) > longest:
        left, top = max(0, width - longest) // 2, max(0, height - longest) // 2
        box = (left, top, left + min(width, longest), top + min(height, longest))
        image = image.resize((box[2] - box[0], box[3] - box[1]), Image.Resampling.NEAREST, box=box)
    while min(image.size) >= 2 * side:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    shorter = min(image.size)
    size = (round(image.width * side / shorter), round(image.height * side / shorter))
    return image.resize(size, Image.Resampling.BICUBIC)


def center_crop(image: Image.Image, resolution: int) -> Pixels:
    """Return the central square of an RGB image as ADM prepares it, uint8 (resolution, resolution, 3)."""
    pixels = np.asarray(resize_shorter(image, resolution))
    top, left = (pixels.shape[0] - resolution) // 2, (pixels.shape[1] - resolution) // 2
    return pixels[top : top + resolution, left : left + resolution].copy()


def random_resized_crop(image: Image.Image, resolution: int, generator: np.random.Generator, min_area: float) -> Pixels:
    """Return a random part of an RGB image, resized (bicubic) to uint8 (resolution, resolution, 3).

    The part covers a share of the image's area that is uniform in [min_area, 1] and has an aspect that is log-uniform
    in [3/4, 4/3]. Parts that do not fit are drawn again; after ten tries the central part is taken, as large as the
    range of aspects allows.
    """
    width, height = image.size
    for _ in range(10):
        area = width * height * generator.uniform(min_area, 1)
        aspect = math.exp(generator.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(generator.integers(width - w + 1)), int(generator.integers(height - h + 1))
            break
    else:
        w, h = min(width, max(1, round(height * 4 / 3))), min(height, max(1, round(width * 4 / 3)))
        left, top = (width - w) // 2, (height - h) // 2
    size, box = (resolution, resolution), (left, top, left + w, top + h)
    return np.array(image.resize(size, Image.Resampling.BICUBIC, box=box))


def encode_png(pixels: Pixels) -> bytes:
    """Encode uint8 (H, W, 3) without loss; fast rather than small."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def decode_png(data: bytes) -> Pixels:
    """Decode what `encode_png` wrote to uint8 (H, W, 3). Raises DataError: the bytes are damaged, or no RGB image of 8 bits."""
    try:
        image = PngImageFile(io.BytesIO(data))
        if image.mode == "RGB":
            return np.array(image)
    except Exception as error:
        raise DataError(f"A stored image is damaged ({error}): prepare the images again.") from error
    raise DataError(f"A stored image has mode {image.mode} instead of RGB: it was not written by prepare_images.")


def _opened(data: bytes) -> ImageFile.ImageFile:
    """Read the header. Raises BadImage: nothing here reads this format; anything, for damaged bytes."""
    name = format_of(data)
    image = _reader(name, data)(io.BytesIO(data))
    if isinstance(image, TiffImageFile):
        tags = image.tag_v2
        if _DNG_VERSION in tags or (tags.get(_NEW_SUBFILE_TYPE, 0) & 1 and _SUB_IFDS in tags):
            raise BadImage(
                "unsupported", "a camera's raw file, of which only the preview could be read; export an image"
            )
    return image


def _reader(name: str, data: bytes) -> Reader:
    if name == "AVIF":
        if not features.check("avif"):
            raise BadImage(
                "unsupported", "an AVIF file; install Pillow 11.3 or later as PyPI has it: pip install -U pillow"
            )
        from PIL import AvifImagePlugin  # older versions have none

        AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # there is a process for each CPU already
        return AvifImagePlugin.AvifImageFile
    if name == "HEIF":
        try:
            import pillow_heif
        except ImportError as error:
            raise BadImage("unsupported", "a HEIF file; to read it, pip install pillow-heif") from error
        pillow_heif.options.DECODE_THREADS = 1
        return pillow_heif.HeifImageFile
    if name == "JPEG 2000" and not features.check("jpg_2000"):
        raise BadImage("unsupported", "a JPEG 2000 file; install Pillow as PyPI has it: pip install -U pillow")
    if name in _READERS:
        return _READERS[name]
    what = describe(data)
    if name != "unknown" or what == "a TGA file":
        raise BadImage("unsupported", f"{what}; nothing here reads it: save it as PNG or JPEG")
    raise BadImage("unreadable", f"{what or 'no picture'}; it begins with {data[:8]!r}")


def _check_size(image: Image.Image, min_side: int, max_pixels: int, fill: int) -> None:
    width, height = image.size
    if min(width, height) < max(1, min_side):
        raise BadImage("too_small", f"{width} x {height} pixels; the shorter side needs {min_side}")
    _check_area(image.size, max_pixels)
    if min(width, height) < fill:
        raise BadImage(LEFT_OUT, f"{width} x {height} pixels; the shorter side needs {fill}")


def _check_area(size: tuple[int, int], max_pixels: int) -> None:
    if size[0] * size[1] > max_pixels:
        raise BadImage("too_large", f"{size[0]} x {size[1]} pixels, more than {max_pixels}")


def _deep_pnm(image: ImageFile.ImageFile, data: bytes) -> Image.Image:
    """Decode a binary PGM or PPM whose largest value is not 255, in numpy: Pillow takes seconds for a megapixel."""
    codec, _, offset, args = image.tile[0]
    if codec != "ppm" or not isinstance(args, tuple):
        return image
    channels, highest = len(image.getbands()), int(args[1])
    kind = np.dtype(">u2" if highest > 255 else np.uint8)
    count = image.width * image.height * channels
    if len(data) - offset < count * kind.itemsize:
        raise BadImage("truncated", f"{len(data) - offset} bytes of pixels instead of {count * kind.itemsize}")
    values = np.minimum(np.frombuffer(data, kind, count, offset).astype(np.uint32), highest)
    pixels = ((values * 255 + highest // 2) // highest).astype(np.uint8)
    shape = (image.height, image.width, channels)
    return Image.fromarray(pixels.reshape(shape[:2] if channels == 1 else shape))


def _to_rgb(image: Image.Image) -> Image.Image:
    wide_grey = image.mode == "I" and isinstance(image, PngImageFile | PpmImageFile)
    sixteen_bits = wide_grey or image.mode.startswith("I;16")
    if sixteen_bits:  # Pillow's own conversion clips at 255
        wide = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F", "LAB"):
        raise BadImage("unsupported", f"pixels of mode {image.mode} have no defined conversion to 8-bit RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # a damaged EXIF block says nothing about the pixels
        return 1


def _diagnose(error: Exception, name: str, data: bytes) -> tuple[str, str]:
    """Reason and detail for an exception that a reader raised."""
    detail = f"{type(error).__name__}: {error}".strip()
    cut = isinstance(error, EOFError) or any(sign in detail.lower() for sign in _SIGNS_OF_A_CUT)
    boxes = data[4:8] in (b"ftyp", b"jP  ")
    end_mark = data.endswith(b"\xff\xd9")  # of a JPEG 2000 file without boxes
    if cut or (essentials.is_cut(data) if boxes else name == "JPEG 2000" and not end_mark):
        return "truncated", detail
    return ("unsupported" if "cannot handle" in detail else "unreadable"), detail
