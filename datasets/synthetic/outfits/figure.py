"""The person under the outfit: pose, proportions and the index canvas all shapes are painted on.

Every shape is a polygon of one material. Later shapes hide earlier ones, so the finished canvas says for each
of its 512x512 cells which material is seen there: image, masks and sketches are all read from it.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

CANVAS_SIZE: Final = 512
UNITS: Final = 128  # all shapes are given in units of 1/128 of the image's side
CELLS_PER_UNIT: Final = CANVAS_SIZE // UNITS
FLOOR: Final = 122.0
BREADTH: Final = 1.2  # figures are drawn broader than people are, so that garments cover many pixels

BACKGROUND, SKIN, HAIR, SUIT, DARK, LIGHT = range(6)
FIRST_GARMENT: Final = 10  # the material of a garment is FIRST_GARMENT + index of its slot

Points = list[tuple[float, float]]
HAIR_STYLES: Final = ("short", "bob", "long", "bun", "curly", "side")


@dataclass(frozen=True)
class Figure:
    """Pose and proportions; joints are (left, right) in units, x from the body's axis."""

    x: float
    scale: float
    lean: float
    build: float
    shoulders: Points
    elbows: Points
    wrists: Points
    hips: Points
    knees: Points
    ankles: Points
    hair_style: str

    def place(self, points: Points) -> Points:
        """From body units to canvas cells."""
        return [
            (
                CELLS_PER_UNIT * (self.x + self.scale * (BREADTH * x + self.lean * (FLOOR - y) / 100)),
                CELLS_PER_UNIT * (FLOOR - self.scale * (FLOOR - y)),
            )
            for x, y in points
        ]


def draw_figure(rng: np.random.Generator) -> Figure:
    """A random pose."""
    build = rng.uniform(1.0, 1.14)
    stance = rng.uniform(0.5, 4.5)
    shift = rng.uniform(-1.5, 1.5)
    shoulders, elbows, wrists, hips, knees, ankles = ([] for _ in range(6))
    for side in (-1, 1):
        upper = np.deg2rad(rng.uniform(16, 50))
        lower = upper + np.deg2rad(rng.choice([rng.uniform(-30, 12), rng.uniform(-75, -45)], p=[0.8, 0.2]))
        shoulder = (side * 14.2 * build, 33.0)
        elbow = (shoulder[0] + side * 16 * np.sin(upper), shoulder[1] + 16 * np.cos(upper))
        wrist = (elbow[0] + side * 15 * np.sin(lower), elbow[1] + 15 * np.cos(lower))
        hip = (side * 7.0 * build + 0.4 * shift, 67.0)
        ankle = (side * (6.6 * build + stance) + shift, 113.0)
        knee = (0.5 * (hip[0] + ankle[0]) + side * rng.uniform(-0.6, 1.2), 90.0)
        for joints, joint in zip(
            (shoulders, elbows, wrists, hips, knees, ankles),
            (shoulder, elbow, wrist, hip, knee, ankle),
            strict=True,
        ):
            joints.append((float(joint[0]), float(joint[1])))
    x, scale, lean = 64 + rng.uniform(-5, 5), rng.uniform(0.95, 0.988), rng.uniform(-4, 4)
    style = HAIR_STYLES[int(rng.integers(len(HAIR_STYLES)))]
    return Figure(x, scale, lean, build, shoulders, elbows, wrists, hips, knees, ankles, style)


class Canvas:
    """A canvas of material indices, with a second one for the construction lines inside garments."""

    def __init__(self, figure: Figure) -> None:
        self.figure = figure
        self.materials = Image.new("L", (CANVAS_SIZE, CANVAS_SIZE), BACKGROUND)
        self.lines = Image.new("L", (CANVAS_SIZE, CANVAS_SIZE), BACKGROUND)
        self._paint = ImageDraw.Draw(self.materials)
        self._draw = ImageDraw.Draw(self.lines)

    def polygon(self, points: Points, material: int, *, rounds: int = 2) -> None:
        """A closed shape; each round cuts its corners once."""
        for _ in range(rounds):
            points = _cut_corners(points)
        self._paint.polygon(self.figure.place(points), fill=material)

    def ellipse(self, center: tuple[float, float], radii: tuple[float, float], material: int) -> None:
        """An axis-parallel ellipse."""
        (left, top), (right, bottom) = self.figure.place(
            [(center[0], center[1] - radii[1]), (center[0], center[1] + radii[1])]
        )
        middle, half = 0.5 * (left + right), CELLS_PER_UNIT * BREADTH * self.figure.scale * radii[0]
        self._paint.ellipse((middle - half, top, middle + half, bottom), fill=material)

    def limb(self, joints: Points, half_widths: list[float], material: int) -> None:
        """A tapered tube through the joints, rounded at the inner ones."""
        self.polygon(limb_outline(joints, half_widths), material, rounds=1)
        for joint, half_width in zip(joints[1:-1], half_widths[1:-1], strict=True):
            self.ellipse(joint, (half_width, half_width), material)

    def line(self, points: Points, material: int, *, width: float = 0.8) -> None:
        """A construction line of a garment; seen only where the garment is."""
        self._draw.line(
            self.figure.place(points),
            fill=material,
            width=max(1, round(CELLS_PER_UNIT * width)),
            joint="curve",
        )


