"""Creatures that fly, swim and crawl: bird, fish, turtle, snail and octopus, from the side and from the front."""

from typing import Final

import numpy as np

from weftwork.datasets.synthetic.creatures.figure import BODY, BONE, DARK, DEEP, PALE, Canvas
from weftwork.datasets.synthetic.creatures.parts import Anchors, cheeks, eye, eyes, smile


def bird_side(canvas: Canvas) -> Anchors:
    """A round bird; its wing is up when it leaps."""
    figure = canvas.figure
    _bird_legs(canvas, (-6.0, 6.0), 4)
    tail = canvas.polygon(
        [(-16, 34), (-34 * figure.tail, 52), (-40 * figure.tail, 44), (-42 * figure.tail, 34), (-16, 22)],
        DEEP,
        rounds=1,
    )
    canvas.line([(-18, 30), (-37 * figure.tail, 44)], tail)
    body = canvas.ellipse((-2, 34), (25, 20), BODY, tilt=-12)
    canvas.focus((12, 54), figure.head)
    for dx, dy in ((-6.0, 9.0), (-1.0, 12.0), (5.0, 9.0)):
        canvas.limb([(10, 64), (10 + dx, 68 + dy * figure.ears)], [2.6, 2.2], BODY, part=body)
    canvas.polygon([(26, 57), (42, 51), (26, 46)], BONE, rounds=1)
    canvas.ellipse((13, 54), (17, 16), BODY, part=body)
    canvas.ellipse((6, 27), (15, 12), PALE, part=body, tilt=20)
    cheeks(canvas, (20, 48), 3, body)
    eyes(canvas, (18, 57), 6.2, 4.3, look=1)
    canvas.focus((0, 0), 1.0)
    if figure.leaps:
        wing = canvas.polygon([(6, 36), (-6, 28), (-22, 40), (-34, 62), (-20, 60), (-16, 68), (-6, 58)], DEEP, rounds=1)
    else:
        wing = canvas.polygon([(4, 40), (-12, 42), (-28, 28), (-16, 22), (-2, 22)], DEEP)
    canvas.line([(-2, 34), (-12, 33), (-20, 38 if figure.leaps else 28)], wing)
    return Anchors((11, 69), 12, 6, (8, 42), 16, -14, (-30, 40), (-24, 92))


def bird_front(canvas: Canvas) -> Anchors:
    """A round bird with both wings out."""
    figure = canvas.figure
    _bird_legs(canvas, (-8.0, 8.0), 0)
    for side in (-1, 1):
        canvas.polygon(
            [(side * x, y) for x, y in ((16, 48), (34, 44), (42 * figure.tail, 30), (32, 30), (28, 20), (14, 26))],
            DEEP, rounds=1,
        )  # fmt: skip
    body = canvas.ellipse((0, 33), (23, 21), BODY)
    canvas.focus((0, 54), figure.head)
    for dx, dy in ((-6.0, 9.0), (0.0, 12.0), (6.0, 9.0)):
        canvas.limb([(0, 64), (dx, 68 + dy * figure.ears)], [2.6, 2.2], BODY, part=body)
    canvas.ellipse((0, 54), (18.5, 16.5), BODY, part=body)
    canvas.ellipse((0, 27), (15, 13), PALE, part=body)
    cheeks(canvas, (0, 49), 13, body)
    canvas.polygon([(-6, 53), (6, 53), (0, 43)], BONE, rounds=1)
    eyes(canvas, (0, 58), 8.4, 4.6)
    return Anchors((0, 69), 13, 0, (0, 40), 20, 0, (34, 32), (42, 86))


def _bird_legs(canvas: Canvas, feet: tuple[float, float], forward: float) -> None:
    for x in feet:
        down = 6 if canvas.figure.leaps else 0
        back = -12 if canvas.figure.leaps else 0
        leg = canvas.limb([(x, 20), (x + back, 2 + down)], [1.8, 1.8], BONE)
        canvas.limb(
            [(x + back - 5 + forward, 2 + down), (x + back + 5 + forward, 2 + down)], [1.9, 1.9], BONE, part=leg
        )


