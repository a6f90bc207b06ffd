"""What a file is, by its first bytes: the picture formats that `dcae15.data.images` reads, and others that it can only name."""

from __future__ import annotations

import re

HEAD_BYTES = 512
"""So many first bytes of a file tell its format."""

READABLE = frozenset({"JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF", "JPEG 2000", "PNM"})
"""Formats that are decoded. AVIF and JPEG 2000 need a Pillow that was built with them, HEIF needs pillow-heif."""

_TIFF = rb"II\*\0|II\0\*|MM\0\*|MM\*\0|II\+\0|MM\0\+"  # the last two are BigTIFF
_BMP = rb"BM.{12}(?:[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0)"  # the length of the second header
_PNM = rb"P[1-6]\s(?:\s|#[^\r\n]*[\r\n])*+(?:\d|#[^\r\n]*\Z)"
# What may stand before the first element of a page. It never backtracks: many comments would take forever.
_PROLOG = rb"(?:\xef\xbb\xbf)?(?><!--.*?-->|<\?xml[^>]*>|\s)*+"
_SVG = _PROLOG + rb"(?:<svg[\s>]|<!DOCTYPE\s+svg)"
_FORMATS = [
    (name, re.compile(pattern, re.DOTALL))
    for name, pattern in (
        ("JPEG", rb"\xff\xd8\xff"),
        ("PNG", rb"\x89PNG\r\n\x1a\n"),
        ("WEBP", rb"RIFF.{4}WEBP"),
        ("GIF", rb"GIF8[79]a"),
        ("BMP", _BMP),
        ("Canon CR2", rb"(?:II\*\0|MM\0\*).{4}CR"),  # a TIFF file, but the first picture in it is a preview
        ("TIFF", _TIFF),
        ("JPEG 2000", rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"),
        ("PNM", _PNM),
        # Pictures that nothing here decodes.
        ("JPEG XL", rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n"),
        ("JPEG XR", rb"II\xbc[\0\x01]"),
        ("PAM", rb"P7\s"),
        ("PFM", rb"P[Ff]\s"),
        ("Photoshop", rb"8BP[SB]\0[\x01\x02]"),
        ("SVG", _SVG),
        ("PDF", rb"%PDF-"),
        ("EPS", rb"%!PS|\xc5\xd0\xd3\xc6"),
        ("OpenEXR", rb"\x76\x2f\x31\x01"),
        ("Radiance HDR", rb"#\?(?:RADIANCE|RGBE)\s"),
        ("Olympus ORF", rb"IIR[OS]|MMOR"),
        ("Panasonic RW2", rb"IIU\0"),
        ("Fujifilm RAF", rb"FUJIFILMCCD-RAW"),
        ("Sigma X3F", rb"FOVb"),
        ("Minolta MRW", rb"\0MRM"),
        ("ICO", rb"\0\0[\x01\x02]\0[\x01-\xff]\0.{3}\0"),
        ("ICNS", rb"icns\0"),
        ("DDS", rb"DDS \x7c"),
        ("QOI", rb"qoif.{8}[\x03\x04][\0\x01]"),
        ("MNG", rb"[\x8a\x8b](?:MNG|JNG)\r\n\x1a\n"),
        ("GIMP XCF", rb"gimp xcf "),
        ("FITS", rb"SIMPLE  = "),
        ("DICOM", rb".{128}DICM"),
        ("DPX", rb"SDPX|XPDS"),
        ("DjVu", rb"AT&TFORM"),
        ("FLIF", rb"FLIF[1-]"),
        ("BPG", rb"BPG\xfb"),
        ("WMF", rb"\xd7\xcd\xc6\x9a"),
        ("EMF", rb"\x01\0\0\0.{36} EMF"),
    )
]

# Boxed files say by their brands what they are; the first row that has one of them decides, so that an AVIF file with
# the general brands of HEIF is an AVIF file.
_BRANDS: tuple[tuple[str, frozenset[bytes]], ...] = (
    ("Canon CR3", frozenset({b"crx "})),
    ("AVIF", frozenset({b"avif", b"avis"})),
    ("HEIF", frozenset(b"heic heix heim heis hevc hevx hevm hevs mif1 mif2 msf1 jpeg avci avcs vvic".split())),
)

_NO_PICTURES = [
    (what, re.compile(pattern, re.DOTALL | re.IGNORECASE))
    for what, pattern in (
        ("an HTML page", _PROLOG + rb"(?:<!DOCTYPE\s+html|<html|<head|<body)"),
        ("a pointer of Git LFS (run `git lfs pull`)", rb"version https://git-lfs"),
        ("an XML text", rb"(?:\xef\xbb\xbf)?\s*<\?xml|<Error>"),
        ("a JSON text", rb"\s*[{\[]\s*[\"{\[\]}\d]"),
        ("a video or sound", rb".{4}ftyp|\x1a\x45\xdf\xa3|RIFF.{4}AVI |\0\0\x01[\xb3\xba]|.{4}(?:moov|mdat|wide)"),
        ("a ZIP archive", rb"PK\x03\x04"),
        ("a gzip file", rb"\x1f\x8b\x08"),
        ("a tar", rb".{257}ustar"),
        ("a NumPy array", rb"\x93NUMPY"),
        ("a file of macOS that goes with another (AppleDouble)", rb"\0\x05\x16[\0\x07]"),
    )
]


def format_of(head: bytes) -> str:
    """Return the format of a picture by its first bytes (`HEAD_BYTES`, or the whole file): a name, "unknown" for others.

    Names that are not in `READABLE` are of pictures and drawings that cannot be decoded.
    """
    head = head[:HEAD_BYTES]
    if head[4:8] == b"ftyp":
        end = max(16, min(int.from_bytes(head[:4], "big"), len(head)))
        brands = {head[8:12], *(head[i : i + 4] for i in range(16, end, 4))}
        return next((name for name, known in _BRANDS if brands & known), "unknown")
    return next((name for name, pattern in _FORMATS if pattern.match(head)), "unknown")


def is_readable(name: str) -> bool:
    """Tell whether files of a format, named as `format_of` does, are decoded, if what reads them is installed."""
    return name in READABLE


def describe(data: bytes) -> str:
    """Say what a file is that is not decoded: "a Photoshop file", "an HTML page"; empty for what is not known."""
    name = format_of(data)
    if name != "unknown":
        return f"{'an' if name[0] in 'AEIO' or name in ('SVG', 'FITS', 'FLIF') else 'a'} {name} file"
    if data[-18:-2] == b"TRUEVISION-XFILE":
        return "a TGA file"
    return next((what for what, pattern in _NO_PICTURES if pattern.match(data[:HEAD_BYTES])), "")