def limb_outline(joints: Points, half_widths: list[float]) -> Points:
    """The outline of a tapered tube: down one side, back up the other."""
    spine = np.asarray(joints)
    directions = np.gradient(spine, axis=0)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    offset = np.stack([-directions[:, 1], directions[:, 0]], axis=1) * np.asarray(half_widths)[:, None]
    outline = np.concatenate([spine + offset, (spine - offset)[::-1]])
    return [(float(x), float(y)) for x, y in outline]


def along(joints: Points, fraction: float) -> Points:
    """The first part of a polyline of equal-length pieces."""
    position = fraction * (len(joints) - 1)
    whole = min(int(position), len(joints) - 2)
    (x0, y0), (x1, y1) = joints[whole], joints[whole + 1]
    rest = position - whole
    return [*joints[: whole + 1], (x0 + rest * (x1 - x0), y0 + rest * (y1 - y0))]


def arm(figure: Figure, side: int) -> Points:
    """Shoulder, elbow, wrist."""
    return [figure.shoulders[side], figure.elbows[side], figure.wrists[side]]


def leg(figure: Figure, side: int) -> Points:
    """Hip, knee, ankle."""
    return [figure.hips[side], figure.knees[side], figure.ankles[side]]


def paint_body(canvas: Canvas) -> None:
    """Back hair, limbs, torso and the plain body suit."""
    figure, build = canvas.figure, canvas.figure.build
    _paint_back_hair(canvas)
    for side in (0, 1):
        canvas.limb(arm(figure, side), [5.0, 4.0, 3.2], SKIN)
        canvas.ellipse(figure.wrists[side], (3.8, 4.4), SKIN)
        canvas.limb(leg(figure, side), [7.6 * build, 6.0, 4.2], SKIN)
        foot = figure.ankles[side]
        outwards = 2 * side - 1
        canvas.polygon(
            [
                (foot[0] - 4.2, 110),
                (foot[0] + 4.2, 110),
                (foot[0] + outwards * 3 + 5, 121),
                (foot[0] + outwards * 3 - 5, 121),
            ],
            SKIN,
        )
        canvas.limb(along(leg(figure, side), 0.3), [8.0 * build, 7.4 * build], SUIT)
    canvas.polygon([(-4.6, 20), (4.6, 20), (5.2, 32), (-5.2, 32)], SKIN, rounds=1)
    b = build
    canvas.polygon(
        mirrored([(5, 28.5), (12.5 * b, 30), (15.5 * b, 35), (13.5 * b, 44), (12 * b, 56), (14.4 * b, 68)]),
        SKIN,
    )
    canvas.polygon(
        mirrored(
            [
                (5 * b, 38),
                (8 * b, 30),
                (11 * b, 30),
                (11.5 * b, 38),
                (13.4 * b, 45),
                (12 * b, 56),
                (14.4 * b, 66),
                (12 * b, 73),
                (1, 74),
            ]
        ),
        SUIT,
        rounds=1,
    )


def paint_head(canvas: Canvas) -> None:
    """Head, face and front hair."""
    style = canvas.figure.hair_style
    canvas.ellipse((0, 16), (8.8, 10.4), SKIN)
    for x in (-3.4, 3.4):
        canvas.ellipse((x, 16.6), (1.0, 1.3), DARK)
    canvas.polygon([(-2.6, 21.4), (2.6, 21.4), (1.2, 22.8), (-1.2, 22.8)], DARK, rounds=1)
    if style == "curly":
        for angle in np.linspace(np.pi, 2 * np.pi, 8):
            canvas.ellipse((9 * float(np.cos(angle)), 12 + 7 * float(np.sin(angle))), (4.2, 4.2), HAIR)
    elif style == "side":
        canvas.polygon([(-9.6, 18), (-9.8, 8), (-3, 4), (5, 4), (9.8, 9), (9.4, 17), (6, 11), (-5, 10)], HAIR)
    else:
        canvas.polygon([(-9.6, 17), (-9.8, 8), (-4, 4), (4, 4), (9.8, 8), (9.6, 17), (7, 12), (0, 9.6), (-7, 12)], HAIR)


def mirrored(right: Points) -> Points:
    """A closed outline from its right half, given from top to bottom."""
    return [*right, *[(-x, y) for x, y in reversed(right)]]


def _paint_back_hair(canvas: Canvas) -> None:
    style = canvas.figure.hair_style
    if style == "bob":
        canvas.polygon(mirrored([(6, 4), (11, 10), (12, 25), (8, 28)]), HAIR)
    elif style == "long":
        canvas.polygon(mirrored([(6, 4), (11, 10), (12, 30), (13, 44), (6, 46)]), HAIR)
    elif style == "bun":
        canvas.ellipse((0, 4.6), (4.6, 4.2), HAIR)


def _cut_corners(points: Points) -> Points:
    """One round of Chaikin's corner cutting on a closed polygon."""
    cut: Points = []
    for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
        cut.append((0.8 * x0 + 0.2 * x1, 0.8 * y0 + 0.2 * y1))
        cut.append((0.2 * x0 + 0.8 * x1, 0.2 * y0 + 0.8 * y1))
    return cut