def fish_side(canvas: Canvas) -> Anchors:
    """A round fish with a fan for a tail."""
    figure = canvas.figure
    tip, end = 22 * figure.tail, 16 * figure.tail
    canvas.polygon(
        [(-20, 40), (-40, 40 + tip), (-49, 40 + end), (-42, 40), (-49, 40 - end), (-40, 40 - tip)], DEEP, rounds=1
    )
    canvas.polygon([(-14, 54), (-10, 60 + 12 * figure.ears), (6, 60 + 12 * figure.ears), (20, 54)], DEEP)
    canvas.polygon([(-8, 24), (-12, 10), (4, 14), (8, 24)], DEEP)
    body = canvas.polygon([(-30, 40), (-14, 60), (14, 63), (38, 46), (38, 36), (14, 18), (-14, 20)], BODY)
    canvas.ellipse((8, 26), (20, 6), PALE, part=body, tilt=3)
    for x in (-14.0, -3.0):
        canvas.limb([(x - 2, 60), (x + 3, 40), (x - 2, 19)], [1, 2.4, 1], DEEP, part=body)
    fin = canvas.polygon([(4, 38), (-10, 34), (-12, 24), (2, 28)], PALE)
    canvas.line([(1, 34), (-8, 28)], fin, width=1.0)
    cheeks(canvas, (25, 34), 3, body)
    eye(canvas, (22, 47), 6.4 * figure.head, look=1)
    smile(canvas, (34, 36), 4, body)
    return Anchors((18, 61), 12, -14, (8, 40), 22, -84, (-40, 50), (-20, 94))


def fish_front(canvas: Canvas) -> Anchors:
    """A round fish seen head on."""
    figure = canvas.figure
    canvas.polygon([(-6, 56), (-4, 66 + 10 * figure.ears), (4, 66 + 10 * figure.ears), (6, 56)], DEEP)
    for side in (-1, 1):
        canvas.polygon(
            [(side * x, y) for x, y in ((18, 46), (30, 50), (42 * figure.tail, 40), (36, 30), (38, 20), (18, 30))],
            DEEP, rounds=1,
        )  # fmt: skip
        canvas.polygon([(side * 4, 20), (side * 8, 8), (side * 18, 10), (side * 14, 22)], DEEP, rounds=1)
    body = canvas.ellipse((0, 40), (24, 25), BODY)
    canvas.ellipse((0, 26), (15, 10), PALE, part=body)
    for dx in (-6.0, 0.0, 6.0):
        canvas.polygon([(dx - 1.8, 66), (dx + 1.8, 66), (0.8 * dx, 54)], DEEP, part=body, rounds=0)
    cheeks(canvas, (0, 36), 16, body)
    eyes(canvas, (0, 47), 14, 6.2 * figure.head)
    mouth = canvas.ellipse((0, 34), (6.5, 4.8), PALE)
    canvas.ellipse((0, 34), (3.6, 2.4), DARK, part=mouth)
    return Anchors((0, 63), 13, 0, (0, 24), 20, 0, (36, 34), (40, 90))


def turtle_side(canvas: Canvas) -> Anchors:
    """A turtle under a high shell."""
    figure = canvas.figure
    canvas.polygon([(-30, 18), (-44 * figure.tail, 12), (-28, 10)], PALE, rounds=1)
    for x in (-16.0, 12.0):
        canvas.leg((x, 14), x + 3, 5.6, DEEP)
    canvas.limb([(18, 18), (34, 24), (38, 36)], [8, 7.5, 8], PALE)
    for x in (-22.0, 6.0):
        canvas.leg((x, 14), x, 6.4, PALE)
    shell = canvas.polygon([(-36, 14), (-34, 34), (-16, 52), (8, 52), (26, 34), (28, 14)], BODY)
    for x, y, radius in ((-19, 30, 7.5), (-3, 38, 8.5), (12, 30, 7.5)):
        canvas.polygon(_hexagon(x, y, radius), DEEP, part=shell, rounds=0)
    rim = canvas.limb([(-36, 15), (-4, 13), (28, 15)], [4.4, 4.4, 4.4], BODY)
    for x in range(-30, 27, 8):
        canvas.line([(x, 10), (x, 20)], rim, width=1.0)
    canvas.focus((40, 42), figure.head)
    head = canvas.ellipse((40, 43), (14, 12.5), PALE)
    cheeks(canvas, (45, 37.5), 2, head)
    eyes(canvas, (43, 46), 5.4, 4.0, look=1)
    smile(canvas, (46, 37), 4.4, head)
    return Anchors((39, 54), 11, -4, (34, 26), 11, 20, (-38, 16), (-28, 78))


