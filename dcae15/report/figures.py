"""The figures of a report: PNG bytes from its numbers and pictures."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from dcae15.report.data import ReportData, Rows
from dcae15.report.measures import MEASURES, RECONSTRUCTION
from dcae15.report.mosaics import channel_mean_grid, partial_channel_grid, sample_grid
from dcae15.report.plots import Line, Panel, Style, draw_panels, styles

GRID_COLUMNS = 8  # at most so many prefixes are shown in a partial-channel grid
CHANNEL_MEAN_ROWS = 4  # images whose channel means are shown
FIRST_SCALARS = ("loss", "learning_rate", "gradient_norm", "images_per_second", "data_wait")


Looks = Mapping[str, Style]  # of all arms of the report, so that each looks the same in every figure


def reconstruction_curves(reconstruction: Mapping[str, Rows], looks: Looks) -> bytes:
    """Plot the quality of reconstructions over the number of channels kept, one line per arm.

    Measures that no arm has are left out. Returns PNG bytes.
    """
    return draw_panels(
        [_measure_panel(reconstruction, key, looks) for key in RECONSTRUCTION], columns=2, width=6.6, height=2.5
    )


def structure_curves(structure: Mapping[str, Rows], looks: Looks) -> bytes:
    """Plot what the first c channels hold: shares of low and high frequencies, a linear probe, the effective rank.

    What no arm has is left out. Returns PNG bytes.
    """
    shares = [
        _over_prefix(f"{arm}, {band}", rows, f"{band}_frequency_share", replace(looks[arm], dash=dash))
        for arm, rows in structure.items()
        for band, dash in (("low", "-"), ("high", "--"))
    ]
    panels = [
        Panel("Low and high frequencies restored", shares, "channels kept, c", _ticks(structure), from_zero=True),
        *(_measure_panel(structure, key, looks) for key in ("probe_accuracy", "effective_rank")),
    ]
    return draw_panels(panels, columns=3, width=9.9, height=2.5)


def channel_curves(channels: Mapping[str, Rows], looks: Looks) -> bytes:
    """Plot, for each latent channel, what it changes in the image in low and high frequencies, and its energy.

    The changes are root mean squares in grey levels (0 to 255). Returns PNG bytes.
    """
    titles = {
        "image_low": "Objects: low-frequency change, grey levels",
        "image_high": "Detail: high-frequency change, grey levels",
        "std": "Standard deviation of the channel",
    }
    panels = []
    for key, title in titles.items():
        lines = []
        for arm, rows in channels.items():
            values = _values(rows, key)
            values = values if key == "std" else np.sqrt(values)
            lines.append(Line(arm, _values(rows, "channel") + 1, values, looks[arm].colour, looks[arm].marker))
        panels.append(Panel(title, lines, "channel", from_zero=True))
    return draw_panels(panels, columns=3, width=9.9, height=2.5)


def milestone_curves(milestones: Rows) -> bytes:
    """Plot what was measured of generated images over the images that the denoiser had seen. Returns PNG bytes."""
    found = {key for row in milestones for key in row}
    panels, colour = [], styles(["diffusion"])["diffusion"].colour
    for key in (key for key in MEASURES if key in found):
        line = Line(MEASURES[key].title, _values(milestones, "images"), _values(milestones, key), colour, "o")
        panels.append(Panel(MEASURES[key].title, [line], "images seen"))
    return draw_panels(panels, columns=4, width=11.6, height=2.1, legend=False)


def curves(histories: Mapping[str, Rows]) -> bytes:
    """Plot every scalar of training histories over the images seen, one line per history. Returns PNG bytes."""
    found = {key for rows in histories.values() for row in rows for key in row} - {"images", "phase"}
    keys = [key for key in FIRST_SCALARS if key in found] + sorted(found - set(FIRST_SCALARS))
    panels, looks = [], styles(histories)
    for key in keys:
        lines = []
        for label, rows in histories.items():
            having = [row for row in rows if key in row]  # what is logged rarely is still one connected line
            lines.append(Line(label, _values(having, "images"), _values(having, key), looks[label].colour))
        panels.append(Panel(key.replace("_", " "), lines, "images seen", from_zero=key == "learning_rate"))
    return draw_panels(panels, columns=2, width=5.8, height=1.75)


def pictures(data: ReportData) -> dict[str, bytes]:
    """Return every picture of the report as PNG bytes under its name; what has no data is left out.

    Names: 'partial_channels_<arm>', 'channel_means_<arm>', 'reconstruction', 'structure', 'channels', 'samples',
    'milestones', and those of the histories. Grids show at most eight prefixes, evenly chosen, always the first and the last.
    """
    looks = styles(data.arms)
    samples = {name: images for name, images in data.samples.items() if len(images)}
    drawn: dict[str, bytes] = {}
    for arm, (inputs, reconstructions) in data.grids.items():
        if len(inputs):
            drawn[f"partial_channels_{arm}"] = _grid_png(
                partial_channel_grid, inputs, reconstructions, data.prefixes[arm]
            )
    for arm, (inputs, maps) in data.channel_means.items():
        if len(inputs):
            shown = slice(CHANNEL_MEAN_ROWS)
            drawn[f"channel_means_{arm}"] = _grid_png(
                channel_mean_grid, inputs[shown], maps[:, shown], data.prefixes[arm]
            )
    for name, draw, by_arm in (
        ("reconstruction", reconstruction_curves, data.reconstruction),
        ("structure", structure_curves, data.structure),
        ("channels", channel_curves, data.channels),
    ):
        if arms := {arm: rows for arm, rows in by_arm.items() if rows}:
            drawn[name] = draw(arms, looks)
    if samples:
        drawn["samples"] = _png(sample_grid(samples))
    if data.milestones:
        drawn["milestones"] = milestone_curves(data.milestones)
    for name, histories in data.histories.items():
        if lines := {label: rows for label, rows in histories.items() if rows}:
            drawn[name] = curves(lines)
    return drawn


def _grid_png(
    draw: Callable[[np.ndarray, np.ndarray, Sequence[int]], np.ndarray],
    inputs: np.ndarray,
    columns: np.ndarray,
    prefixes: Sequence[int],
) -> bytes:
    if len(prefixes) > GRID_COLUMNS and len(columns) == len(prefixes):
        kept = np.linspace(0, len(prefixes) - 1, GRID_COLUMNS).round().astype(int)
        columns, prefixes = columns[kept], [prefixes[k] for k in kept]
    return _png(draw(inputs, columns, prefixes))


def _png(picture: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="PNG", optimize=True)
    return stream.getvalue()


def _values(rows: Rows, key: str) -> np.ndarray:
    return np.array([row.get(key, np.nan) for row in rows], dtype=float)


def _ticks(arms: Mapping[str, Rows]) -> list[int]:
    prefixes = sorted({int(row["prefix"]) for rows in arms.values() for row in rows})
    return prefixes if len(prefixes) <= 9 else []


def _measure_panel(arms: Mapping[str, Rows], key: str, looks: Looks) -> Panel:
    """Return the panel of one measure over the number of channels, one line per arm."""
    lines = [_over_prefix(arm, rows, key, looks[arm]) for arm, rows in arms.items()]
    return Panel(MEASURES[key].title, lines, "channels kept, c", _ticks(arms))


def _over_prefix(name: str, rows: Rows, key: str, look: Style) -> Line:
    return Line(name, _values(rows, "prefix"), _values(rows, key), look.colour, look.marker, look.dash)
