"""The report page: one self-contained HTML file from a ReportData, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
import io
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from dcae15.report.data import ReportData, Rows
from dcae15.report.figures import colour, pictures
from dcae15.report.headline import compare, headline, references
from dcae15.report.measures import MEASURES, Measure, duration, measured, number

LINKABLE = frozenset({"file", "s3", "gs", "gcs", "abfs", "abfss", "az", "hdfs", "http", "https"})
LARGEST_PNG = 300_000  # bytes; larger pictures (photographs) are embedded as WebP, which keeps the page mailable
WEBP_QUALITY = 88


def render(data: ReportData) -> str:
    """Return the report as one HTML page: pictures and styles inlined, no scripts, nothing loaded from elsewhere.

    Sections without data are left out or say why; NaN is shown as 'not measured'. All text is escaped.

    Raises:
        DataError: Pictures of ``data`` do not fit each other.
    """
    environment = Environment(
        loader=PackageLoader("dcae15.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(duration=duration, link=link)
    embedded = {name: _data_uri(png) for name, png in pictures(data).items()}
    start = "partial_channels_"
    return environment.get_template("report.html.j2").render(
        data=data,
        headline=headline(data),
        pictures=embedded,
        grids={name.removeprefix(start): uri for name, uri in embedded.items() if name.startswith(start)},
        colour=colour,
        measures=MEASURES,
        reconstruction=_by_prefix(data.reconstruction, ("psnr", "ssim", "frechet_distance", "class_accuracy")),
        structure=_by_prefix(data.structure, ("low_frequency_share", "high_frequency_share", "explained_share")),
        generation=_generation(data.generation),
    )


def link(uri: str) -> str:
    """Return the address a browser may open for an artifact, or '' where the URI is no address (or a hostile one)."""
    if PurePosixPath(uri).is_absolute():
        return "file://" + quote(uri)
    return uri if uri.partition("://")[0] in LINKABLE else ""


def _data_uri(png: bytes) -> Markup:
    kind, content = "png", png
    if len(png) > LARGEST_PNG:
        stream = io.BytesIO()
        Image.open(io.BytesIO(png)).save(stream, format="WEBP", quality=WEBP_QUALITY)
        if stream.tell() < len(png):
            kind, content = "webp", stream.getvalue()
    return Markup(f"data:image/{kind};base64,{base64.b64encode(content).decode()}")


def _measure(key: str) -> Measure:
    return MEASURES.get(key) or Measure(key.replace("_", " ").capitalize(), "", digits=3)


def _by_prefix(arms: dict[str, Rows], keys: tuple[str, ...]) -> list[dict[str, Any]]:
    """Lay the rows of all arms out as one table per measure that was measured: a line per prefix, a column per arm."""
    names = [arm for arm, rows in arms.items() if rows]
    by_prefix = {arm: {int(row["prefix"]): row for row in arms[arm]} for arm in names}
    prefixes = sorted({prefix for rows in by_prefix.values() for prefix in rows})
    tables = []
    for key in keys:
        measure = _measure(key)
        compared = key in MEASURES and {"structured", "baseline"} <= set(names)
        lines = []
        for prefix in prefixes:
            cells = {arm: by_prefix[arm].get(prefix, {}).get(key, float("nan")) for arm in names}
            line: dict[str, Any] = {"prefix": prefix, "cells": [number(cells[arm], measure.digits) for arm in names]}
            if compared:
                gap = cells["structured"] - cells["baseline"]
                line["difference"] = (
                    f"{gap:+.{measure.digits}f}".replace("-", "\N{MINUS SIGN}") if measured(gap) else "–"
                )
                line["tone"] = compare(measure, cells["structured"], cells["baseline"])[1]
            lines.append(line)
        if any(measured(rows[prefix].get(key)) for rows in by_prefix.values() for prefix in rows):
            tables.append({"measure": measure, "arms": names, "compared": compared, "lines": lines})
    return tables


def _generation(generation: dict[str, float]) -> list[dict[str, Any]]:
    """Return the measures of generated images in reading order, each with its reference values."""
    given = {key for key in generation if "_of_" not in key}
    keys = [key for key in MEASURES if key in given] + sorted(given - set(MEASURES))
    return [
        {
            "measure": _measure(key),
            "known": key in MEASURES,
            "value": number(generation[key], _measure(key).digits),
            "references": {
                what: number(value, _measure(key).digits) for what, value in references(generation, key).items()
            },
        }
        for key in keys
    ]