def turtle_front(canvas: Canvas) -> Anchors:
    """A turtle that looks at us from under its shell."""
    figure = canvas.figure
    for side in (-1, 1):
        canvas.limb([(side * 20, 16), (side * 30, 10), (side * 35, 5)], [6.4, 6, 5 * figure.limbs], PALE)
    shell = canvas.polygon([(-36, 12), (-33, 42), (-15, 61), (15, 61), (33, 42), (36, 12)], BODY)
    for x, y, radius in ((-20, 40, 8), (0, 53, 6.5), (20, 40, 8)):
        canvas.polygon(_hexagon(x, y, radius), DEEP, part=shell, rounds=0)
    canvas.limb([(-33, 13), (0, 11), (33, 13)], [4.6, 4.6, 4.6], BODY)
    for side in (-1, 1):
        canvas.leg((side * 14, 12), side * 16, 6, PALE)
    canvas.focus((0, 30), figure.head)
    head = canvas.ellipse((0, 29), (16.5, 14.5), PALE)
    cheeks(canvas, (0, 24.5), 11, head)
    eyes(canvas, (0, 32), 7, 4.5)
    smile(canvas, (0, 22), 4.6, head)
    return Anchors((0, 43), 12, 0, (0, 14), 13, 0, (33, 8), (42, 74))


def _hexagon(x: float, y: float, radius: float) -> list[tuple[float, float]]:
    turn = np.linspace(0, 2 * np.pi, 6, endpoint=False) + 0.5
    return [(x + radius * float(np.cos(t)), y + 0.9 * radius * float(np.sin(t))) for t in turn]


def snail_side(canvas: Canvas) -> Anchors:
    """A snail that crawls, its shell on its back."""
    figure = canvas.figure
    for x, lean in ((26.0, -1.0), (34.0, 5.0)):
        _snail_stalk(canvas, (x, 42), (x + lean + 1, 56 + 8 * figure.ears), 1)
    arch = 10 if figure.leaps else 0
    foot = canvas.limb(
        [(-44 * figure.tail, 4 - arch), (-20, 6 + arch), (8, 7 + arch), (24, 12), (30, 40)], [2, 7, 8, 10.5, 10], PALE
    )
    canvas.focus((-6, 32), 0.55 + 0.45 * figure.head)
    _snail_shell(canvas, -7, 34, 26)
    canvas.focus((0, 0), 1.0)
    cheeks(canvas, (33, 35), 2, foot)
    smile(canvas, (34, 37), 4.4, foot)
    return Anchors((30, 47), 10, -6, (28, 24), 12, -4, (-8, 58), (-26, 92))


def snail_front(canvas: Canvas) -> Anchors:
    """A snail that looks at us, its shell behind."""
    figure = canvas.figure
    canvas.focus((0, 40), 0.55 + 0.45 * figure.head)
    _snail_shell(canvas, 6, 42, 27)
    canvas.focus((0, 0), 1.0)
    for side in (-1, 1):
        _snail_stalk(canvas, (side * 6, 36), (side * 13, 54 + 8 * figure.ears), 0)
    foot = canvas.polygon([(-10, 46), (10, 46), (13, 26), (24, 6), (20, 0), (-20, 0), (-24, 6), (-13, 26)], PALE)
    cheeks(canvas, (0, 33), 8, foot)
    smile(canvas, (0, 33), 4.6, foot)
    return Anchors((0, 45), 10, 0, (0, 22), 14, 0, (30, 34), (42, 94))


