"""What all benchmarks share: the spread of a measurement, and how results are printed and kept."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch


def spread(values: Sequence[float], form: str = ",.4g") -> str:
    """Return minimum, median and maximum as text."""
    return ", ".join(format(value, form) for value in (min(values), statistics.median(values), max(values)))


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Return the ratio of the medians, and the range of the rounds' ratios, as text."""
    pairs = [a / b for a, b in zip(ours, theirs, strict=True)]
    middle = statistics.median(ours) / statistics.median(theirs)
    return f"{middle:.3g} ({min(pairs):.3g} to {max(pairs):.3g})"


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def keep(numbers: Any, file: Path | None, **about: object) -> None:
    """Write all numbers to a JSON file, if one was asked for, with the date and what they depend on."""
    if file:
        versions = {"python": platform.python_version(), "torch": torch.__version__}
        facts = {"date": time.strftime("%Y-%m-%d"), "cpus": os.cpu_count(), "load": os.getloadavg(), **versions}
        file.write_text(json.dumps({**facts, **about, "numbers": numbers}, indent=2) + "\n")
