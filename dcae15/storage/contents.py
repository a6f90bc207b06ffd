"""What lies in the place of a file: pointers that were never replaced, pages of errors, other kinds of files."""

from __future__ import annotations

import re

HEAD_BYTES = 1024
"""So much of a file's beginning tells what it is."""

_LFS = b"version https://git-lfs.github.com/spec/v1"
_SHOWN = 60  # characters of a text
_MAGICS = (  # offset, bytes there, what the file is
    (0, b"\x1f\x8b", "compressed with gzip: unpack it first"),
    (0, b"\xfd7zXZ\x00", "compressed with xz: unpack it first"),
    (0, b"BZh", "compressed with bzip2: unpack it first"),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd: unpack it first"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it first"),
    (257, b"ustar", "a tar archive: unpack it first"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (0, b"GGUF", "a GGUF file"),
    (0, b"\x93NUMPY", "an array of numpy (.npy)"),
    (0, b"PAR1", "a Parquet file"),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"%PDF", "a PDF document"),
)


def pointer(head: bytes) -> str:
    """Say that a file is the pointer of git-lfs or git-annex to one that is not there, and what fetches it; '' if it is none.

    Args:
        head: the beginning of the file, `HEAD_BYTES` or more; of a shorter file all of it.
    """
    if head.startswith(_LFS):
        size = re.search(rb"^size (\d+)$", head, re.MULTILINE)
        of = f" of {int(size[1]):,} bytes" if size else ""
        return f"a git-lfs pointer to a file{of} that was not fetched: run `git lfs pull` in its repository"
    if re.match(rb"(\.\./)*(\.git)?/annex/objects/", head):
        return "a git-annex pointer to a file that was not fetched: run `git annex get` in its repository"
    return ""


def stand_in(head: bytes) -> str:
    """Say what a file is that should be another one: '' where that cannot be told from its beginning.

    It knows empty files, pointers (see `pointer`), web pages and errors that were saved as if they were the file, other texts, and
    common archives.

    Args:
        head: the beginning of the file, `HEAD_BYTES` or more; of a shorter file all of it.

    Returns:
        The rest of a sentence that begins with "it is".
    """
    if not head.strip(b"\0"):
        return f"empty{f' (its first {len(head):,} bytes are 0)' if head else ''}: fetch or copy it again"
    if found := pointer(head):
        return found
    for offset, magic, what in _MAGICS:
        if head[offset : offset + len(magic)] == magic:
            return what
    text = _text(head[:HEAD_BYTES])
    start = text.lower()
    if start.startswith(("<!doctype html", "<html", "<head")):
        title = re.search(r"<title[^>]*>\s*([^<]*)", text, re.IGNORECASE)
        said = f" titled '{' '.join(title[1].split())[:_SHOWN]}'" if title and title[1].strip() else ""
        return f"a web page{said}, not what it links to: fetch the file itself (hubs have a download link, /resolve/ not /blob/)"
    if start.startswith("<?xml") or start.startswith("<error"):
        code = re.search(r"<Code>([^<]*)", text)
        said = f" with the error {code[1]}" if code else ""
        return f"the XML answer of a server{said}, not the file: fetch it again"
    if start.startswith(("{", "[")):
        return f"JSON that begins with {_shown(text)}; if that is an error of a server, fetch the file again"
    return f"a text that begins with {_shown(text)}" if text else ""


def _text(head: bytes) -> str:
    """Return the text that a file begins with, or '' where it is none."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return head.decode("utf-16", "ignore").strip()
    try:
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if len(head) - error.start >= 4:  # else a character was cut in two
            return ""
        text = head[: error.start].decode("utf-8-sig")
    return "" if re.search(r"[\x00-\x08\x0e-\x1a\x7f]", text) else text.strip()


def _shown(text: str) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= _SHOWN else line[: _SHOWN - 3] + "...")
