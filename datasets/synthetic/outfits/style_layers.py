"""Layers of an outfit from which all styles paint, and the brushes that styles share.

Averaging the 512x512 cells over the pixels they fall in gives the share of each material in each pixel; where
neighbouring cells belong to different materials there is an outline.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from weftwork.datasets.synthetic.outfits.figure import (
    BACKGROUND,
    CANVAS_SIZE,
    DARK,
    FLOOR,
    LIGHT,
    SUIT,
    UNITS,
    Canvas,
)

Plane = NDArray[np.floating]  # [size, size]
Pixels = NDArray[np.floating]  # [size, size, 3]
Flags = NDArray[np.bool_]
Rgb = tuple[float, float, float]

BODY: Final = SUIT
"""Material of all that has a colour of its own."""
INK: Final = (30, 26, 38)
DARK_RGB: Final = (36, 30, 44)


@dataclass(eq=False)
class Scene:
    """Input of a style: layers in [0, 1] of shape [size, size], the one colour to paint with, and a random stream."""

    x: float
    ground: float
    size: int
    shares: dict[int, Plane]
    outer_edges: Flags
    inner_edges: Flags
    color: str
    rgb: Rgb
    rng: np.random.Generator

    @property
    def unit(self) -> float:
        """Pixels per unit."""
        return self.size / UNITS

    @cached_property
    def grid(self) -> tuple[Plane, Plane]:
        """Pixel centres in units, as (y, x)."""
        centers = (np.arange(self.size, dtype=np.float32) + 0.5) / np.float32(self.unit)
        y, x = np.meshgrid(centers, centers, indexing="ij")
        return y, x

    @cached_property
    def inside(self) -> Plane:
        """Share of each pixel that the person covers."""
        return 1 - self.shares[BACKGROUND]

    @cached_property
    def shadow(self) -> Plane:
        """Darkness of a form lit from the upper left; 0.5 where it faces us."""
        soft = blur(self.inside, 5 * self.unit)
        step = round(3 * self.unit)
        slope = np.roll(soft, step, (0, 1)) - np.roll(soft, -step, (0, 1))
        hollow = np.roll(blur(self.inner(1.5), 2.5 * self.unit), step // 2, (0, 1))
        return np.clip(0.42 + 1.1 * slope + 0.5 * hollow, 0, 1)

    def cast_shadow(self, height: float) -> Plane:
        """A soft pool of this height on the ground below."""
        y, x = self.grid
        columns = np.flatnonzero(self.inside.max(0) > 0.5) / self.unit
        half = 0.45 * float(columns[-1] - columns[0])
        pool = np.exp(-((((x - columns.mean()) / half) ** 2 + ((y - self.ground - 1) / height) ** 2) ** 2))
        return pool.astype(np.float32)

    def outer(self, width: float) -> Plane:
        """The outline of the person, this many units wide."""
        return self._outline("outer", width)

    def inner(self, width: float) -> Plane:
        """The outlines between materials and the strokes on them."""
        return self._outline("inner", width)

    def _outline(self, kind: str, width: float) -> Plane:
        """Outlines of each width are drawn once, since a scene is painted in one colour after the other."""
        if (kind, width) not in self._outlines:
            edges = self.outer_edges if kind == "outer" else self.inner_edges
            self._outlines[kind, width] = _read(_thick(edges, width), self.size)
        return self._outlines[kind, width]

    @cached_property
    def _outlines(self) -> dict[tuple[str, float], Plane]:
        return {}

    @cached_property
    def _stack(self) -> Pixels:
        return np.stack(list(self.shares.values()), axis=-1)

    def layer(self, material: int) -> Plane:
        """The share of a material, zero where there is none."""
        return self.shares.get(material, np.zeros((self.size, self.size), np.float32))

    def fill(self, palette: dict[int, Rgb]) -> Pixels:
        """The flat person before black; divide by ``inside`` for its colours alone."""
        colors = np.asarray([(palette | {BACKGROUND: (0, 0, 0)})[material] for material in self.shares], np.float32)
        return self._stack @ colors


def read_scene(canvas: Canvas, size: int, rgb: Rgb, rng: np.random.Generator) -> Scene:
    """The layers of a canvas at this size."""
    kept = (BACKGROUND, DARK, LIGHT)
    bodies = canvas.materials.point([material if material in kept else BODY for material in range(256)])
    parts, lines, materials = (np.asarray(one) for one in (canvas.materials, canvas.lines, bodies))
    shares = {material: _read(materials == material, size) for material in np.unique(materials).tolist()}
    inside = parts > 0
    outer, edges = _steps(inside), _steps(parts) | ((lines == parts) & inside)
    return Scene(canvas.figure.x, FLOOR - 4, size, shares, outer, edges & ~outer, "", rgb, rng)


def palette(body: Rgb) -> dict[int, Rgb]:
    """Colours of the materials, with this one of the body."""
    return {BODY: body, DARK: DARK_RGB, LIGHT: (255, 255, 255)}


def mix(one: Rgb, other: Rgb, part: float) -> Rgb:
    """One colour with a part of another."""
    red, green, blue = (float((1 - part) * a + part * b) for a, b in zip(one, other, strict=True))
    return red, green, blue


def lightness(rgb: Rgb) -> float:
    """Perceived lightness in [0, 1]."""
    return (0.30 * rgb[0] + 0.59 * rgb[1] + 0.11 * rgb[2]) / 255


def over(picture: Pixels, color: Rgb | Pixels, alpha: Plane | Flags | float) -> Pixels:
    """A colour laid over an image."""
    part = np.asarray(alpha, np.float32)[..., None]
    return (picture + part * (np.asarray(color, np.float32) - picture)).astype(np.float32)


def sheet(scene: Scene, color: Rgb, *, grain: float = 0.0, mottle: float = 0.0) -> Pixels:
    """Paper: a plain colour with fine grain and soft mottling, both as a part of its brightness."""
    tone = 1 + grain * scene.rng.standard_normal((scene.size, scene.size), np.float32) + mottle * field(scene, 7)
    return (np.asarray(color, np.float32) * tone[..., None]).astype(np.float32)


def field(scene: Scene, knots: int) -> Plane:
    """Smooth noise in about [-1, 1]."""
    coarse = Image.fromarray(scene.rng.uniform(-1, 1, (knots, knots)).astype(np.float32))
    return np.asarray(coarse.resize((scene.size, scene.size), Image.Resampling.BICUBIC), np.float32)


def hatch(
    scene: Scene,
    degrees: float,
    period: float,
    width: Plane | float,
    *,
    wobble: float = 0.0,
    phase: float | None = None,
) -> Plane:
    """Parallel strokes.

    Args:
        width: how much of each period a stroke covers, 0 to 1.
        wobble: by how many units strokes wander.
        phase: where the first stroke begins, in units; drawn when left out.
    """
    y, x = scene.grid
    angle = np.deg2rad(degrees)
    across = -np.sin(angle) * x + np.cos(angle) * y + (scene.rng.uniform(0, period) if phase is None else phase)
    if wobble:
        across = across + wobble * field(scene, 9)
    distance = np.abs(across - period * np.floor(across / period) - 0.5 * period)
    return np.clip((0.5 * period * np.asarray(width) - distance) * scene.unit + 0.5, 0, 1).astype(np.float32)


def ramp(distance: Plane, scene: Scene) -> Plane:
    """1 where a signed distance in units is negative, with a clean edge."""
    return np.clip(0.5 - distance * scene.unit, 0, 1).astype(np.float32)


def blur(plane: Plane, radius: float) -> Plane:
    """A box blur done twice."""
    image = Image.fromarray((np.clip(plane, 0, 1) * 255).astype(np.uint8))
    image = image.filter(ImageFilter.BoxBlur(radius)).filter(ImageFilter.BoxBlur(radius))
    return np.divide(np.asarray(image), 255, dtype=np.float32)


def shift(plane: np.ndarray, right: float, down: float, scene: Scene) -> np.ndarray:
    """A layer moved by whole pixels; offsets are in units."""
    return np.roll(plane, (round(down * scene.unit), round(right * scene.unit)), (0, 1))


def warp(layers: Sequence[np.ndarray], reach: float, scene: Scene) -> list[np.ndarray]:
    """Layers shaken together by smooth noise, by up to about this many units."""
    rows, columns = np.indices((scene.size, scene.size))
    down, right = (np.rint(reach * scene.unit * field(scene, 24)).astype(np.intp) for _ in range(2))
    row, column = np.clip(rows + down, 0, scene.size - 1), np.clip(columns + right, 0, scene.size - 1)
    return [layer[row, column] for layer in layers]


def _steps(cells: np.ndarray) -> Flags:
    """Cells that differ from the one to the right or below."""
    steps = np.zeros(cells.shape, np.bool_)
    steps[:, :-1] |= cells[:, 1:] != cells[:, :-1]
    steps[:-1] |= cells[1:] != cells[:-1]
    return steps


def _thick(flags: Flags, width: float) -> Flags:
    """Flags grown to this many units across."""
    for axis in (0, 1):
        reach, left = 1, round(width * CANVAS_SIZE / UNITS) - 1
        start = -(left // 2)
        while left > 0:
            step = min(reach, left)
            flags = flags | np.roll(flags, step, axis)
            reach, left = reach + step, left - step
        flags = np.roll(flags, start, axis)
    return flags


def _read(cells: Flags, size: int) -> Plane:
    image = Image.fromarray(cells.view(np.uint8) * np.uint8(255)).reduce(CANVAS_SIZE // size)
    return np.divide(np.asarray(image), 255, dtype=np.float32)
