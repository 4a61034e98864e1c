"""Regions of sketches: the area that strokes enclose."""

from typing import Final

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageFilter
from scipy.ndimage import binary_fill_holes, maximum_filter

from weftwork.datasets.readers.images import MIN_CONTRAST, as_image, ground_tone

# stroke regions are computed on a grid of at most this many cells a side, and lengths are in its cells
REGION_CELLS: Final = 128
CLOSINGS: Final = (1, 4, 12)
CLOSED_SHARE: Final = 0.7
MARGIN: Final = 1
FRAMES: Final = 2
"""Frames one inside the other, as of double lines."""
FRAME_SHARE: Final = 12
"""A frame is within this part of the shorter side from each edge."""
FRAME_SLACK: Final = 1 / 32
"""Share of the shorter side by which its sides may be skew."""
FRAME_STRAIGHT: Final = 0.75
"""Share of each side that is straight; the corners may be round."""
LEAST_INSIDE: Final = 1 / 8
"""Cells with a stroke inside a frame, as a share of the shorter side: with fewer, the frame is the drawing itself."""
SOFTNESS: Final = 1.0


def stroke_region(sketch: Image.Image) -> Float[np.ndarray, "height width"]:
    """Computes a soft mask of a sketch's subject (dark strokes, see ``as_sketch``): 1 inside, falling to 0 around.

    Gaps in the strokes are closed, enclosed areas are filled, and the strokes are added with a margin. Of three
    closings, the finest is used that encloses about as much as the widest, so that complete outlines keep their
    concavities and broken ones are filled. An outline that leaves the canvas is closed along its edge.
    """
    ink = _without_frame(_ink(np.asarray(as_image(sketch, "L", name="sketch"))))
    for edge in (ink[0], ink[-1], ink[:, 0], ink[:, -1]):
        touched = np.flatnonzero(edge)
        if touched.size:
            edge[touched[0] : touched[-1]] = True
    region = _grown(ink, MARGIN)
    if ink.any():
        rows, columns = (np.flatnonzero(ink.any(axis)) for axis in (1, 0))
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        region[box] |= _filled(ink[box], max(ink.shape) / REGION_CELLS)
    mask = Image.fromarray(region.astype(np.uint8) * np.uint8(255))
    soft = mask.filter(ImageFilter.GaussianBlur(SOFTNESS)).resize(sketch.size, Image.Resampling.BILINEAR)
    return np.asarray(soft, np.float32) / 255


def _without_frame(ink: Bool[np.ndarray, "rows columns"]) -> Bool[np.ndarray, "rows columns"]:
    """Clears frames along all four edges, or a little further inside, as scans and screenshots have."""
    for _ in range(FRAMES):
        frame = _frame(ink)
        inside = ink & ~frame
        if not frame.any() or np.count_nonzero(inside) < LEAST_INSIDE * min(ink.shape):
            return ink  # no frame, or one that is the drawing itself
        ink = inside
    return ink


def _frame(ink: Bool[np.ndarray, "rows columns"]) -> Bool[np.ndarray, "rows columns"]:
    """Mask of the outermost strokes if all four sides are nearly straight and near an edge; empty otherwise."""
    most, frame = min(ink.shape) // FRAME_SHARE, np.zeros_like(ink)
    for turn in range(4):  # each edge is at the top once
        lines = np.rot90(ink, turn)
        columns = np.flatnonzero(lines.any(0))
        depth = lines.argmax(0)[columns]
        if not columns.size or (typical := np.median(depth)) > most:
            return np.zeros_like(ink)
        straight = np.count_nonzero(abs(depth - typical) <= FRAME_SLACK * min(ink.shape))
        if straight < FRAME_STRAIGHT * (columns[-1] - columns[0] + 1):
            return np.zeros_like(ink)
        begun = np.logical_or.accumulate(lines, 0)
        stroke = lines & ~np.logical_or.accumulate(begun & ~lines, 0) & (np.arange(len(lines)) < 2 * most)[:, None]
        np.rot90(frame, turn)[...] |= stroke
    return frame


def _ink(values: UInt8[np.ndarray, "height width"]) -> Bool[np.ndarray, "rows columns"]:
    """Mask of cells with a stroke: their darkest pixel differs from the ground."""
    ground, shrink = ground_tone(values), min(1, REGION_CELLS / max(values.shape))
    for axis, length in enumerate(values.shape):
        cells = max(1, round(length * shrink))
        values = np.minimum.reduceat(values, np.arange(cells) * length // cells, axis=axis)
    contrast = ground - values.astype(np.float32)
    return contrast > 0.3 * max(contrast.max(), MIN_CONTRAST)


def _filled(ink: Bool[np.ndarray, "rows columns"], scale: float) -> Bool[np.ndarray, "rows columns"]:
    """Mask of the area enclosed by strokes, by the finest closing that encloses about as much as the widest."""
    *finer, widest = (round(radius * scale) for radius in CLOSINGS)
    most = _enclosed(ink, widest)
    for radius in finer:
        region = _enclosed(ink, radius)
        if np.count_nonzero(region) >= CLOSED_SHARE * np.count_nonzero(most):
            return region
    return most


def _enclosed(ink: Bool[np.ndarray, "rows columns"], radius: int) -> Bool[np.ndarray, "rows columns"]:
    """Dilates strokes by a radius, fills areas without a path from outside, and erodes by the same radius."""
    around = radius + 1
    filled = np.asarray(binary_fill_holes(_grown(np.pad(ink, around), radius)), bool)
    return ~_grown(~filled, radius)[around:-around, around:-around]


def _grown(mask: Bool[np.ndarray, "rows columns"], radius: int) -> Bool[np.ndarray, "rows columns"]:
    """Dilates a mask with a square of this radius."""
    return maximum_filter(mask, 2 * radius + 1)
