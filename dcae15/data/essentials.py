"""What of a file its pixels need: chunks of PNG and segments of JPEG without the rest; and what other headers say."""

from __future__ import annotations

import re
import struct
import zlib

_PNG = b"\x89PNG\r\n\x1a\n"
# Of what need not be in a PNG file: transparency, orientation, and what makes an animation.
_PNG_USED = {b"tRNS", b"acTL", b"fcTL", b"fdAT"}
_PNG_TEXTS = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")  # the orientation may be there
_PNG_LONGEST_TEXT = 1 << 20  # Pillow refuses the image for a longer one, when packed
_ISPE = re.compile(rb"\0\0\0\x14ispe\0\0\0\0(.{4})(.{4})", re.DOTALL)


def of(data: bytes) -> bytes:
    """Return a PNG or JPEG file without what no pixel needs; the same object where nothing can be left out."""
    if data.startswith(_PNG):
        kept, size = _png_parts(data)
    elif data.startswith(b"\xff\xd8\xff"):
        kept, size = _jpeg_parts(data)
    else:
        return data
    return b"".join(kept) if sum(map(len, kept)) < size else data


def largest_picture(data: bytes) -> tuple[int, int]:
    """Return width and height of the largest picture that an AVIF or HEIF file declares, (1, 1) if it declares none.

    Both are 63 pixels less, as coders fill up blocks of 64.
    """
    sizes = [struct.unpack(">II", width + height) for width, height in _ISPE.findall(data)]
    width, height = max(sizes, key=lambda size: size[0] * size[1], default=(0, 0))
    return max(1, width - 63), max(1, height - 63)


def deepest_channel(data: bytes) -> int:
    """Return the bits of a JPEG 2000 file's deepest channel; 0 where the file does not say."""
    at = data.find(b"\xff\x4f\xff\x51")
    count = int.from_bytes(data[at + 40 : at + 42], "big") if at >= 0 else 0
    return max(((depth & 0x7F) + 1 for depth in data[at + 42 : at + 42 + 3 * count : 3]), default=0)


def is_cut(data: bytes) -> bool:
    """Tell whether a file of boxes (AVIF, HEIF, JPEG 2000) ends before its last box does."""
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        size = int.from_bytes(data[at + 8 : at + 16], "big") if size == 1 else size
        if size == 0:  # up to the end of the file
            return False
        if size < 8:
            return False  # damaged
        at += size
    return at > len(data)


def _png_parts(data: bytes) -> tuple[list[memoryview | bytes], int]:
    """Return the chunks that are used, and the bytes of all of them; a checksum that is wrong stays where it matters."""
    view, at = memoryview(data), len(_PNG)
    kept: list[memoryview | bytes] = [_PNG]
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        chunk = view[at : at + 12 + length]
        needed = not kind[0] & 0x20 or kind in _PNG_USED  # a small first letter marks what may be skipped
        if needed or (kind in (b"eXIf", b"tEXt", b"zTXt", b"iTXt") and _is_sound(chunk) and _tells_orientation(chunk)):
            kept.append(chunk)
        at += len(chunk)
        if kind == b"IEND":
            break
    kept.append(view[at:])
    return kept, len(data)


def _is_sound(chunk: memoryview) -> bool:
    return zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")


def _tells_orientation(chunk: memoryview) -> bool:
    kind, body = bytes(chunk[4:8]), bytes(chunk[8:-4])
    if kind == b"eXIf":
        return True
    if not body.startswith(_PNG_TEXTS):
        return False
    rest = body.partition(b"\0")[2]
    compressed = kind == b"zTXt" or (kind == b"iTXt" and rest[:1] == b"\1")
    if not compressed:
        return len(rest) < _PNG_LONGEST_TEXT
    packed = rest[1:] if kind == b"zTXt" else rest[2:].split(b"\0", 2)[-1]
    try:
        unpacker = zlib.decompressobj()
        unpacker.decompress(packed, _PNG_LONGEST_TEXT)
    except zlib.error:
        return False
    return not unpacker.unconsumed_tail


def _jpeg_parts(data: bytes) -> tuple[list[memoryview | bytes], int]:
    """Return the segments that are used, and the bytes of all of them."""
    view, at = memoryview(data), 2
    kept: list[memoryview | bytes] = [data[:2]]
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in (0xFF, 0x01) or 0xD0 <= marker <= 0xD9:  # filling, and marks that stand alone
            kept.append(view[at : at + (1 if marker == 0xFF else 2)])
            at += 1 if marker == 0xFF else 2
            continue
        if marker == 0xDA:  # the pixels begin
            break
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : end]
        # What says the colours and the orientation. libjpeg ignores shorter ones, and Pillow falls over them.
        used = {
            0xE0: body.startswith(b"JFIF\0") and len(body) >= 14,
            0xE1: body.startswith(b"Exif\0\0"),
            0xEE: body.startswith(b"Adobe") and len(body) >= 12,
        }
        if used.get(marker, not (0xE0 <= marker <= 0xEF or marker == 0xFE)):
            kept.append(view[at:end])
        at = end
    kept.append(view[at:])
    return kept, len(data)
