"""What a user says with sketches and words: pairs, and one sketch of the whole; validated when they are made."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from weft.attention_processors.strength import Schedule
from weft.datasets.images import as_image, as_sketch, letterbox, read_image, read_sketch, stroke_region

Picture = Image.Image | np.ndarray[Any, Any] | str | Path
Box = tuple[float, float, float, float]
Region = str | Picture | Box | None

REGION_SIZE = 128


@dataclass(frozen=True, eq=False)
class SketchTextPair:
    """One thing on the canvas: its sketch, its words, or both.

    Args:
        sketch: dark strokes on light ground, covering the whole canvas; a picture, an array or a path.
        text: words for this thing alone.
        weight: 0 means off, exactly; 1 as trained.
        region: where it acts: None (everywhere), "sketch" (the soft hull of its strokes), a box (left, top, right,
            bottom) in fractions of the canvas, or a mask (white = acts) of the canvas's aspect.
        start, end, curve: when it acts, see `Schedule`.

    Raises:
        ValueError: neither sketch nor text, an empty text, a sketch without strokes, a weight that is negative or not
            finite, a box outside the canvas, a schedule out of order; or a file that cannot be read.
    """

    sketch: Picture | None = None
    text: str | None = None
    weight: float = 1.0
    region: Region = None
    start: float = 0.0
    end: float = 1.0
    curve: Callable[[float], float] | None = None

    def __post_init__(self) -> None:
        if self.sketch is None and self.text is None:
            raise ValueError("pair: got neither sketch nor text; give at least one of them")
        if self.text is not None and not self.text.strip():
            raise ValueError("text: got an empty text; describe the thing, or leave text out for a sketch-only pair")
        check_weight(self.weight)
        Schedule(self.start, self.end, self.curve)
        if self.sketch is not None:
            object.__setattr__(self, "sketch", _sketch_image(self.sketch))
        object.__setattr__(self, "region", self._checked_region())

    @property
    def schedule(self) -> Schedule:
        return Schedule(self.start, self.end, self.curve)

    def _checked_region(self) -> Region:
        region = self.region
        if region is None:
            return None
        if isinstance(region, str) and region == "sketch":
            if self.sketch is None:
                raise ValueError('region: got "sketch" for a pair without a sketch; give a box, a mask or None')
            return region
        if isinstance(region, tuple | list):
            return check_box(region)
        return _mask_image(region)

    def region_map(self, size: tuple[int, int]) -> Float[Tensor, "height width"]:
        """The region in [0, 1] at a size (height, width)."""
        if self.region is None:
            return torch.ones(size)
        if isinstance(self.region, tuple):
            return box_region(self.region, size)
        if self.region == "sketch":
            assert isinstance(self.sketch, Image.Image)
            values = torch.from_numpy(np.array(stroke_region(self.sketch), np.float32))
        else:
            values = torch.from_numpy(np.asarray(self.region, np.float32) / 255)
        return _resized(values, size)

    @property
    def aspect(self) -> float | None:
        """Height over width of the region, where it has an aspect of its own."""
        if self.region == "sketch":
            assert isinstance(self.sketch, Image.Image)
            return self.sketch.height / self.sketch.width
        return self.region.height / self.region.width if isinstance(self.region, Image.Image) else None


@dataclass(frozen=True, eq=False)
class GlobalSketch:
    """One sketch of the whole picture, which refines all pairs and is read beside them (arXiv 2602.18309).

    Raises:
        ValueError: as for `SketchTextPair`.
    """

    sketch: Picture
    weight: float = 1.0
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        check_weight(self.weight)
        Schedule(self.start, self.end)
        object.__setattr__(self, "sketch", _sketch_image(self.sketch))


@dataclass(frozen=True, eq=False)
class PreparedPair:
    """A pair as tensors: what `SketchTextPair` says, without its pictures."""

    pixels: Float[Tensor, "channel size size"] | None
    text: str | None
    weight: float = 1.0
    schedule: Schedule = field(default_factory=Schedule)
    region: Float[Tensor, "height width"] | None = None
    aspect: float | None = None
    """Of the region, where it has one of its own."""


def stack_pairs(rows: Sequence[Sequence[PreparedPair]], blank: Float[Tensor, "channel size size"]) -> dict[str, Any]:
    """Ragged designs as padded tensors; `blank` stands where there is no sketch. Without any region there is none.

    Raises:
        ValueError: regions of different aspects.
    """
    most = max(1, *map(len, rows))
    padded: list[list[PreparedPair | None]] = [[*row, *[None] * (most - len(row))] for row in rows]

    def table(value: Callable[[PreparedPair], Any], absent: Any) -> list[list[Any]]:
        return [[absent if pair is None else value(pair) for pair in row] for row in padded]

    pixels = table(lambda p: blank if p.pixels is None else p.pixels, blank)
    region, aspect = _stacked_regions(padded)
    return {
        "sketch": torch.stack([torch.stack(row) for row in pixels]),
        "has_sketch": torch.tensor(table(lambda p: p.pixels is not None, False)),
        "has_text": torch.tensor(table(lambda p: p.text is not None, False)),
        "texts": table(lambda p: p.text or "", ""),
        "pair_mask": torch.tensor(table(lambda p: True, False)),
        "weight": torch.tensor(table(lambda p: float(p.weight), 0.0)),
        "schedules": table(lambda p: p.schedule, Schedule()),
        "region": region,
        "region_aspect": aspect,
    }


def _stacked_regions(
    rows: Sequence[Sequence[PreparedPair | None]],
) -> tuple[Float[Tensor, "design pair height width"] | None, float | None]:
    given = [pair for row in rows for pair in row if pair is not None and pair.region is not None]
    if not given:
        return None, None
    aspects = sorted({round(pair.aspect, 3) for pair in given if pair.aspect is not None})
    if len(aspects) > 1:
        raise ValueError(f"region: got aspects (height / width) {aspects}, expected one: draw all on the same canvas")
    size = region_size(aspects[0] if aspects else 1.0)

    def one(pair: PreparedPair | None) -> Tensor:
        if pair is None:
            return torch.zeros(size)
        if pair.region is None:
            return torch.ones(size)
        return pair.region if tuple(pair.region.shape) == size else _resized(pair.region, size)

    return torch.stack([torch.stack([one(pair) for pair in row]) for row in rows]), aspects[0] if aspects else None


def region_size(aspect: float) -> tuple[int, int]:
    """Height and width at which regions of an aspect (height / width) are kept."""
    if aspect >= 1:
        return REGION_SIZE, max(1, round(REGION_SIZE / aspect))
    return max(1, round(REGION_SIZE * aspect)), REGION_SIZE


def stroke_pixels(sketch: Image.Image, size: int) -> Float[Tensor, "2 size size"]:
    """Strokes (1 = ink) and the soft hull of them, letter-boxed to a square."""
    square = letterbox(sketch.convert("L"), size)
    strokes = 1 - np.array(square, np.float32) / 255
    return torch.from_numpy(np.stack([strokes, np.array(stroke_region(square), np.float32)]))


def check_weight(weight: float) -> None:
    if not (isinstance(weight, int | float) and math.isfinite(weight) and weight >= 0):
        raise ValueError(f"weight: got {weight!r}, expected a finite number of at least 0; 0 turns the condition off")


def check_box(box: Sequence[float]) -> Box:
    if len(box) != 4 or not all(isinstance(v, int | float) and math.isfinite(v) for v in box):
        raise ValueError(f"region: got {box!r}, expected four numbers: left, top, right, bottom")
    left, top, right, bottom = (float(v) for v in box)
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise ValueError(
            f"region: got {tuple(box)}, expected 0 <= left < right <= 1 and 0 <= top < bottom <= 1 "
            "(fractions of the canvas)"
        )
    return left, top, right, bottom


def box_region(box: Box, size: tuple[int, int]) -> Float[Tensor, "height width"]:
    """A box as the share of each cell that it covers."""

    def cover(low: float, high: float, count: int) -> Tensor:
        edges = torch.arange(count + 1, dtype=torch.float64) / count
        return ((edges[1:].clamp(max=high) - edges[:-1].clamp(min=low)).clamp(min=0) * count).float()

    left, top, right, bottom = box
    return cover(top, bottom, size[0])[:, None] * cover(left, right, size[1])[None]


def _sketch_image(given: Picture) -> Image.Image:
    if isinstance(given, str | Path):
        return read_sketch(given)
    return as_sketch(_from_array(given, "sketch"))


def _mask_image(given: Any) -> Image.Image:
    image = read_image(given, "L") if isinstance(given, str | Path) else as_image(_from_array(given, "region"), "L")
    if image.getextrema()[1] == 0:
        raise ValueError(
            "region: got a mask that is black everywhere, so the condition would act nowhere; use weight=0"
        )
    return image


def _from_array(given: Any, name: str) -> Image.Image:
    if isinstance(given, Image.Image):
        return given
    if not isinstance(given, np.ndarray):
        raise ValueError(f"{name}: got a {type(given).__name__}, expected a picture, an array or a path")
    values = given
    if values.dtype == np.bool_:
        values = values.astype(np.uint8) * 255
    elif np.issubdtype(values.dtype, np.floating):
        if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
            raise ValueError(f"{name}: got numbers outside [0, 1] in an array of floats; scale it, or pass bytes")
        values = (values * 255).round().astype(np.uint8)
    if values.dtype != np.uint8 or values.ndim not in (2, 3):
        raise ValueError(
            f"{name}: got an array of {given.dtype} with shape {given.shape}, expected bytes [height, width]"
        )
    return Image.fromarray(values)


def _resized(values: Float[Tensor, "height width"], size: tuple[int, int]) -> Float[Tensor, "h w"]:
    """Means over the cells, so that a mask ends where it ends, also when it is enlarged."""
    return F.adaptive_avg_pool2d(values[None], size)[0]
