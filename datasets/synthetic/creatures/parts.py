"""Parts that all creatures share: eyes, mouths, cheeks and accessories."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from weftwork.datasets.synthetic.creatures.figure import (
    ACCENT,
    CHEEK,
    DARK,
    LIGHT,
    TRIM,
    UNITS,
    Canvas,
    Point,
)


@dataclass(frozen=True)
class Anchors:
    """Positions of accessories, in body units; tilts are in degrees against the clock."""

    hat: Point
    hat_half: float
    hat_tilt: float
    neck: Point
    neck_half: float
    neck_tilt: float
    hold: Point
    balloon: Point


def eyes(canvas: Canvas, center: Point, gap: float, radius: float, *, look: float = 0.0) -> None:
    """Two round eyes; look moves the pupils aside, from -1 to 1."""
    for side in (-1, 1):
        eye(canvas, (center[0] + side * gap, center[1]), radius, look=look)


def eye(canvas: Canvas, center: Point, radius: float, *, look: float = 0.0) -> None:
    """A white with a large pupil and a glint."""
    x, y = center
    part = canvas.ellipse(center, (radius, 1.12 * radius), LIGHT)
    x += 0.26 * radius * look
    canvas.ellipse((x, y - 0.08 * radius), (0.68 * radius, 0.82 * radius), DARK, part=part)
    canvas.ellipse((x + 0.2 * radius, y + 0.36 * radius), (0.25 * radius, 0.27 * radius), LIGHT, part=part)


def cheeks(canvas: Canvas, center: Point, gap: float, part: int) -> None:
    """Two blushes on a part."""
    for side in (-1, 1):
        canvas.ellipse((center[0] + side * gap, center[1]), (3.4, 2.2), CHEEK, part=part)


def smile(canvas: Canvas, center: Point, half: float, part: int) -> None:
    """A curved mouth on a part."""
    x, y = center
    canvas.line([(x - half, y + 0.5 * half), (x, y - 0.5 * half), (x + half, y + 0.5 * half)], part, width=1.4)


def hat(canvas: Canvas, anchors: Anchors) -> None:
    """A tall hat with a band."""
    half = anchors.hat_half
    frame = _frame(anchors.hat, anchors.hat_tilt)
    crown = canvas.polygon(
        frame([(-0.62 * half, 0), (-0.7 * half, 15), (0.7 * half, 15), (0.62 * half, 0)]), ACCENT, rounds=1
    )
    canvas.polygon(
        frame([(-0.66 * half, 1), (-0.67 * half, 6), (0.67 * half, 6), (0.66 * half, 1)]), TRIM, part=crown, rounds=0
    )
    canvas.ellipse(anchors.hat, (half * 1.15, 3.0), ACCENT, tilt=anchors.hat_tilt)


def scarf(canvas: Canvas, anchors: Anchors) -> None:
    """A band around the neck with a striped hanging end."""
    left = -0.75 * anchors.neck_half
    frame = _frame(anchors.neck, anchors.neck_tilt)
    end = canvas.polygon(frame([(left, 0), (left + 9, 0), (left + 7, -19), (left - 3, -18)]), ACCENT, rounds=1)
    for y in (-10.5, -15.0):
        canvas.polygon(
            frame([(left - 1.5, y), (left - 1.5, y + 2.8), (left + 7.6, y + 2.4), (left + 7.4, y - 0.4)]),
            TRIM, part=end, rounds=0,
        )  # fmt: skip
    canvas.ellipse(anchors.neck, (anchors.neck_half * 1.12, 4.6), ACCENT, tilt=anchors.neck_tilt)


def balloon(canvas: Canvas, anchors: Anchors) -> None:
    """A balloon on a string, kept inside the image."""
    seen, origin, right, up = canvas.place([anchors.balloon, (0, 0), (1, 0), (0, 1)])
    missing = np.clip(seen, 15, UNITS - 15) - seen
    dx, dy = np.linalg.solve(np.stack([right - origin, up - origin], axis=1), missing).tolist()
    x, y = anchors.balloon[0] + dx, anchors.balloon[1] + dy
    middle = (0.5 * (x + anchors.hold[0]) + 4.0, 0.5 * (y - 12 + anchors.hold[1]))
    canvas.limb([(x, y - 13), middle, anchors.hold], [0.55, 0.55, 0.55], DARK)
    ball = canvas.ellipse((x, y), (10.0, 12.0), ACCENT)
    canvas.polygon([(x - 2.6, y - 14.5), (x + 2.6, y - 14.5), (x, y - 11)], ACCENT, part=ball, rounds=0)
    canvas.ellipse((x - 3.6, y + 4.4), (2.2, 3.6), TRIM, part=ball, tilt=-25)


def _frame(origin: Point, tilt: float) -> Callable[[list[Point]], list[Point]]:
    """A function that places points given relative to a tilted origin."""
    cos, sin = float(np.cos(np.deg2rad(tilt))), float(np.sin(np.deg2rad(tilt)))
    return lambda points: [(origin[0] + cos * x - sin * y, origin[1] + sin * x + cos * y) for x, y in points]


ACCESSORY_PAINTERS: Final = {"hat": hat, "scarf": scarf, "balloon": balloon}
