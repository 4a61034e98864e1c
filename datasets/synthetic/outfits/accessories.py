"""The outlines and construction lines of shoes and accessories."""

import numpy as np

from weftwork.datasets.synthetic.outfits.figure import DARK, LIGHT, Canvas, mirrored


def paint_sneakers(canvas: Canvas, material: int, rng: np.random.Generator) -> None:
    """Low shoes with a light sole."""
    collar, toe, sole = rng.uniform(105.5, 107), rng.uniform(8.5, 10.5), rng.uniform(1.8, 2.6)
    for side in (0, 1):
        x, _ = canvas.figure.ankles[side]
        out = 2 * side - 1
        shape = [
            (x - out * 5.6, collar),
            (x + out * 5.0, collar - 1),
            (x + out * 6.5, 112),
            (x + out * (toe + 1.5), 115.5),
        ]
        shape += [(x + out * (toe + 1.5), 121), (x - out * 6.6, 121), (x - out * 6.4, 113)]
        canvas.polygon(shape, material, rounds=1)
        canvas.polygon(
            [
                (x - out * 7, 122 - sole),
                (x + out * (toe + 2), 122 - sole),
                (x + out * (toe + 2), 122.5),
                (x - out * 7, 122.5),
            ],
            LIGHT,
        )
        for y in (108.5, 111, 113.5):
            canvas.line([(x - out * 1, y), (x + out * (y - 104.5) * 0.7, y - 0.6)], material)
        canvas.line([(x + out * 5, 121), (x + out * (toe - 3), 116.5), (x + out * (toe - 1), 115)], material)


def paint_boots(canvas: Canvas, material: int, rng: np.random.Generator) -> None:
    """High shoes with a dark heel."""
    top, toe, wide = rng.uniform(90, 95), rng.uniform(7.5, 9.5), rng.uniform(6.4, 7.8)
    for side in (0, 1):
        x, _ = canvas.figure.ankles[side]
        knee = canvas.figure.knees[side][0]
        out = 2 * side - 1
        upper = x + (knee - x) * (113 - top) / 23
        shape = [(upper - wide, top), (upper + wide, top), (x + 5.8 if out < 0 else x + 6.2, 111)]
        shape += [(x + toe + 1, 116), (x + toe + 1, 121)] if out > 0 else [(x + 6.2, 121)]
        shape += [(x - 6.2, 121)] if out > 0 else [(x - toe - 1, 121), (x - toe - 1, 116)]
        shape += [(x - 5.8 if out > 0 else x - 6.2, 111)]
        canvas.polygon(shape, material, rounds=1)
        canvas.polygon(
            [
                (x - out * 6.6, 120),
                (x + out * (toe + 1), 120),
                (x + out * (toe + 1), 122.4),
                (x - out * 6.6, 122.4),
            ],
            DARK,
            rounds=1,
        )
        canvas.line([(upper - wide - 1, top + 3), (upper + wide + 1, top + 3)], material)
        canvas.line([(x - 7, 112.5), (x, 114), (x + 7, 112.5)], material)
        canvas.line([(upper + out * 3, top + 3), (x + out * 3, 111)], material, width=0.6)


def paint_hat(canvas: Canvas, material: int, rng: np.random.Generator) -> None:
    """A crown on a brim."""
    brim = rng.uniform(14, 19)
    crown, top, line = rng.uniform(9.8, 11.6), rng.uniform(-2, 0), rng.uniform(10.6, 12.2)
    dent = rng.uniform(0, 2)
    canvas.polygon(
        [
            (-crown - 1, line),
            (-crown, top + 2),
            (-3, top),
            (0, top + dent),
            (3, top),
            (crown, top + 2),
            (crown + 1, line),
        ],
        material,
        rounds=1,
    )
    droop = rng.uniform(-1.5, 2.5)
    canvas.polygon(
        [
            (-brim, line + droop),
            (-crown, line - 1.5),
            (crown, line - 1.5),
            (brim, line + droop),
            (brim - 2, line + 2.4 + droop),
            (0, line + 3.4),
            (-brim + 2, line + 2.4 + droop),
        ],
        material,
    )
    canvas.line([(-crown - 2, line - 1.4), (0, line - 0.4), (crown + 2, line - 1.4)], material)
    canvas.line([(-crown - 2, line - 4.2), (0, line - 3.2), (crown + 2, line - 4.2)], material, width=0.6)


def paint_bag(canvas: Canvas, material: int, rng: np.random.Generator) -> None:
    """A bag at the hip, on a strap across the chest."""
    b, side = canvas.figure.build, 1 if rng.random() < 0.5 else -1
    x, y = side * rng.uniform(15, 18) * b, rng.uniform(60, 64)
    half, height, taper = rng.uniform(10.5, 13), rng.uniform(19, 24), rng.uniform(-1.8, 1.8)
    canvas.polygon(
        [(-side * 9.0 * b, 29), (-side * 6.6 * b, 28.4), (x + 1.5, y + 1), (x - 1.5, y + 2)],
        material,
        rounds=0,
    )
    canvas.polygon(
        [(-side * 9.0 * b, 29.5), (-side * 6.2 * b, 28.6), (x + side * 3, y + 2), (x, y + 2)],
        material,
        rounds=0,
    )
    canvas.polygon(
        [(x - half + taper, y), (x + half - taper, y), (x + half, y + height), (x - half, y + height)],
        material,
        rounds=int(rng.integers(1, 3)),
    )
    flap = rng.uniform(0.35, 0.6) * height
    canvas.line(
        [
            (x - half, y + 1),
            (x - half + 3, y + flap - 2),
            (x, y + flap),
            (x + half - 3, y + flap - 2),
            (x + half, y + 1),
        ],
        material,
    )
    canvas.line(
        [(x - 1, y + flap - 1.5), (x + 1, y + flap - 1.5), (x + 1, y + flap + 2), (x - 1, y + flap + 2)],
        material,
        width=1,
    )


def paint_scarf(canvas: Canvas, material: int, rng: np.random.Generator) -> None:
    """A wrap around the neck with two tails."""
    side = 1 if rng.random() < 0.5 else -1
    wide, length, drift = rng.uniform(4.6, 5.8), rng.uniform(56, 66), rng.uniform(-2, 3)
    x = side * rng.uniform(4, 6)
    canvas.limb([(x, 31), (x + side * drift, length)], [wide - 0.8, wide], material)
    second = rng.uniform(42, 52)
    canvas.limb([(x - side * 4, 31), (x - side * (7 + drift), second)], [wide - 0.8, wide], material)
    canvas.polygon(mirrored([(7, 24.5), (11.4, 26.5), (11.6, 31), (8, 35.5)]), material)
    canvas.line([(-10.5, 29), (-3, 32), (5, 31), (10.5, 27.5)], material)
    for end, tail in ((x + side * drift, length), (x - side * (7 + drift), second)):
        for offset in np.linspace(-wide + 1, wide - 1, 4):
            canvas.line([(end + float(offset), tail - 3.5), (end + float(offset), tail)], material, width=0.7)
