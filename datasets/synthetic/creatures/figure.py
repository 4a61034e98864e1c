"""The canvas creatures are drawn on: shapes of one material each, grouped into parts.

Shapes are given in body units, x to the right and y up from the ground, for a creature that faces right. Later
shapes hide earlier ones. Shapes of one part meet without an outline; two parts meet at one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

CANVAS_SIZE: Final = 512
UNITS: Final = 128  # all shapes are given in units of 1/128 of the image's side
CELLS_PER_UNIT: Final = CANVAS_SIZE // UNITS
PIVOT: Final = (0.0, 32.0)
SIZES: Final = {"giraffe": 0.85, "elephant": 0.93, "dragon": 0.95, "octopus": 0.97}  # of species that reach far

BACKGROUND, BODY, PALE, DEEP, CHEEK, BONE, DARK, LIGHT, ACCENT, TRIM = range(10)

Point = tuple[float, float]
Points = Sequence[Point]
Array = np.ndarray[tuple[int, int], np.dtype[np.float64]]

_TURN: Final = np.linspace(0, 2 * np.pi, 36, endpoint=False)
_CIRCLE: Final = np.stack([np.cos(_TURN), np.sin(_TURN)], axis=1)


@dataclass(frozen=True)
class Figure:
    """Place and proportions of one creature; proportions are factors near 1."""

    x: float
    ground: float
    scale: float
    breadth: float
    head: float
    ears: float
    tail: float
    limbs: float
    angle: float
    lift: float
    mirror: int

    @property
    def leaps(self) -> bool:
        """Whether the creature is off the ground with its legs stretched out."""
        return self.lift > 0


def draw_figure(species: str, pose: str, rng: np.random.Generator) -> Figure:
    """A random figure; the same stream gives the same proportions in every pose."""
    x, ground, scale = 64 + rng.uniform(-4, 4), 114 + rng.uniform(-3, 3), rng.uniform(0.94, 1.04)
    breadth, head = rng.uniform(0.94, 1.07, 2)
    ears, tail, limbs = rng.uniform(0.86, 1.16, 3)
    angle, lift = rng.uniform(20, 30), rng.uniform(15, 20)
    leaps = pose == "jumping"
    return Figure(
        x, ground, scale * SIZES.get(species, 1.0) * (0.9 if leaps else 1.0), breadth, head, ears, tail, limbs,
        float(np.deg2rad(angle)) if leaps else 0.0, lift if leaps else 0.0, -1 if pose == "left" else 1,
    )  # fmt: skip


class Canvas:
    """Collects shapes; ``parts`` and ``materials`` turn them into cells of shape [512, 512]."""

    def __init__(self, figure: Figure) -> None:
        self.figure = figure
        self._shapes = Image.new("L", (CANVAS_SIZE, CANVAS_SIZE), 0)
        self._lines = Image.new("L", (CANVAS_SIZE, CANVAS_SIZE), 0)
        self._paint, self._stroke = ImageDraw.Draw(self._shapes), ImageDraw.Draw(self._lines)
        self._material_of, self._part_of = [BACKGROUND], [0]
        self._center, self._factor = np.zeros(2), 1.0

    def focus(self, center: Point, factor: float) -> None:
        """From now on, enlarge about a point."""
        self._center, self._factor = np.asarray(center), factor

    def place(self, points: Points | Array) -> Array:
        """From body units to image units, y down; [point, 2]."""
        figure = self.figure
        local = self._center + self._factor * (np.asarray(points, np.float64) - self._center) - PIVOT
        x, y = figure.breadth * local[:, 0], local[:, 1]
        cos, sin = np.cos(figure.angle), np.sin(figure.angle)
        x, y = cos * x - sin * y + PIVOT[0], sin * x + cos * y + PIVOT[1]
        return np.stack(
            [figure.x + figure.mirror * figure.scale * x, figure.ground - figure.lift - figure.scale * y], axis=1
        )

    def polygon(self, points: Points, material: int, *, part: int | None = None, rounds: int = 2) -> int:
        """A closed shape, each round cuts its corners once; returns its part, a new one if none is given."""
        outline = np.asarray(points, np.float64)
        for _ in range(rounds):
            after = np.roll(outline, -1, axis=0)
            outline = np.stack([0.78 * outline + 0.22 * after, 0.22 * outline + 0.78 * after], axis=1).reshape(-1, 2)
        return self._fill(outline, material, part)

    def ellipse(self, center: Point, radii: Point, material: int, *, part: int | None = None, tilt: float = 0.0) -> int:
        """An ellipse, tilted against the clock in degrees; returns its part."""
        cos, sin = np.cos(np.deg2rad(tilt)), np.sin(np.deg2rad(tilt))
        turn = np.array([[cos, sin], [-sin, cos]])
        return self._fill(_CIRCLE * radii @ turn + center, material, part)

    def limb(self, joints: Points, half_widths: Sequence[float], material: int, *, part: int | None = None) -> int:
        """A smooth tapered tube through the joints with round ends; returns its part."""
        spine, widths = _smooth(joints, half_widths)
        ahead = np.gradient(spine, axis=0)
        ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
        offset = np.stack([-ahead[:, 1], ahead[:, 0]], axis=1) * widths[:, None]
        part = self._fill(np.concatenate([spine + offset, (spine - offset)[::-1]]), material, part)
        for end in (0, -1):
            self._fill(_CIRCLE * widths[end] + spine[end], material, part)
        return part

    def leg(self, hip: Point, foot_x: float, half_width: float, material: int, *, part: int | None = None) -> int:
        """A leg down to the ground, stretched outwards when the creature leaps; returns its part."""
        half_width *= self.figure.limbs
        foot = (foot_x, half_width)
        if self.figure.leaps:
            foot = (foot_x + (14.0 if foot_x > -6 else -14.0), half_width + 5.0)
        knee = (0.5 * (hip[0] + foot[0]), 0.45 * (hip[1] + foot[1]))
        return self.limb([hip, knee, foot], [1.1 * half_width, half_width, half_width], material, part=part)

    def line(self, points: Points, part: int, *, width: float = 1.3) -> None:
        """A stroke on a part, seen only where the part is."""
        spine, _ = _smooth(points, [0.0] * len(points))
        self._stroke.line(_flat(self.place(spine)), fill=part, width=round(CELLS_PER_UNIT * width), joint="curve")

    @property
    def parts(self) -> Image.Image:
        """The part seen in each cell; 0 is background."""
        return self._shapes.point(_table(self._part_of))

    @property
    def materials(self) -> Image.Image:
        """The material seen in each cell."""
        return self._shapes.point(_table(self._material_of))

    @property
    def lines(self) -> Image.Image:
        """In each cell the part that owns the stroke there, seen or not; 0 without one."""
        return self._lines

    def _fill(self, outline: Array, material: int, part: int | None) -> int:
        shape = len(self._material_of)
        part = shape if part is None else part
        self._material_of.append(material)
        self._part_of.append(part)
        self._paint.polygon(_flat(self.place(outline)), fill=shape)
        return part


def _table(values: list[int]) -> list[int]:
    return values + [0] * (256 - len(values))


def _flat(points: Array) -> list[float]:
    return (CELLS_PER_UNIT * points).ravel().tolist()


def _smooth(joints: Points, half_widths: Sequence[float]) -> tuple[Array, np.ndarray]:
    """Cut the corners of an open polyline twice, keeping its ends."""
    path = np.column_stack([np.asarray(joints, np.float64), half_widths])
    for _ in range(2 if len(path) > 2 else 0):
        cut = np.stack([0.75 * path[:-1] + 0.25 * path[1:], 0.25 * path[:-1] + 0.75 * path[1:]], axis=1).reshape(-1, 3)
        path = np.concatenate([path[:1], cut[1:-1], path[-1:]])
    return path[:, :2], path[:, 2]
