"""Pictures made of pictures: the partial-channel grid and the sample grid, labelled, on white."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

CELL_MIN, CELL_MAX = (
    96,
    128,
)  # pixels: smaller images are enlarged to about the first, larger ones reduced to the second
GAP = 4  # pixels between cells
APART = 12  # further pixels before a column that stands apart
PER_ROW = 10  # samples in one row
LABEL_LETTERS = 24  # longer labels are cut


def partial_channel_grid(inputs: np.ndarray, reconstructions: np.ndarray, prefixes: Sequence[int]) -> np.ndarray:
    """Show what the first c channels already say about the image.

    Args:
        inputs: uint8 (N, H, W, 3), the images.
        reconstructions: uint8 (P, N, H, W, 3), their reconstructions from each prefix.
        prefixes: the P numbers of channels kept, ascending; the last one is all channels.

    Returns:
        A uint8 picture (height, width, 3): row i is image i; column k is its reconstruction from ``prefixes[k]``; the
        last column, set apart, is the input. Small images are enlarged by a whole factor without smoothing.
    """
    columns = [_cells(images) for images in (*reconstructions, inputs)]
    header = [*(f"c = {prefix}" for prefix in prefixes[:-1]), f"all {prefixes[-1]}", "input"]
    rows = [[column[i] for column in columns] for i in range(len(inputs))]
    return _mosaic(rows, header=header, apart=len(prefixes))


def channel_mean_grid(inputs: np.ndarray, maps: np.ndarray, prefixes: Sequence[int]) -> np.ndarray:
    """Show the mean over the first c latent channels beside the image, as the paper's Figure 2 does.

    ``maps`` are the stretched maps of each prefix, uint8 (P, N, h, w); the rest is as for `partial_channel_grid`.

    Returns:
        A uint8 picture as `partial_channel_grid` makes it; a place of the latent is a block of one colour, from dark (the
        map's minimum) to bright (its maximum).
    """
    height, width = inputs.shape[1:3]
    coloured = matplotlib.colormaps["viridis"](maps, bytes=True)[..., :3]
    rows, columns = (np.arange(n) * part // n for n, part in ((height, maps.shape[2]), (width, maps.shape[3])))
    return partial_channel_grid(inputs, coloured[:, :, rows][:, :, :, columns], prefixes)


def sample_grid(samples: dict[str, np.ndarray]) -> np.ndarray:
    """Show samples, class by class.

    All are uint8 (K, H, W, 3) of one size; the name '' draws no label.

    Returns:
        A uint8 picture (height, width, 3): at most ten samples in a row, the class name at the left of its first row.
    """
    rows, names = [], []
    for name, images in samples.items():
        cells = _cells(images)
        for start in range(0, len(cells), PER_ROW):
            rows.append(list(cells[start : start + PER_ROW]))
            names.append("" if start else name)
    return _mosaic(rows, names=names)


def _cells(images: np.ndarray) -> np.ndarray:
    """Bring images (N, H, W, 3) to the size of a cell: whole factors up without smoothing, an area filter down."""
    side = max(images.shape[1:3])
    if side > CELL_MAX:
        height, width = (max(1, round(length * CELL_MAX / side)) for length in images.shape[1:3])
        reduced = [Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS) for image in images]
        return np.stack([np.asarray(image) for image in reduced])
    factor = max(1, round(CELL_MIN / side))
    return images.repeat(factor, axis=1).repeat(factor, axis=2)


def _mosaic(
    rows: list[list[np.ndarray]], header: Sequence[str] = (), names: Sequence[str] = (), apart: int = -1
) -> np.ndarray:
    """Lay cells of one size out in rows, with a header above the columns and names at the left of the rows."""
    height, width = rows[0][0].shape[:2]
    font = ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", max(14, round(width / 5)))
    names = [_short(name) for name in names]
    left = GAP + max((round(font.getlength(name)) + 3 * GAP for name in names if name), default=0)
    top = GAP + (round(font.size * 1.4) if header else 0)
    columns = max(len(row) for row in rows)
    tops = [top + i * (height + GAP) for i in range(len(rows))]
    lefts = [left + k * (width + GAP) + (APART if 0 <= apart <= k else 0) for k in range(columns)]
    canvas = np.full((tops[-1] + height + GAP, lefts[-1] + width + GAP, 3), 255, dtype=np.uint8)
    for y, row in zip(tops, rows, strict=True):
        for x, cell in zip(lefts, row, strict=False):
            canvas[y : y + height, x : x + width] = cell
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    for x, label in zip(lefts, header, strict=False):
        draw.text((x + width / 2, top - GAP), label, font=font, fill=(40, 44, 52), anchor="md")
    for y, name in zip(tops, names, strict=False):
        draw.text((left - 2 * GAP, y + height / 2), name, font=font, fill=(40, 44, 52), anchor="rm")
    return np.asarray(picture)


def _short(name: str) -> str:
    line = " ".join(name.split())
    return line if len(line) <= LABEL_LETTERS else line[: LABEL_LETTERS - 1] + "…"
