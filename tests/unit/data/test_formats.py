"""What a file is, by its first bytes."""

from __future__ import annotations

import io
import time

import pytest
from PIL import Image

from dcae15.data import formats


def saved(kind, mode="RGB", **options):
    buffer = io.BytesIO()
    Image.new(mode, (20, 30), 1).save(buffer, kind, **options)
    return buffer.getvalue()


def box(*brands):
    body = brands[0] + b"\0\0\0\0" + b"".join(brands[1:])
    return (len(body) + 8).to_bytes(4, "big") + b"ftyp" + body + b"\0\0\0\x20meta"


READABLE = {
    "JPEG": [saved("JPEG"), saved("MPO"), b"\xff\xd8\xff\xe1\0\0Exif"],
    "PNG": [saved("PNG")],
    "WEBP": [saved("WEBP")],
    "GIF": [saved("GIF", "P"), b"GIF87a\0\0"],
    "BMP": [saved("BMP")],
    "TIFF": [saved("TIFF"), saved("TIFF", big_tiff=True), b"MM\0*\0\0\0\x08", b"MM\0+\0\x08"],
    "AVIF": [saved("AVIF"), box(b"mif1", b"mif1", b"avif", b"miaf"), box(b"avis", b"msf1")],
    "HEIF": [box(b"heic", b"mif1", b"heic"), box(b"mif1", b"mif1", b"heic"), box(b"msf1", b"hevc"), box(b"heix")],
    "JPEG 2000": [saved("JPEG2000"), saved("JPEG2000", no_jp2=True)],
    "PNM": [saved("PPM"), saved("PPM", "L"), saved("PPM", "1"), b"P3 # a comment\n# more\n2 2", b"P2\n#" + b"x" * 900],
}
NAMED = {
    "JPEG XL": [b"\xff\x0a\x10", b"\0\0\0\x0cJXL \r\n\x87\n\0\0"],
    "Photoshop": [b"8BPS\0\x01\0\0"],
    "SVG": [
        b"<svg xmlns='x'>",
        b'<?xml version="1.0"?>\n<!-- Created with a > b -->\n\n<svg\n',
        b"\xef\xbb\xbf <!DOCTYPE svg PUBLIC ",
    ],
    "PDF": [b"%PDF-1.4\n"],
    "EPS": [b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\xc5\xd0\xd3\xc6\x1e\0"],
    "OpenEXR": [b"\x76\x2f\x31\x01\x02\0"],
    "Canon CR2": [b"II*\0\x10\0\0\0CR\x02\0"],
    "Canon CR3": [box(b"crx ", b"crx ", b"isom")],
    "Fujifilm RAF": [b"FUJIFILMCCD-RAW 0201"],
    "PFM": [saved("PPM", "F")],
    "PAM": [b"P7\nWIDTH 3\n"],
    "ICO": [saved("ICO")],
    "DDS": [saved("DDS")],
    "ICNS": [saved("ICNS")],
    "QOI": [saved("QOI")],
    "DICOM": [bytes(128) + b"DICM"],
}
OTHERS = {
    "": [b"", b"P1 is the first", b"BMW is a car and not a bitmap", b"II is two", b"Plain text\n", bytes(600), b"P5"],
    "an HTML page": [b"<html>404</html>", b"\n<!doctype HTML><p>", b"<!-- a --><!-- b --><head>"],
    "a pointer of Git LFS (run `git lfs pull`)": [b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n"],
    "an XML text": [b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code>'],
    "a JSON text": [b'{"label": 3}', b"[1, 2]"],
    "a video or sound": [box(b"isom", b"mp41"), box(b"qt  "), b"RIFF\0\0\0\0AVI LIST", b"\x1a\x45\xdf\xa3"],
    "a TGA file": [saved("TGA")],
    "a ZIP archive": [b"PK\x03\x04\x14"],
}


@pytest.mark.parametrize("name", READABLE)
def test_what_is_read(name):
    for data in READABLE[name]:
        assert formats.format_of(data) == formats.format_of(data[: formats.HEAD_BYTES]) == name, data[:40]
    assert formats.is_readable(name)


@pytest.mark.parametrize("name", NAMED)
def test_pictures_that_can_only_be_named(name):
    for data in NAMED[name]:
        assert formats.format_of(data) == name, data[:40]
        assert formats.describe(data) in {f"a {name} file", f"an {name} file"}
    assert not formats.is_readable(name)


@pytest.mark.parametrize("what", OTHERS)
def test_what_is_no_picture(what):
    for data in OTHERS[what]:
        assert formats.format_of(data) == "unknown", data[:40]
        assert formats.describe(data) == what, data[:40]
    assert not formats.is_readable("unknown")


def test_names_are_known_for_one_reason_each():
    assert READABLE.keys() == formats.READABLE


def test_hostile_beginnings_take_no_time():
    begun = time.perf_counter()
    for data in (
        b"<!---->" * 100,
        b" " * 600,
        b"P1 " + b"#\n" * 300,
        b"<?xml>" * 100,
        b"<" * 600,
        b"P6" + b"\n#" * 300,
    ):
        assert formats.describe(data) in {"", "an XML text", "a PNM file"}
    assert time.perf_counter() - begun < 1
