"""The outlines and construction lines of tops and bottoms, and the table of all thirteen kinds."""

from collections.abc import Callable
from typing import Final

import numpy as np

from weftwork.datasets.synthetic.outfits.accessories import (
    paint_bag,
    paint_boots,
    paint_hat,
    paint_scarf,
    paint_sneakers,
)
from weftwork.datasets.synthetic.outfits.figure import (
    Canvas,
    Points,
    along,
    arm,
    leg,
    limb_outline,
    mirrored,
)

PaintGarment = Callable[[Canvas, int, np.random.Generator], None]


def _sleeves(canvas: Canvas, material: int, half_widths: list[float], length: float, cuff: float) -> None:
    """Both sleeves; with a cuff line at this distance from their ends."""
    for side in (0, 1):
        joints = along(arm(canvas.figure, side), length)
        widths = half_widths if len(joints) == 3 else [half_widths[0], half_widths[-1]]
        canvas.limb(joints, widths, material)
        outline = limb_outline(joints, widths)
        inner = outline[: len(joints)] if side else outline[len(joints) :]
        canvas.line([inner[0], inner[1]] if not side else inner, material)
        (x0, y0), (x1, y1) = joints[-2], joints[-1]
        span = np.hypot(x1 - x0, y1 - y0)
        dx, dy = (x1 - x0) / span, (y1 - y0) / span
        x, y, w = x1 - cuff * dx, y1 - cuff * dy, widths[-1] + 1
        canvas.line([(x - w * dy, y + w * dx), (x + w * dy, y - w * dx)], material)


def _t_shirt(canvas: Canvas, material: int, rng: np.random.Generator) -> None:
    b = canvas.figure.build
    hem, flare = rng.uniform(63, 67.5), rng.uniform(13.5, 16.5) * b
    neck, depth = rng.uniform(4.5, 7), rng.uniform(31.5, 35)
    right = [
        (neck * 0.5, depth),
        (neck, 29),
        (13 * b, 29.5),
        (16.5 * b, 33),
        (14.4 * b, 44),
        (13.6 * b, 56),
        (flare, hem),
    ]
    canvas.polygon(mirrored(right), material, rounds=1)
    width = rng.uniform(6.8, 8.6)
    _sleeves(canvas, material, [6.6, width - 0.4, width], rng.uniform(0.36, 0.58), 1.8)
    canvas.line([(-flare, hem - 2), (flare, hem - 2)], material)
    canvas.line(
        [
            (-neck - 1.5, 29),
            (-neck * 0.5 - 0.5, depth + 1.8),
            (neck * 0.5 + 0.5, depth + 1.8),
            (neck + 1.5, 29),
        ],
        material,
    )


def _sweater(canvas: Canvas, material: int, rng: np.random.Generator) -> None:
    b = canvas.figure.build
    hem, wide, band = rng.uniform(64.5, 69.5), rng.uniform(15.2, 17.5) * b, rng.uniform(3, 4.5)
    right = [
        (5.5, 28.5),
        (13.5 * b, 29),
        (17 * b, 33),
        (15.4 * b, 44),
        (wide, 56),
        (wide, hem - band),
        (wide - 2.2, hem),
    ]
    canvas.polygon(mirrored(right), material, rounds=1)
    width = rng.uniform(6.2, 7.6)
    _sleeves(canvas, material, [7.2, width, rng.uniform(4.6, 5.6)], rng.uniform(0.9, 0.97), 3.2)
    collar = rng.uniform(23.5, 26.5)
    canvas.polygon(mirrored([(5.8, collar), (7.4, 30), (4, 33)]), material, rounds=1)
    canvas.line([(-7.4, 30), (-3, 32.4), (3, 32.4), (7.4, 30)], material)
    canvas.line([(-wide, hem - band), (wide, hem - band)], material)
    for x in np.linspace(-wide + 3, wide - 3, 8):
        canvas.line([(float(x), hem - band), (float(x), hem)], material, width=0.6)


def _jacket(canvas: Canvas, material: int, rng: np.random.Generator) -> None:
    b = canvas.figure.build
    hem, wide, opening = rng.uniform(67, 74), rng.uniform(15.5, 18.5) * b, rng.uniform(0.8, 3.6)
    lapel = rng.uniform(42, 52)
    side = [
        (3.8, 26.5),
        (7, 28),
        (14 * b, 29),
        (17.5 * b, 33),
        (15.6 * b, 46),
        (15.0 * b, 56),
        (wide, hem),
        (opening + 1.2, hem + 1),
    ]
    for sign in (-1, 1):
        front = [*side, (opening, lapel)]
        canvas.polygon([(sign * x, y) for x, y in front], material, rounds=1)
    width = rng.uniform(6.4, 7.8)
    _sleeves(canvas, material, [7.2, width, rng.uniform(5.4, 6.8)], rng.uniform(0.9, 1.0), 3.6)
    pocket = rng.uniform(58, 63)
    for sign in (-1, 1):
        canvas.line([(sign * 4.2, 27), (sign * 9.5, 34.5), (sign * 6.8, 36.5), (sign * opening, lapel)], material)
        canvas.line([(sign * 7, pocket), (sign * 12 * b, pocket + rng.uniform(-1.5, 1.5))], material, width=1)
        canvas.line([(sign * (opening + 1.6), lapel), (sign * (opening + 2.6), hem)], material, width=0.6)


