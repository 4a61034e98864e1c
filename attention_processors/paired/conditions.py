"""Conditions of the paired method: pairs of sketch and text, and one sketch of the whole image."""

from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from weftwork.attention_processors.core.condition import Condition
from weftwork.attention_processors.core.records import ChoiceKind, ImageKind, RegionKind, Schema, TextKind, recorded
from weftwork.attention_processors.core.regions import Area, ImageLike, from_array, resized
from weftwork.datasets.readers.errors import UserError, check_choice
from weftwork.datasets.readers.images import INKS, Ink, as_sketch, letterbox, read_sketch
from weftwork.datasets.readers.strokes import stroke_region
from weftwork.datasets.readers.texts import check_characters

Region = str | Area
SKETCH_HELP = "Path of an image, relative to this file: strokes on a plain ground, on the whole canvas."
INK = recorded(ChoiceKind(INKS), "Whether its strokes are dark or light; auto looks at the ground around them.")


@dataclass(frozen=True, eq=False)
class SketchTextPair(Condition):
    """A local sketch, text or both for one object on the canvas; the other arguments are those of `Condition`.

    Args:
        sketch: dark strokes on light ground, covering the whole canvas; an image, an array or a path.
        text: description of this object alone.
        region: as for `Condition`, or "sketch", the soft hull of its strokes.
        ink: "dark", "light" or "auto", as for `as_sketch`; light strokes are inverted, and then it is "dark".

    Raises:
        ValueError: neither sketch nor text, an empty or broken text, a sketch without strokes, or a file that cannot be
            read; and as for `Condition`.
    """

    needs: ClassVar[tuple[str, ...]] = ("sketch", "text")

    sketch: ImageLike | None = field(default=None, metadata=recorded(ImageKind(), SKETCH_HELP))
    text: str | None = field(default=None, metadata=recorded(TextKind(), "Description of this object alone."))
    _: KW_ONLY
    region: Region = field(
        default=None,
        metadata=recorded(
            RegionKind(sketch=True),
            'Where it acts: "sketch" (the soft hull of its strokes), a box [left, top, right, bottom] in fractions of '
            "the canvas, or the path of a mask, white where it acts. Left out, everywhere.",
        ),
    )
    ink: Ink = field(default="auto", metadata=INK)

    @classmethod
    def schema(cls) -> Schema:
        given = {"required": ["sketch"], "properties": {"sketch": {"type": "string"}}}
        drawn = {"required": ["region"], "properties": {"region": {"const": "sketch"}}}
        return super().schema() | {"if": drawn, "then": given}

    def __post_init__(self) -> None:
        if self.sketch is None and self.text is None:
            raise UserError("pair: got neither sketch nor text; give at least one of them")
        _check_text(self.text)
        check_choice("ink", self.ink, INKS)
        if self.sketch is not None:
            _read_sketch(self)
        super().__post_init__()

    def checked_region(self) -> Region:
        if not (isinstance(self.region, str) and self.region == "sketch"):
            return super().checked_region()
        if self.sketch is None:
            raise UserError('region: got "sketch" for a pair without a sketch; give a box, a mask or None')
        return self.region

    def region_map(self, size: tuple[int, int]) -> Float[Tensor, "height width"]:
        """Returns the region as a map in [0, 1] of a size (height, width)."""
        if self.region != "sketch":
            return super().region_map(size)
        assert isinstance(self.sketch, Image.Image)
        return resized(torch.from_numpy(np.array(stroke_region(self.sketch), np.float32)), size)

    @property
    def aspect(self) -> float | None:
        if self.region == "sketch":
            assert isinstance(self.sketch, Image.Image)
            return self.sketch.height / self.sketch.width
        return super().aspect


@dataclass(frozen=True, eq=False)
class GlobalSketch(Condition):
    """One sketch of the whole image, which refines all pairs and is read beside them (arXiv 2602.18309).

    Args:
        sketch, ink: as for `SketchTextPair`; the other arguments are those of `Condition`.

    Raises:
        ValueError: a sketch without strokes or one that cannot be read; and as for `Condition`.
    """

    needs: ClassVar[tuple[str, ...]] = ("global_sketch",)

    sketch: ImageLike = field(metadata=recorded(ImageKind(), SKETCH_HELP, key="global_sketch"))
    _: KW_ONLY
    ink: Ink = field(default="auto", metadata=INK)

    def __post_init__(self) -> None:
        super().__post_init__()
        _read_sketch(self)


@dataclass(frozen=True, eq=False)
class PreparedSketch(Condition):
    """A sketch as input pixels of an adapter's encoder, and its region as a map; datasets may cache it."""

    pixels: Float[Tensor, "channel size size"] | None
    _: KW_ONLY
    region: Float[Tensor, "height width"] | None = None  # pyright: ignore[reportIncompatibleVariableOverride]
    region_aspect: float | None = None
    """Height over width of the canvas that the region was drawn on."""

    def checked_region(self) -> Any:
        return self.region

    def region_map(self, size: tuple[int, int]) -> Float[Tensor, "height width"]:
        if self.region is None:
            return torch.ones(size)
        return self.region if tuple(self.region.shape) == size else resized(self.region, size)

    @property
    def aspect(self) -> float | None:
        return None if self.region is None else self.region_aspect


@dataclass(frozen=True, eq=False)
class PreparedPair(PreparedSketch):
    """A `SketchTextPair` as tensors, without its images."""

    text: str | None = None


def stroke_pixels(sketch: Image.Image, size: int) -> Float[Tensor, "2 size size"]:
    """Returns strokes (1 = ink) and their soft hull, letter-boxed to a square."""
    square = letterbox(sketch.convert("L"), size)
    strokes = 1 - np.array(square, np.float32) / 255
    return torch.from_numpy(np.stack([strokes, np.array(stroke_region(square), np.float32)]))


def _check_text(text: str | None) -> None:
    if text is None:
        return
    if not text.strip():
        raise UserError("text: got an empty text; describe the object, or leave text out for a sketch-only pair")
    check_characters(text, "text")


def _read_sketch(condition: SketchTextPair | GlobalSketch) -> None:
    """Replaces the sketch by an image of dark strokes, whose copies are not judged again."""
    given, ink = condition.sketch, condition.ink
    read = read_sketch(given, ink) if isinstance(given, str | Path) else as_sketch(from_array(given, "sketch"), ink)
    object.__setattr__(condition, "sketch", read)
    object.__setattr__(condition, "ink", "dark")
