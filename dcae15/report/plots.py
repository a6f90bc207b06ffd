"""Lines in panels: PNG bytes from plain numbers, with one colour per arm, without global plotting state."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

PALETTE = ["#0072b2", "#d55e00", "#7a5195", "#00795c", "#e69f00", "#56b4e9", "#a8327d", "#8c6d1f", "#56616c", "#20252e"]
"""Told apart by the colour-blind."""
SHAPES = "osD^vPX<>*"
DASHES = ("-", "--", ":")
STEADY = ("structured", "baseline", "random", "diffusion")
"""Lines that have the first places of the palette in every figure, whichever of them it shows."""
INK, QUIET, LINES = "#282c34", "#5b6470", "#d9dde3"
DOTS_PER_INCH = 160


@dataclass(frozen=True)
class Style:
    """How one of many arms is drawn."""

    colour: str
    marker: str
    dash: str = "-"


def styles(names: Iterable[str]) -> dict[str, Style]:
    """Return a style for each of many lines, by their places: no two alike, `STEADY` ones as they always are."""
    names = list(dict.fromkeys(names))
    looks = [Style(*look, dash) for dash in DASHES for look in zip(PALETTE, SHAPES, strict=True)]
    known: dict[str, Style] = {}
    for name in names:
        steady = name.rpartition(": ")[2]  # of another sweep
        if steady in STEADY and looks[STEADY.index(steady)] not in known.values():
            known[name] = looks[STEADY.index(steady)]
    free = [look for look in looks if look not in known.values()]
    others = [name for name in names if name not in known]
    chosen = known | {name: free[i % len(free)] for i, name in enumerate(others)}
    return {name: chosen[name] for name in names}


@dataclass(frozen=True)
class Line:
    """One line of a panel, with a band around it where there is a spread; NaN leaves a gap."""

    name: str
    x: np.ndarray
    y: np.ndarray
    colour: str
    marker: str = ""
    style: str = "-"
    band: tuple[np.ndarray, np.ndarray] | None = None  # lower and upper edge
    width: float = 1.6
    size: float = 4.0  # of a marker


@dataclass(frozen=True)
class Panel:
    """One set of axes."""

    title: str
    lines: list[Line]
    x_label: str
    x_ticks: Sequence[float] = ()
    from_zero: bool = False
    x_names: Sequence[str] = ()  # of the ticks, where they are not numbers
    x_log: int = 0  # base of a logarithmic axis
    x_counts: bool = True  # whole numbers, written as 16k
    y_label: str = ""
    y_log_from: float = 20.0  # greatest over least value from which on the axis is logarithmic


def draw_panels(panels: list[Panel], columns: int, width: float, height: float, *, legend: bool = True) -> bytes:
    """Draw the panels that have anything measured, ``width`` and ``height`` (of a row) in inches; return PNG bytes."""
    panels = [panel for panel in panels if any(np.isfinite(line.y).any() for line in panel.lines)]
    rows = max(1, -(-len(panels) // columns))
    figure = Figure(figsize=(width, height * rows), dpi=DOTS_PER_INCH, facecolor="white", layout="constrained")
    if not panels:
        figure.text(0.5, 0.5, "not measured", ha="center", va="center", color=QUIET, fontsize=11)
    named: list[str] = []
    for i, panel in enumerate(panels):
        names = [line.name for line in panel.lines]
        _draw(figure.add_subplot(rows, columns, i + 1), panel, legend=legend and names != named)
        named = names
    return png(figure)


def png(figure: Figure) -> bytes:
    """Return a figure as PNG bytes, the same for the same figure."""
    stream = io.BytesIO()
    FigureCanvasAgg(figure).print_png(stream, metadata={"Software": None})
    return stream.getvalue()


def tidy(axes: Axes) -> None:
    """Give axes the look of all figures: quiet ticks, a light grid, no frame at the top and the right."""
    axes.tick_params(labelsize=8.5, colors=QUIET, length=0)
    axes.grid(color=LINES, linewidth=0.7)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(LINES)


def _draw(axes: Axes, panel: Panel, legend: bool) -> None:
    lines = [line for line in panel.lines if np.isfinite(line.y).any()]
    for line in lines:
        marker = line.marker if len(line.x) <= 40 or line.style == "none" else ""
        marker = marker or ("o" if len(line.x) == 1 else "")
        style = {"linestyle": line.style, "marker": marker, "markersize": line.size, "linewidth": line.width}
        axes.plot(line.x, line.y, color=line.colour, **style)
        if line.band is not None:
            axes.fill_between(line.x, *line.band, color=line.colour, alpha=0.18, linewidth=0)
    axes.set_title(panel.title, fontsize=9.5, color=INK, loc="left", parse_math=False)
    axes.set_xlabel(panel.x_label, fontsize=9, color=QUIET)
    axes.set_ylabel(panel.y_label, fontsize=9, color=QUIET)
    tidy(axes)
    if panel.x_log:
        axes.set_xscale("log", base=panel.x_log)
        axes.xaxis.set_minor_locator(NullLocator())
    if panel.x_ticks:
        axes.set_xticks(list(panel.x_ticks), panel.x_names or [f"{tick:g}" for tick in panel.x_ticks])
    elif panel.x_counts:
        axes.xaxis.set_major_locator(LogLocator(panel.x_log) if panel.x_log else MaxNLocator(6, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count_label(value)))
    values = np.concatenate([line.y[np.isfinite(line.y)] for line in lines])
    if panel.from_zero:
        axes.set_ylim(bottom=min(0.0, float(values.min())))
    elif values.min() > 0 and values.max() > panel.y_log_from * values.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))
    if legend:
        names = [line.name for line in lines]
        box = axes.legend(
            axes.get_lines(),
            names,
            fontsize=8.5,
            frameon=True,
            framealpha=0.8,
            edgecolor="none",
            labelcolor=INK,
            handlelength=2.4,
        )
        for text in box.get_texts():
            text.set_parse_math(False)


def count_label(value: float) -> str:
    """Write a number of images as 800, 16k or 1.2M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:g}"
