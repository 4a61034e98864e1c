"""Regions of the canvas in which a condition acts: boxes and masks."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import ArrayLike
from PIL import Image
from torch import Tensor

from weftwork.attention_processors.core.strength import number
from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.readers.images import as_image, read_image
from weftwork.datasets.readers.masks import as_mask, read_mask

ImageLike = Image.Image | np.ndarray | str | Path
Box = tuple[float, float, float, float]
Area = ImageLike | Box | None

REGION_SIZE = 128
ASPECT_TOLERANCE = 0.15
"""Latent sides are whole numbers: aspects within this many e-folds count as equal."""


def checked_area(area: Area) -> Box | Image.Image | None:
    """Returns a checked region: a box as four numbers, a mask as an 8-bit image, or None.

    Raises:
        ValueError: a box outside the canvas, a mask that is black everywhere, or one that cannot be read; "sketch",
            which only pairs have.
    """
    if area is None:
        return None
    if isinstance(area, str) and area == "sketch":
        raise UserError('region: got "sketch", which only pairs have, expected a box or a mask; pass one of these')
    if isinstance(area, tuple | list):
        return check_box(area)
    return check_box([*np.asarray(area)]) if getattr(area, "shape", None) == (4,) else _mask_image(area)


def area_map(area: Box | Image.Image | None, size: tuple[int, int]) -> Float[Tensor, "height width"]:
    """Returns a checked area as a map in [0, 1] of a size (height, width)."""
    if area is None:
        return torch.ones(size)
    if isinstance(area, tuple):
        return box_region(area, size)
    return resized(torch.from_numpy(np.asarray(area, np.float32) / 255), size)


def common_aspect(aspects: Iterable[float | None]) -> float | None:
    """Returns the one aspect (height over width) of all masks; None without any.

    Raises:
        ValueError: masks of different aspects.
    """
    different = sorted({round(aspect, 3) for aspect in aspects if aspect is not None})
    if len(different) > 1:
        raise UserError(f"region: got aspects (height / width) {different}, expected one: draw all on the same canvas")
    return different[0] if different else None


def check_aspect(aspect: float | None, image: float) -> None:
    """Raises `ValueError` for masks of another aspect (height over width) than the image."""
    if aspect is not None and abs(math.log(aspect / image)) > ASPECT_TOLERANCE:
        raise UserError(
            f"region: got sketches or masks of aspect (height / width) {aspect:.2f} for an image of {image:.2f}; draw "
            "them on a canvas of the image's aspect"
        )


def region_size(aspect: float) -> tuple[int, int]:
    """Returns the height and width at which regions of an aspect (height / width) are stored."""
    if aspect >= 1:
        return REGION_SIZE, max(1, round(REGION_SIZE / aspect))
    return max(1, round(REGION_SIZE * aspect)), REGION_SIZE


def check_box(box: Sequence[object]) -> Box:
    numbers = [number(value) for value in box]
    if len(box) != 4 or not all(value is not None and math.isfinite(value) for value in numbers):
        raise UserError(
            f"region: got {box!r}, expected four numbers: left, top, right, bottom; pass fractions of the canvas"
        )
    left, top, right, bottom = on_canvas([value for value in numbers if value is not None]).tolist()
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise UserError(
            f"region: got {tuple(box)}, expected 0 <= left < right <= 1 and 0 <= top < bottom <= 1 "
            "(fractions of the canvas)"
        )
    return left, top, right, bottom


def on_canvas(values: ArrayLike) -> Float[np.ndarray, "..."]:
    """Returns numbers with those that are off the canvas by rounding moved to its edge."""
    given = np.asarray(values, np.float64)
    nearest = given.clip(0, 1)
    return np.where(abs(given - nearest) < 1e-6, nearest, given)


def box_region(box: Box, size: tuple[int, int]) -> Float[Tensor, "height width"]:
    """Returns a map of the share of each cell that a box covers."""

    def cover(low: float, high: float, count: int) -> Tensor:
        edges = torch.arange(count + 1, dtype=torch.float64) / count
        return ((edges[1:].clamp(max=high) - edges[:-1].clamp(min=low)).clamp(min=0) * count).float()

    left, top, right, bottom = box
    return cover(top, bottom, size[0])[:, None] * cover(left, right, size[1])[None]


def _mask_image(given: object) -> Image.Image:
    if isinstance(given, str | Path):
        return read_mask(given)
    return as_mask(from_array(given, "region"), name="region")


def opened(given: ImageLike) -> Image.Image:
    """Returns an image from an image, an array or a path."""
    return read_image(given) if isinstance(given, str | Path) else as_image(from_array(given, "image"))


def from_array(given: object, name: str) -> Image.Image:
    if isinstance(given, Image.Image):
        return given
    if not isinstance(given, np.ndarray):
        raise UserError(f"{name}: got a {type(given).__name__}, expected an image, an array or a path")
    values = _by_height(given)
    if values.dtype == np.bool_:
        values = values.astype(np.uint8) * 255
    elif np.issubdtype(values.dtype, np.floating):
        if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
            raise UserError(f"{name}: got numbers outside [0, 1] in an array of floats; scale it, or pass bytes")
        values = (values * 255).round().astype(np.uint8)
    if values.dtype != np.uint8 or values.ndim not in (2, 3):
        raise UserError(
            f"{name}: got an array of {given.dtype} with shape {given.shape}, expected bytes [height, width]"
        )
    return Image.fromarray(values)


def _by_height(values: np.ndarray) -> np.ndarray:
    """Returns [channel, height, width] and [height, width, 1] as [height, width, channel] and [height, width]."""
    if values.ndim == 3 and values.shape[0] in (1, 3, 4) and values.shape[2] not in (1, 3, 4):
        values = np.moveaxis(values, 0, 2)
    return values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values


def resized(values: Float[Tensor, "height width"], size: tuple[int, int]) -> Float[Tensor, "h w"]:
    """Resizes by means over cells, which keeps the edges of a mask, also when it is enlarged."""
    return F.adaptive_avg_pool2d(values[None], size)[0]
