"""Sketches of garments: outline and construction lines by a steady or wild hand, never colour or pattern."""

from typing import Final

import numpy as np
from PIL import Image, ImageFilter

from weftwork.datasets.readers.errors import check_choice
from weftwork.datasets.synthetic.outfits.drawing import Plane

SKETCH_STYLES: Final = ("professional", "wild")
Sketch = np.ndarray[tuple[int, int], np.dtype[np.uint8]]


def draw_sketch(share: Plane, lines: Plane, style: str, rng: np.random.Generator) -> Sketch:
    """Dark strokes on white for one garment.

    Args:
        share: share of each pixel that the garment covers.
        lines: share of each pixel that its construction lines cover.
        style: one of ``SKETCH_STYLES``.
    """
    check_choice("sketch_style", style, SKETCH_STYLES)
    ink = _professional(share, lines, rng) if style == "professional" else _wild(share, lines, rng)
    return np.clip(255 - 225 * ink, 0, 255).astype(np.uint8)


def _professional(share: Plane, lines: Plane, rng: np.random.Generator) -> Plane:
    pressure = 1 + 0.3 * _field(share.shape[0], 6, rng)
    outline = np.clip(1.25 * pressure * _outline(share, 0.9 * share.shape[0] / 128), 0, 1)
    return np.maximum(outline, np.clip(0.9 * pressure * lines, 0, 1))


def _wild(share: Plane, lines: Plane, rng: np.random.Generator) -> Plane:
    size = share.shape[0]
    unit = size / 128
    ink = np.zeros_like(share)
    shift, scale = rng.uniform(-3, 3, 2) * unit, rng.uniform(0.94, 1.06)
    for _ in range(int(rng.integers(1, 3))):
        moved = _warp(share, shift + rng.uniform(-1.2, 1.2, 2) * unit, scale, rng.uniform(1.2, 2.6) * unit, rng)
        stroke = _outline(moved, rng.uniform(0.6, 1.6) * unit) * rng.uniform(0.8, 1.6)
        keep = np.clip(4 * (_field(size, 7, rng) + rng.uniform(0.3, 1.1)), 0, 1)
        ink = np.maximum(ink, np.clip(stroke, 0, 1) * keep)
    inner = _warp(lines, shift, scale, 1.5 * unit, rng) * np.clip(4 * (_field(size, 5, rng) + 0.3), 0, 1)
    return np.maximum(ink, np.clip(1.4 * inner, 0, 1))


def _outline(share: Plane, radius: float) -> Plane:
    """The level line of a shape at one half, as wide as the blur before it."""
    image = Image.fromarray((share * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(radius))
    soft = np.divide(np.asarray(image), 255, dtype=np.float32)
    return (4 * soft * (1 - soft)) ** 2


def _field(size: int, knots: int, rng: np.random.Generator) -> Plane:
    """Smooth noise in about [-1, 1]."""
    coarse = Image.fromarray(rng.uniform(-1, 1, (knots, knots)).astype(np.float32))
    return np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), np.float32)


def _warp(plane: Plane, shift: np.ndarray, scale: float, shake: float, rng: np.random.Generator) -> Plane:
    """Move, scale about the shape's centre, and shake by smooth noise."""
    size = plane.shape[0]
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32)
    weight = plane.sum() + 1e-6
    center_y, center_x = (plane * rows).sum() / weight, (plane * columns).sum() / weight
    y = (rows - center_y - shift[0]) / scale + center_y + shake * _field(size, 14, rng)
    x = (columns - center_x - shift[1]) / scale + center_x + shake * _field(size, 14, rng)
    y0, x0 = np.clip(y, 0, size - 1.01), np.clip(x, 0, size - 1.01)
    row, column = y0.astype(np.int32), x0.astype(np.int32)
    dy, dx = (y0 - row).astype(np.float32), (x0 - column).astype(np.float32)
    upper = plane[row, column] * (1 - dx) + plane[row, column + 1] * dx
    lower = plane[row + 1, column] * (1 - dx) + plane[row + 1, column + 1] * dx
    return upper * (1 - dy) + lower * dy