def _snail_stalk(canvas: Canvas, foot: tuple[float, float], tip: tuple[float, float], look: float) -> None:
    canvas.limb([foot, tip], [2.6, 2.4], PALE)
    eye(canvas, tip, 4.6, look=look)


def _snail_shell(canvas: Canvas, x: float, y: float, radius: float) -> None:
    shell = canvas.ellipse((x, y), (radius, radius), BODY)
    turns = np.linspace(0, 5 * np.pi, 30)
    spiral = radius * (0.88 - 0.78 * turns / turns[-1])
    path = [
        (x + float(r * np.cos(t - 0.6)), y - float(r * np.sin(t - 0.6))) for r, t in zip(spiral, turns, strict=True)
    ]
    canvas.limb(path, np.linspace(3.0, 1.2, 30).tolist(), DEEP, part=shell)


def octopus_side(canvas: Canvas) -> Anchors:
    """An octopus that glides forward, its arms trailing."""
    figure = canvas.figure
    reach = figure.tail
    for i, (x, y, curl) in enumerate(((-41, 26, 8), (-38, 10, 8), (-24, 3, 7), (-5, 3, 8), (14, 4, 9))):
        joints = [(4 + 2 * i, 30), (0.4 * x + 4, y + 6), (x * reach, y), (x * reach - 7, y + curl)]
        canvas.limb(joints, [8, 6.4 * figure.limbs, 4.6, 2.4], DEEP if i % 2 else BODY)
    canvas.focus((4, 40), figure.head)
    head = canvas.polygon(
        [(-2, 26), (-30, 52), (-30, 76), (-8, 84), (16, 66), (28, 46), (26, 30), (12, 24)], BODY, rounds=3
    )
    for x, y, radius in ((-20, 66, 4), (-10, 74, 3), (-18, 54, 2.6)):
        canvas.ellipse((x, y), (radius, radius), DEEP, part=head)
    cheeks(canvas, (17, 38), 6, head)
    eyes(canvas, (16, 47), 6.6, 4.8, look=1)
    smile(canvas, (19, 36), 4, head)
    return Anchors((-10, 80), 13, 30, (8, 31), 19, 0, (-38, 12), (-34, 92))


def octopus_front(canvas: Canvas) -> Anchors:
    """An octopus with its arms spread evenly."""
    figure = canvas.figure
    for order, (x, y) in enumerate(((40, 22), (31, 6), (15, 3))):
        for side in (-1, 1):
            joints = [
                (side * 10, 32), (side * (0.6 * x + 2), y + 1),
                (side * x * figure.tail, y), (side * (x * figure.tail + 5), y + 11),
            ]  # fmt: skip
            canvas.limb(joints, [9, 6.6 * figure.limbs, 4.8, 2.6], DEEP if order == 1 else BODY)
    canvas.focus((0, 48), figure.head)
    head = canvas.polygon([(-16, 24), (-28, 52), (-22, 80), (22, 80), (28, 52), (16, 24)], BODY, rounds=3)
    for x, y, radius in ((-11, 72, 4), (0, 77, 3), (12, 68, 3)):
        canvas.ellipse((x, y), (radius, radius), DEEP, part=head)
    cheeks(canvas, (0, 42), 15, head)
    eyes(canvas, (0, 51), 9.4, 5.4)
    smile(canvas, (0, 39), 5, head)
    return Anchors((0, 78), 15, 0, (0, 31), 20, 0, (44, 28), (42, 94))


LEGLESS: Final = {
    "bird": (bird_side, bird_front),
    "fish": (fish_side, fish_front),
    "turtle": (turtle_side, turtle_front),
    "snail": (snail_side, snail_front),
    "octopus": (octopus_side, octopus_front),
}
