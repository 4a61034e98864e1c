"""From the canvas to the layers every style paints with, and the brushes styles share.

Averaging the 512x512 cells over the pixels they fall in gives the share of each material in each pixel; where
neighbouring cells belong to different parts there is an outline.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from weftwork.datasets.synthetic.creatures.figure import (
    ACCENT,
    BACKGROUND,
    BODY,
    BONE,
    CANVAS_SIZE,
    CHEEK,
    DARK,
    DEEP,
    LIGHT,
    PALE,
    TRIM,
    UNITS,
    Figure,
)

Plane = NDArray[np.floating]  # [size, size]
Pixels = NDArray[np.floating]  # [size, size, 3]
Flags = NDArray[np.bool_]
Rgb = tuple[float, float, float]

TINTED: Final = (BODY, PALE, DEEP, CHEEK)
INK: Final = (30, 26, 38)
PLAIN: Final[dict[int, Rgb]] = {
    BONE: (246, 222, 166),
    DARK: (36, 30, 44),
    LIGHT: (252, 252, 250),
    ACCENT: (64, 142, 148),
    TRIM: (240, 232, 210),
}


class Drawing(Protocol):
    """Cells of shape [512, 512]: which part, which part a stroke is on, and which material."""

    @property
    def figure(self) -> Figure: ...
    @property
    def parts(self) -> NDArray[np.uint8] | Image.Image: ...
    @property
    def lines(self) -> NDArray[np.uint8] | Image.Image: ...
    @property
    def materials(self) -> Image.Image: ...


@dataclass(frozen=True, eq=False)
class Scene:
    """All a style may know: layers in [0, 1] of shape [size, size], the body's colour and a random stream."""

    figure: Figure
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
        """Share of each pixel that the creature covers, its accessory included."""
        return 1 - self.shares[BACKGROUND]

    @cached_property
    def tinted(self) -> Plane:
        """Share of each pixel in the creature's colour or a tint of it."""
        return np.sum([self.shares[material] for material in TINTED if material in self.shares], axis=0)

    @cached_property
    def shadow(self) -> Plane:
        """Darkness of a form lit from the upper left; 0.5 where it faces us."""
        soft = blur(self.inside, 5 * self.unit)
        step = round(3 * self.unit)
        slope = np.roll(soft, step, (0, 1)) - np.roll(soft, -step, (0, 1))
        hollow = np.roll(blur(self.inner(1.5), 2.5 * self.unit), step // 2, (0, 1))
        return np.clip(0.42 + 1.1 * slope + 0.5 * hollow, 0, 1)

    def cast_shadow(self, height: float) -> Plane:
        """A soft pool of this height on the ground below, fainter when the creature leaps."""
        y, x = self.grid
        columns = np.flatnonzero(self.inside.max(0) > 0.5) / self.unit
        half = 0.45 * float(columns[-1] - columns[0])
        pool = np.exp(-((((x - columns.mean()) / half) ** 2 + ((y - self.figure.ground - 1) / height) ** 2) ** 2))
        return (pool * (0.7 if self.figure.leaps else 1.0)).astype(np.float32)

    def outer(self, width: float) -> Plane:
        """The outline of the whole creature, this many units wide."""
        return _read(_thick(self.outer_edges, width), self.size)

    def inner(self, width: float) -> Plane:
        """The outlines between parts and the strokes on them."""
        return _read(_thick(self.inner_edges, width), self.size)

    @cached_property
    def _stack(self) -> Pixels:
        return np.stack(list(self.shares.values()), axis=-1)

    def layer(self, material: int) -> Plane:
        """The share of a material, zero where there is none."""
        return self.shares.get(material, np.zeros((self.size, self.size), np.float32))

    def fill(self, palette: dict[int, Rgb]) -> Pixels:
        """The flat creature before black; divide by ``inside`` for its colours alone."""
        colors = np.asarray([(palette | {BACKGROUND: (0, 0, 0)})[material] for material in self.shares], np.float32)
        return self._stack @ colors


def read_scene(canvas: Drawing, size: int, color: str, rgb: Rgb, rng: np.random.Generator) -> Scene:
    """The layers of a canvas at this size."""
    parts, lines = np.asarray(canvas.parts), np.asarray(canvas.lines)
    present = [material for material, count in enumerate(canvas.materials.histogram()) if count]
    materials = np.asarray(canvas.materials)
    shares = {material: _read(materials == material, size) for material in present}
    inside = parts > 0
    outer, edges = _steps(inside), _steps(parts) | ((lines == parts) & inside)
    return Scene(canvas.figure, size, shares, outer, edges & ~outer, color, rgb, rng)


def mix(one: Rgb, other: Rgb, part: float) -> Rgb:
    """One colour with a part of another."""
    red, green, blue = (float((1 - part) * a + part * b) for a, b in zip(one, other, strict=True))
    return red, green, blue


def lightness(rgb: Rgb) -> float:
    """Perceived lightness in [0, 1]."""
    return (0.30 * rgb[0] + 0.59 * rgb[1] + 0.11 * rgb[2]) / 255


def tints(rgb: Rgb, *, pale: float = 0.42, deep: float = 0.30) -> dict[int, Rgb]:
    """The body's colour and its tints; the deep one of a dark colour is lighter, so that it is seen."""
    light = (255, 246, 228)
    dark = (66, 52, 96) if lightness(rgb) > 0.8 else (16, 10, 40)
    contrast = mix(rgb, (206, 202, 214), 0.85 * deep) if lightness(rgb) < 0.2 else mix(rgb, dark, deep)
    return {
        BODY: rgb,
        PALE: mix(rgb, light, 0.6 * pale if lightness(rgb) < 0.35 else pale),
        DEEP: contrast,
        CHEEK: mix(rgb, (255, 112, 128), 0.4),
        LIGHT: (255, 255, 255),
    }


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
