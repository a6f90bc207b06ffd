"""The embedded images: drawn objects (structure) under textures and fine patterns (detail), at any resolution.

The structure of an image is its object (the class), pose, colours and a colour gradient behind; the detail is a texture
on the object and a fine pattern around it. Everything is a formula over the unit square, so the same image can be
drawn at 32 and at 256 pixels: frequencies are counted in cycles per image, edges are anti-aliased for the grid.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dcae15 import storage
from dcae15.config import ShapesConfig

_SPLITS = {"train": 0, "val": 1}
_WAVES = 10  # plane waves in a sum that passes for noise
_LOWEST, _HIGHEST = 4.0, 10.0  # cycles per image of every texture; 16 is the most that 32 pixels can hold
_NUMBERS = 24 + 6 * _WAVES

Array = NDArray[np.floating]


def draw(index: int, *, split: str, seed: int, resolution: int, classes: int) -> tuple[NDArray[np.uint8], int]:
    """Draw one image: a pure function of its arguments (up to one grey level between processors).

    Everything but the object follows from (seed, split, index) alone: ``classes`` changes only which object is drawn.

    Returns:
        The image, uint8 (resolution, resolution, 3), and its label ``index % classes``, which is balanced.
    """
    label = index % classes
    # Uniform numbers straight from the bit generator: the one stream that NumPy does not change between releases.
    u = np.random.Generator(np.random.PCG64((seed, _SPLITS[split], index))).random(_NUMBERS).astype(np.float32)
    x, y = _grid(resolution)

    ground, figure = _colours(u[0:6])
    slope = 0.35 * (np.cos(2 * np.pi * u[6]) * x + np.sin(2 * np.pi * u[6]) * y)
    waves = u[24:].reshape(2, 3, _WAVES)
    behind = _noise(waves[0], x, y) if u[7] < 0.5 else _plane_wave(u[8], u[9], u[10], x, y)
    texture = _texture(u[11:17], waves[1], x, y)

    alpha = _coverage(label, u[17:21], x, y)
    image = ground + (ground * slope[..., None]) + (0.10 + 0.10 * u[21]) * behind[..., None] * _tint(u[22])
    image += alpha[..., None] * (figure + 0.24 * texture[..., None] * _tint(u[23]) - image)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8), label


def file_path(split: str, index: int, config: ShapesConfig) -> str:
    """Return where image ``index`` lies below the source folder, in ImageNet's layout.

    Class folders carry the readable class name where ImageNet has its WordNet ids, for example
    ``train/arrow/arrow_00000010.JPEG``; their sorted order is the order of the labels.
    """
    name = CLASS_NAMES[index % config.classes]
    return f"{split}/{name}/{name}_{index:08d}.JPEG"


def write_range(root_uri: str, split: str, start: int, stop: int, config: ShapesConfig) -> None:
    """Draw images ``start`` to ``stop - 1`` of a split and write them as JPEG files below ``root_uri``.

    Quality 95 without chroma subsampling: about 1.9 kB for an image of 32 pixels, 28 kB for one of 256.
    Writing a range again writes the same bytes to the same names, so that an interrupted job may simply repeat it, and
    jobs may share a split in any cut.

    Raises:
        StorageError: The folder cannot be written.
    """
    for index in range(start, stop):
        pixels, _ = draw(index, split=split, seed=config.seed, resolution=config.resolution, classes=config.classes)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=95, subsampling=0)
        storage.write_bytes(storage.join(root_uri, file_path(split, index, config)), buffer.getvalue())


@functools.lru_cache(maxsize=8)
def _grid(resolution: int) -> tuple[Array, Array]:
    """Pixel centres in [-1, 1]: x of shape (1, W) to the right, y of shape (H, 1) downwards."""
    line = ((np.arange(resolution, dtype=np.float32) + 0.5) * (2 / resolution) - 1).astype(np.float32)
    return line[None, :], line[:, None]


def _colours(u: Array) -> tuple[Array, Array]:
    """Colours of ground and figure, (3,) in [0, 1]: any hues, apart by at least a third in brightness."""
    dark, light = 0.18 + 0.2 * u[0], 0.62 + 0.2 * u[1]
    first, second = (dark, light) if u[2] < 0.5 else (light, dark)
    hue = u[3]
    other = hue + 0.25 + 0.5 * u[4]
    saturation = 0.4 + 0.5 * u[5]
    return _hue_colour(hue, saturation, first), _hue_colour(other, saturation, second)


def _hue_colour(hue: float, saturation: float, brightness: float) -> Array:
    wheel = np.cos(2 * np.pi * (hue + np.array([0, 1 / 3, 2 / 3], np.float32)))
    return (brightness * (1 + saturation * 0.6 * wheel)).astype(np.float32)


def _tint(hue: float) -> Array:
    """Direction in colour space along which a pattern swings: brightness with a cast of colour."""
    return _hue_colour(hue, 0.9, 1.0)


# Structure: signed distances to the outline, negative inside, in units where the object fits the disc of radius 1.


def _coverage(label: int, u: Array, x: Array, y: Array) -> Array:
    """Share of every pixel that the posed object covers, (H, W) in [0, 1]."""
    radius = 0.58 + 0.3 * u[0]
    angle = 0.8 * (u[1] - 0.5)  # radians, 23 degrees to either side: an arrow still points up
    room = 1.05 - radius
    cos, sin = np.cos(angle) / radius, np.sin(angle) / radius
    dx, dy = x - room * (2 * u[2] - 1), y - room * (2 * u[3] - 1)
    distance = _OUTLINES[CLASS_NAMES[label]](cos * dx + sin * dy, cos * dy - sin * dx) * radius
    return np.clip(0.5 - distance * (x.shape[1] / 2), 0, 1)


def _box(x: Array, y: Array, half_width: float, half_height: float) -> Array:
    return np.maximum(np.abs(x) - half_width, np.abs(y) - half_height)


def _disc(x: Array, y: Array, radius: float) -> Array:
    return np.sqrt(x * x + y * y) - radius


def _wedge(x: Array, y: Array) -> Array:
    """An equilateral triangle, tip up, with its corners at distance 1."""
    return np.maximum(y, np.abs(x) * np.float32(0.75**0.5) - y / 2) - 0.5


def _arrow(x: Array, y: Array) -> Array:
    head = _wedge(x / 0.75, (y + 0.22) / 0.75) * 0.75
    return np.minimum(head, _box(x, y - 0.5, 0.22, 0.45))


def _heart(x: Array, y: Array) -> Array:
    """A square on its corner, with a half disc on each of its two upper sides."""
    side = np.abs(x)
    diamond = (side + np.abs(y - 0.15)) * np.float32(0.5**0.5) - 0.54
    return np.minimum(diamond, _disc(side - 0.382, y + 0.232, 0.54))


def _star(x: Array, y: Array) -> Array:
    """Five rays: every tenth of the circle is folded onto one straight edge from a tip to a notch."""
    tenth = np.pi / 5
    angle = np.abs(np.mod(np.arctan2(x, -y) + tenth, 2 * tenth) - tenth)
    notch = 0.42 * np.array([np.cos(tenth), np.sin(tenth)])
    normal = np.array([notch[1], 1 - notch[0]]) / np.hypot(notch[1], 1 - notch[0])
    reach = np.sqrt(x * x + y * y)
    return reach * (np.float32(normal[0]) * np.cos(angle) + np.float32(normal[1]) * np.sin(angle)) - normal[0]


def _wheel(x: Array, y: Array) -> Array:
    spokes = np.maximum(np.minimum(np.abs(x), np.abs(y)) - 0.11, _disc(x, y, 0.8))
    return np.minimum(np.abs(_disc(x, y, 0.82)) - 0.12, spokes)


def _zigzag(x: Array, y: Array) -> Array:
    """A thick line that falls, rises, falls and rises, like a W."""
    line = np.abs(np.mod(x + 0.9, 0.9) - 0.45) * 2.2 - 0.5
    return np.maximum(np.abs(y + line) * np.float32(1 / np.hypot(1, 2.2)) - 0.15, np.abs(x) - 0.9)


_OUTLINES: dict[str, Callable[[Array, Array], Array]] = {
    "arrow": _arrow,
    "bars": lambda x, y: _box(x, np.abs(np.abs(y) - 0.3) - 0.3, 0.75, 0.16),
    "crescent": lambda x, y: np.maximum(_disc(x, y, 0.95), -_disc(x - 0.42, y, 0.72)),
    "cross": lambda x, y: np.minimum(_box(x, y, 0.95, 0.27), _box(x, y, 0.27, 0.95)),
    "disc": lambda x, y: _disc(x, y, 0.85),
    "heart": _heart,
    "ring": lambda x, y: np.abs(_disc(x, y, 0.72)) - 0.2,
    "square": lambda x, y: _box(x, y, 0.75, 0.75),
    "star": _star,
    "triangle": _wedge,
    "wheel": _wheel,
    "zigzag": _zigzag,
}
CLASS_NAMES = tuple(_OUTLINES)
"""Alphabetical, so that the labels of `draw` equal those that a listing of the class folders gives, for the first n names too."""


# Detail: patterns over the whole image, (H, W), about -1 to 1.


def _frequency(u: float) -> float:
    return _LOWEST + (_HIGHEST - _LOWEST) * u


def _plane_wave(frequency: float, angle: float, phase: float, x: Array, y: Array) -> Array:
    """A sine grating; the three numbers in [0, 1) choose frequency, direction and phase."""
    turn, rate = 2 * np.pi * angle, np.pi * _frequency(frequency)  # the image is 2 units wide
    return np.sin(rate * (np.cos(turn) * x + np.sin(turn) * y) + 2 * np.pi * phase)


def _noise(u: Array, x: Array, y: Array) -> Array:
    """Band-passed noise: a sum of plane waves of random frequency, direction and phase; u is (3, waves)."""
    rate, turn, phase = np.pi * _frequency(u[0]), 2 * np.pi * u[1], 2 * np.pi * u[2]
    along_x = (rate * np.cos(turn))[None, :] * x.T + phase  # (W, waves)
    along_y = (rate * np.sin(turn))[None, :] * y  # (H, waves)
    # sin(a + b) as a product of small matrices costs less than the sine of every pixel and wave.
    total = np.cos(along_y) @ np.sin(along_x).T + np.sin(along_y) @ np.cos(along_x).T
    return total * np.float32(_WAVES**-0.5)


def _texture(u: Array, noise: Array, x: Array, y: Array) -> Array:
    kind = int(5 * u[0])
    if kind == 0:
        return _noise(noise, x, y)
    rate = np.pi * _frequency(u[1])
    gain = max(1.0, x.shape[1] / (2 * rate))  # edges one pixel wide, as far as the grid can hold them
    if kind == 1:
        return np.clip(gain * _plane_wave(u[1], u[2], u[3], x, y), -1, 1)
    if kind == 2:
        cx, cy = 2 * u[4] - 1, 2 * u[5] - 1
        return np.clip(gain * np.sin(rate * np.sqrt((x - cx) ** 2 + (y - cy) ** 2) + 2 * np.pi * u[3]), -1, 1)
    first, second = _plane_wave(u[1], u[2], u[3], x, y), _plane_wave(u[1], u[2] + 0.25, u[4], x, y)
    if kind == 3:  # checks
        return np.clip(gain * 1.5 * first * second, -1, 1)
    return np.clip(gain * (first + second - 0.5), -1, 1)  # dots
