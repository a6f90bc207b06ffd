"""The Python blocks of docs/, to be run as a reader would."""

from __future__ import annotations

import re
from typing import Any

from tests.scripts import REPOSITORY

PLACE = "/data/latents/0123456789abcdef"
"""Stands in the documentation for a latent set."""


def blocks(page: str) -> list[tuple[str, str]]:
    """Return (the last title above, code) of each Python block of a page of docs/."""
    text = (REPOSITORY / "docs" / page).read_text()
    found, title = [], ""
    for match in re.finditer(r"^#+ (?P<title>[^\n]+)$|^```python\n(?P<code>.*?)^```", text, re.MULTILINE | re.DOTALL):
        if match["title"]:
            title = match["title"]
        else:
            found.append((title, match["code"]))
    return found


def run(code: str, latents: str) -> dict[str, Any]:
    """Run a block on a latent set; return its names."""
    assert PLACE in code, "a block must stand for itself"
    names: dict[str, Any] = {}
    exec(compile(code.replace(PLACE, latents), "docs", "exec"), names)
    return names
