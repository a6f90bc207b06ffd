"""The figures of a report: PNG bytes from plain numbers, with one colour per arm, without global plotting state."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from PIL import Image

from dcae15.report.data import ReportData, Rows
from dcae15.report.measures import MEASURES
from dcae15.report.mosaics import partial_channel_grid, sample_grid

COLOURS = {"structured": "#0072b2", "baseline": "#d55e00", "diffusion": "#00795c"}  # told apart by the colour-blind
OTHER_COLOURS = ("#7a5195", "#8c6d1f", "#56616c")
MARKERS = {"structured": "o", "baseline": "s"}
INK, QUIET, LINES = "#282c34", "#5b6470", "#d9dde3"
DOTS_PER_INCH = 160
GRID_COLUMNS = 8  # at most so many prefixes are shown in a partial-channel grid
FIRST_SCALARS = ("loss", "learning_rate", "gradient_norm", "images_per_second", "data_wait")


def colour(name: str) -> str:
    """Return the colour of an arm: always the same one, in every figure."""
    return COLOURS.get(name) or OTHER_COLOURS[sum(name.encode()) % len(OTHER_COLOURS)]


@dataclass(frozen=True)
class _Line:
    """One line of a panel; NaN leaves a gap."""

    name: str
    x: np.ndarray
    y: np.ndarray
    colour: str
    marker: str = ""
    style: str = "-"


@dataclass(frozen=True)
class _Panel:
    """One set of axes."""

    title: str
    lines: list[_Line]
    x_label: str
    x_ticks: Sequence[int] = ()
    from_zero: bool = False


def reconstruction_curves(reconstruction: Mapping[str, Rows]) -> bytes:
    """Plot PSNR, SSIM, Fréchet distance and class accuracy over the number of channels kept, one line per arm.

    Measures that no arm has are left out. Returns PNG bytes.
    """
    panels = []
    for key in ("psnr", "ssim", "frechet_distance", "class_accuracy"):
        measure = MEASURES[key]
        lines = [_over_prefix(arm, rows, key) for arm, rows in reconstruction.items()]
        unit = f"{measure.unit}, " if measure.unit else ""
        panels.append(
            _Panel(f"{measure.label} ({unit}{measure.direction})", lines, "channels kept, c", _ticks(reconstruction))
        )
    return _figure(panels, columns=2, width=6.6, height=2.5)


def structure_curves(structure: Mapping[str, Rows]) -> bytes:
    """Plot the shares that the first c channels restore: of low and high frequencies, and of everything.

    Returns PNG bytes.
    """
    ticks = _ticks(structure)
    shares = [
        _over_prefix(arm, rows, f"{band}_frequency_share", f"{arm}, {band}", style)
        for arm, rows in structure.items()
        for band, style in (("low", "-"), ("high", "--"))
    ]
    explained = [_over_prefix(arm, rows, "explained_share") for arm, rows in structure.items()]
    panels = [
        _Panel("Share of low and high frequencies", shares, "channels kept, c", ticks, from_zero=True),
        _Panel("Share of all image energy", explained, "channels kept, c", ticks, from_zero=True),
    ]
    return _figure(panels, columns=2, width=6.6, height=2.5)


def channel_energy(energy: Mapping[str, Sequence[float]]) -> bytes:
    """Plot the standard deviation of each latent channel, one line per arm. Returns PNG bytes."""
    lines = [
        _Line(arm, np.arange(1, len(values) + 1), np.asarray(values, dtype=float), colour(arm), MARKERS.get(arm, "^"))
        for arm, values in energy.items()
    ]
    panel = _Panel("Standard deviation of each channel", lines, "channel", from_zero=True)
    return _figure([panel], columns=1, width=3.3, height=2.5)


def curves(histories: Mapping[str, Rows]) -> bytes:
    """Plot every scalar of the training histories over the images seen, one line per history. Returns PNG bytes."""
    found = {key for rows in histories.values() for row in rows for key in row} - {"images", "phase"}
    keys = [key for key in FIRST_SCALARS if key in found] + sorted(found - set(FIRST_SCALARS))
    panels = []
    for key in keys:
        lines = []
        for name, rows in histories.items():
            label = "structured" if name == "autoencoder" else name
            having = [row for row in rows if key in row]  # what is logged rarely is still one connected line
            lines.append(_Line(label, _values(having, "images"), _values(having, key), colour(label)))
        panels.append(_Panel(key.replace("_", " "), lines, "images seen"))
    return _figure(panels, columns=2, width=5.8, height=1.75)


def pictures(data: ReportData) -> dict[str, bytes]:
    """Return every picture of the report as PNG bytes under its name; what has no data is left out.

    Names: 'partial_channels_<arm>', 'reconstruction', 'structure', 'channel_energy', 'samples', 'training_autoencoder',
    'training_diffusion'. Grids show at most eight prefixes, evenly chosen, always the first and the last.
    """
    autoencoders = {name: rows for name, rows in data.histories.items() if name != "diffusion" and rows}
    diffusion = {name: rows for name, rows in data.histories.items() if name == "diffusion" and rows}
    arms = {arm: rows for arm, rows in data.reconstruction.items() if rows}
    structure = {arm: rows for arm, rows in data.structure.items() if rows}
    energy = {arm: values for arm, values in data.channel_energy.items() if values}
    samples = {name: images for name, images in data.samples.items() if len(images)}
    drawn: dict[str, bytes] = {}
    for arm, (inputs, reconstructions) in data.grids.items():
        if len(inputs):
            drawn[f"partial_channels_{arm}"] = _grid_png(inputs, reconstructions, data.prefixes)
    if arms:
        drawn["reconstruction"] = reconstruction_curves(arms)
    if structure:
        drawn["structure"] = structure_curves(structure)
    if energy:
        drawn["channel_energy"] = channel_energy(energy)
    if samples:
        drawn["samples"] = _png(sample_grid(samples))
    if autoencoders:
        drawn["training_autoencoder"] = curves(autoencoders)
    if diffusion:
        drawn["training_diffusion"] = curves(diffusion)
    return drawn


def _grid_png(inputs: np.ndarray, reconstructions: np.ndarray, prefixes: list[int]) -> bytes:
    if len(prefixes) > GRID_COLUMNS and len(reconstructions) == len(prefixes):
        kept = np.linspace(0, len(prefixes) - 1, GRID_COLUMNS).round().astype(int)
        reconstructions, prefixes = reconstructions[kept], [prefixes[k] for k in kept]
    return _png(partial_channel_grid(inputs, reconstructions, prefixes))


def _png(picture: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="PNG", optimize=True)
    return stream.getvalue()


def _values(rows: Rows, key: str) -> np.ndarray:
    return np.array([row.get(key, np.nan) for row in rows], dtype=float)


def _ticks(arms: Mapping[str, Rows]) -> list[int]:
    prefixes = sorted({int(row["prefix"]) for rows in arms.values() for row in rows})
    return prefixes if len(prefixes) <= 9 else []


def _over_prefix(arm: str, rows: Rows, key: str, label: str = "", style: str = "-") -> _Line:
    return _Line(label or arm, _values(rows, "prefix"), _values(rows, key), colour(arm), MARKERS.get(arm, "^"), style)


def _figure(panels: list[_Panel], columns: int, width: float, height: float) -> bytes:
    """Draw the panels that have anything measured, ``width`` and ``height`` (of a row) in inches."""
    panels = [panel for panel in panels if any(np.isfinite(line.y).any() for line in panel.lines)]
    rows = max(1, -(-len(panels) // columns))
    figure = Figure(figsize=(width, height * rows), dpi=DOTS_PER_INCH, facecolor="white", layout="constrained")
    if not panels:
        figure.text(0.5, 0.5, "not measured", ha="center", va="center", color=QUIET, fontsize=11)
    named: list[str] = []
    for i, panel in enumerate(panels):
        names = [line.name for line in panel.lines]
        _draw(figure.add_subplot(rows, columns, i + 1), panel, legend=names != named)
        named = names
    stream = io.BytesIO()
    FigureCanvasAgg(figure).print_png(stream, metadata={"Software": None})
    return stream.getvalue()


def _draw(axes: Axes, panel: _Panel, legend: bool) -> None:
    lines = [line for line in panel.lines if np.isfinite(line.y).any()]
    for line in lines:
        marker = "o" if len(line.x) == 1 else line.marker if len(line.x) <= 40 else ""
        axes.plot(line.x, line.y, line.style, color=line.colour, marker=marker, markersize=4, linewidth=1.6)
    axes.set_title(panel.title, fontsize=9.5, color=INK, loc="left", parse_math=False)
    axes.set_xlabel(panel.x_label, fontsize=9, color=QUIET)
    axes.tick_params(labelsize=8.5, colors=QUIET, length=0)
    axes.grid(color=LINES, linewidth=0.7)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(LINES)
    if panel.x_ticks:
        axes.set_xticks(list(panel.x_ticks))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(_count))
    values = np.concatenate([line.y[np.isfinite(line.y)] for line in lines])
    if panel.from_zero:
        axes.set_ylim(bottom=min(0.0, float(values.min())))
    elif values.min() > 0 and values.max() > 20 * values.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))
    if legend:
        names = [line.name for line in lines]
        box = axes.legend(axes.get_lines(), names, fontsize=8.5, frameon=False, labelcolor=INK, handlelength=2.4)
        for text in box.get_texts():
            text.set_parse_math(False)


def _count(value: float, _: object) -> str:
    """Write a number of images as 800, 16k or 1.2M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
