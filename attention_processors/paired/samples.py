"""Conditions from samples that have one sketch and one text per object, such as synthetic outfits."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from PIL import Image

from weftwork.attention_processors.paired.conditions import SketchTextPair
from weftwork.datasets.readers.images import compose_sketches


class SketchedSample(Protocol):
    """A sample with one sketch, an image or [height, width] of bytes, and one text per object."""

    @property
    def sketches(self) -> "Sequence[object] | np.ndarray": ...

    @property
    def texts(self) -> Sequence[str]: ...


def pairs(sample: SketchedSample, region: str | None = "sketch") -> list[SketchTextPair]:
    """Returns a pair per object; a fully covered object has no strokes and only its text."""
    return [pair(sketch, text, region) for sketch, text in zip(sample.sketches, sample.texts, strict=True)]


def pair(sketch: Any, text: str, region: str | None = "sketch") -> SketchTextPair:
    """Returns the pair of one object."""
    pixels = np.asarray(sketch)
    if pixels.min() > 128:
        return SketchTextPair(text=text)
    return SketchTextPair(Image.fromarray(pixels), text, region=region)


def merged(sample: SketchedSample) -> list[SketchTextPair]:
    """Returns the sample as one pair: all sketches on one canvas, with all texts."""
    return [SketchTextPair(composed(sample), ", ".join(sample.texts), region="sketch")]


def composed(sample: SketchedSample) -> Image.Image:
    """Returns all sketches of a sample on one canvas."""
    return compose_sketches([Image.fromarray(np.asarray(sketch)) for sketch in sample.sketches])