def _vest(canvas: Canvas, material: int, rng: np.random.Generator) -> None:
    b = canvas.figure.build
    hem, wide, depth = rng.uniform(63, 67.5), rng.uniform(13.2, 15.2) * b, rng.uniform(42, 50)
    point = rng.uniform(0, 4)
    right = [
        (0.3, depth),
        (5.5, 28.5),
        (10.2 * b, 29.5),
        (10.4 * b, 36),
        (13.6 * b, 44),
        (12.8 * b, 56),
        (wide, hem),
        (0.5, hem + point),
    ]
    canvas.polygon(mirrored(right), material, rounds=1)
    canvas.line([(0, depth), (0, hem + point)], material)
    for y in np.arange(depth + 3, hem - 1, 5.5):
        canvas.line([(1.6, float(y)), (3.0, float(y))], material, width=1.2)
    for sign in (-1, 1):
        canvas.line([(sign * 7.2, 29), (sign * 1.6, depth + 1.5)], material, width=0.6)
        canvas.line([(sign * 5.5, 60), (sign * 11 * b, 59)], material, width=1)


def _waist(canvas: Canvas, material: int, waist: float) -> None:
    b = canvas.figure.build
    canvas.polygon(mirrored([(12.6 * b, waist), (14.2 * b, 64), (15.2 * b, 71), (2, 76)]), material, rounds=1)
    canvas.line([(-14 * b, waist + 3), (14 * b, waist + 3)], material)


def _trousers(canvas: Canvas, material: int, rng: np.random.Generator) -> None:
    figure, b = canvas.figure, canvas.figure.build
    knee, ankle = rng.uniform(6.6, 7.8), rng.uniform(5.4, 9.2)
    _waist(canvas, material, rng.uniform(55, 58))
    length = rng.uniform(0.92, 1.0)
    for side in (0, 1):
        joints = along(leg(figure, side), length)
        canvas.limb(joints, [8.2 * b, max(knee, 0.5 * ankle + 2.5), ankle], material)
        end = joints[-1]
        canvas.line([(end[0] - 10, end[1] - 2), (end[0] + 10, end[1] - 2)], material)
        canvas.line([(joints[0][0], 74), joints[1], (end[0], end[1] - 2)], material, width=0.5)
    canvas.line([(0, 60), (0, 75)], material)
    for sign in (-1, 1):
        canvas.line([(sign * 9 * b, 62), (sign * 14.5 * b, 68)], material)


def _shorts(canvas: Canvas, material: int, rng: np.random.Generator) -> None:
    figure, b = canvas.figure, canvas.figure.build
    wide = rng.uniform(9, 10.6) * b
    _waist(canvas, material, rng.uniform(55, 58))
    length = rng.uniform(0.44, 0.58)
    for side in (0, 1):
        joints = along(leg(figure, side), length)
        canvas.limb([joints[0], joints[-1]], [8.4 * b, wide], material)
        end = joints[-1]
        canvas.line([(end[0] - 12, end[1] - 2.4), (end[0] + 12, end[1] - 2.4)], material)
    canvas.line([(0, 60), (0, 76)], material)
    for sign in (-1, 1):
        canvas.line([(sign * 9 * b, 62), (sign * 14.5 * b, 68)], material)


def _skirt_of(canvas: Canvas, material: int, rng: np.random.Generator, hem: float, flare: float) -> None:
    b = canvas.figure.build
    waist, pleats = rng.uniform(55, 58), int(rng.integers(2, 6))
    drop = rng.uniform(0, 3)
    bottom: Points = [(flare * b * x, hem + drop * (1 - x * x)) for x in (1.0, 0.6, 0.2)]
    middle = 0.35 * flare * b + 0.65 * 15.0 * b
    right = [(12.4 * b, waist), (14.6 * b, 66), (max(middle, 15.2 * b), 66 + 0.35 * (hem - 66)), *bottom]
    canvas.polygon(mirrored(right), material, rounds=1)
    canvas.line([(-14 * b, waist + 3), (14 * b, waist + 3)], material)
    for x in np.linspace(-0.7, 0.7, pleats):
        canvas.line([(float(x) * 12 * b, waist + 6), (float(x) * flare * b, hem + 2)], material, width=0.6)


def _skirt(canvas: Canvas, material: int, rng: np.random.Generator) -> None:
    _skirt_of(canvas, material, rng, rng.uniform(86, 92), rng.uniform(17.5, 24))


def _long_skirt(canvas: Canvas, material: int, rng: np.random.Generator) -> None:
    _skirt_of(canvas, material, rng, rng.uniform(100, 104), rng.uniform(17, 27))


PAINTERS: Final[dict[str, PaintGarment]] = {
    "t-shirt": _t_shirt,
    "sweater": _sweater,
    "jacket": _jacket,
    "vest": _vest,
    "trousers": _trousers,
    "shorts": _shorts,
    "skirt": _skirt,
    "long skirt": _long_skirt,
    "sneakers": paint_sneakers,
    "boots": paint_boots,
    "hat": paint_hat,
    "bag": paint_bag,
    "scarf": paint_scarf,
}
