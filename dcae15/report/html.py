"""The report page: one self-contained HTML file from a ReportData, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from dcae15.report.data import ReportData
from dcae15.report.headline import headline, references
from dcae15.report.measures import MEASURES, RECONSTRUCTION, STRUCTURE, duration, measure_of, number
from dcae15.report.plots import styles
from dcae15.report.tables import by_prefix, milestone_table, overview

LINKABLE = frozenset({"file", "s3", "gs", "gcs", "abfs", "abfss", "az", "hdfs", "http", "https"})
LARGEST_PNG = 300_000  # bytes; larger pictures (photographs) are embedded as WebP, which keeps the page mailable
WEBP_QUALITY = 88


def render(data: ReportData, pictures: Mapping[str, bytes]) -> str:
    """Return the report as one HTML page: pictures and styles inlined, no scripts, nothing loaded from elsewhere.

    Sections without data are left out or say why; NaN is shown as 'not measured'. All text is escaped.
    """
    embedded = {name: data_uri(png) for name, png in pictures.items()}
    return (
        page_environment()
        .get_template("report.html.j2")
        .render(
            data=data,
            headline=headline(data),
            pictures=embedded,
            grids=_of_arms(embedded, "partial_channels_"),
            channel_means=_of_arms(embedded, "channel_means_"),
            looks=styles(data.arms),
            reconstruction=by_prefix(data.reconstruction, RECONSTRUCTION),
            structure=by_prefix(data.structure, STRUCTURE),
            overview=overview(data),
            generation=_generation(data.generation),
            milestones=milestone_table(data.milestones),
        )
    )


def page_environment() -> Environment:
    """Return where pages are rendered: everything is escaped, and a name that does not exist is an error."""
    environment = Environment(
        loader=PackageLoader("dcae15.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(duration=duration, link=link)
    return environment


def _of_arms(embedded: dict[str, Markup], start: str) -> dict[str, Markup]:
    """Return the pictures whose names begin so, by arm."""
    return {name.removeprefix(start): uri for name, uri in embedded.items() if name.startswith(start)}


def link(uri: str) -> str:
    """Return the address a browser may open for an artifact, or '' where the URI is no address (or a hostile one)."""
    if PurePosixPath(uri).is_absolute():
        return "file://" + quote(uri)
    scheme, found, rest = uri.partition("://")
    if not found or scheme not in LINKABLE:
        return ""
    return uri if scheme in ("http", "https") else f"{scheme}://{quote(rest)}"  # names in buckets are no addresses yet


def data_uri(png: bytes) -> Markup:
    """Return a picture as an address that holds it."""
    kind, content = "png", png
    if len(png) > LARGEST_PNG:
        stream = io.BytesIO()
        Image.open(io.BytesIO(png)).save(stream, format="WEBP", quality=WEBP_QUALITY)
        if stream.tell() < len(png):
            kind, content = "webp", stream.getvalue()
    return Markup(f"data:image/{kind};base64,{base64.b64encode(content).decode()}")


def _generation(generation: dict[str, float]) -> list[dict[str, Any]]:
    """Return the measures of generated images in reading order, each with its reference values."""
    given = {key for key in generation if "_of_" not in key} - {"images"}  # the protocol's count
    keys = [key for key in MEASURES if key in given] + sorted(given - set(MEASURES))
    return [
        {
            "measure": measure_of(key),
            "known": key in MEASURES,
            "value": number(generation[key], measure_of(key).digits),
            "references": {
                what: number(value, measure_of(key).digits) for what, value in references(generation, key).items()
            },
        }
        for key in keys
    ]
