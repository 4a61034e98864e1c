"""Creatures on four legs: cat, rabbit, elephant, giraffe and dragon, from the side and from the front."""

from typing import Final

from weftwork.datasets.synthetic.creatures.figure import BODY, BONE, DARK, DEEP, PALE, Canvas
from weftwork.datasets.synthetic.creatures.parts import Anchors, cheeks, eyes, smile


def cat_side(canvas: Canvas) -> Anchors:
    """A cat on four legs with its tail up."""
    figure = canvas.figure
    canvas.limb([(-24, 26), (-42, 28), (-45, 46), (-36, 48 + 14 * figure.tail)], [5, 5, 4.5, 4], BODY)
    for x in (-16.0, 11.0):
        canvas.leg((x, 22), x + 2, 5, DEEP)
    body = canvas.ellipse((-5, 28), (25, 15), BODY)
    canvas.ellipse((-3, 20), (16, 6), PALE, part=body)
    for x in (-23.0, 4.0):
        canvas.leg((x, 24), x, 5.6, BODY, part=body)
    canvas.focus((20, 51), figure.head)
    _cat_head(canvas, 20, 51, 3)
    return Anchors((20, 66), 12, -6, (12, 36), 13, -22, (-38, 58), (-24, 92))


def cat_front(canvas: Canvas) -> Anchors:
    """A sitting cat."""
    figure = canvas.figure
    canvas.limb([(12, 6), (32, 6), (38, 18), (32, 26 + 8 * figure.tail)], [5, 5, 4.5, 4], BODY)
    body = canvas.polygon([(-14, 44), (14, 44), (25, 10), (20, 0), (-20, 0), (-25, 10)], BODY)
    canvas.ellipse((0, 22), (11, 15), PALE, part=body)
    for side in (-1, 1):
        canvas.leg((side * 9, 22), side * 9, 5.6, BODY)
    canvas.focus((0, 56), figure.head)
    _cat_head(canvas, 0, 56, 0)
    return Anchors((0, 72), 13, 0, (0, 40), 15, 0, (23, 12), (37, 88))


def _cat_head(canvas: Canvas, x: float, y: float, turn: float) -> None:
    ears = canvas.figure.ears
    for side in (-1, 1):
        tip = (x + side * 17 + turn, y + 12 + 15 * ears)
        ear = canvas.polygon([(x + side * 19, y + 2), tip, (x + side * 3, y + 13)], BODY, rounds=1)
        canvas.polygon(
            [(x + side * 15, y + 8), (tip[0] - side * 1.5, tip[1] - 5), (x + side * 8, y + 12)],
            DEEP, part=ear, rounds=1,
        )  # fmt: skip
    head = canvas.ellipse((x, y), (21, 16.5), BODY)
    for dx in (-5.0, 0.0, 5.0):
        canvas.polygon(
            [(x + turn + dx - 1.3, y + 17), (x + turn + dx + 1.3, y + 17), (x + turn + dx * 0.8, y + 9)],
            DEEP, part=head, rounds=0,
        )  # fmt: skip
    canvas.ellipse((x + 1.6 * turn, y - 7), (9, 6), PALE, part=head)
    cheeks(canvas, (x + turn, y - 6), 14, head)
    eyes(canvas, (x + 1.3 * turn, y + 1), 8.4, 4.6, look=turn / 3)
    canvas.polygon(
        [(x + 1.8 * turn - 2.6, y - 3.6), (x + 1.8 * turn + 2.6, y - 3.6), (x + 1.8 * turn, y - 6.6)],
        DARK, part=head, rounds=0,
    )  # fmt: skip
    for side in (-1, 1):
        smile(canvas, (x + 1.8 * turn + side * 2.6, y - 9), 2.6, head)


def rabbit_side(canvas: Canvas) -> Anchors:
    """A crouching rabbit with upright ears."""
    figure = canvas.figure
    canvas.ellipse((-30, 22), (7.5 * figure.tail, 7.5 * figure.tail), PALE)
    canvas.leg((10, 18), 14, 4.2, DEEP)
    body = canvas.ellipse((-8, 23), (23, 20), BODY, tilt=-8)
    canvas.leg((6, 20), 8, 4.8, BODY, part=body)
    haunch = canvas.ellipse((-16, 16), (14, 13), BODY)
    canvas.leg((-14, 9), -2 if not figure.leaps else -22, 4.8, BODY, part=haunch)
    canvas.focus((16, 45), figure.head)
    for dx, material in ((-3.0, DEEP), (6.0, BODY)):
        _rabbit_ear(canvas, 10 + dx, 53, -10 + dx, material)
    head = canvas.ellipse((17, 45), (18, 15.5), BODY)
    _rabbit_face(canvas, 17, 45, 4, head)
    return Anchors((16, 59), 11, -8, (10, 33), 12, -25, (-26, 32), (-28, 84))


def rabbit_front(canvas: Canvas) -> Anchors:
    """A sitting rabbit with both ears up."""
    figure = canvas.figure
    body = canvas.polygon([(-12, 42), (12, 42), (23, 16), (19, 1), (-19, 1), (-23, 16)], BODY)
    canvas.ellipse((0, 20), (12, 14), PALE, part=body)
    for side in (-1, 1):
        foot = canvas.ellipse((side * 16, 5), (9.5 * figure.limbs, 5.6), BODY)
        canvas.ellipse((side * 16, 4), (5, 2.6), PALE, part=foot)
        canvas.limb([(side * 13, 32), (side * 11, 24), (side * 6, 20)], [4.4, 4.4, 4.2], BODY)
    canvas.focus((0, 52), figure.head)
    for side in (-1, 1):
        _rabbit_ear(canvas, side * 8, 62, side * 7, BODY)
    head = canvas.ellipse((0, 52), (19, 16), BODY)
    _rabbit_face(canvas, 0, 52, 0, head)
    return Anchors((0, 67), 12, 0, (0, 37), 13, 0, (17, 28), (38, 78))


def _rabbit_ear(canvas: Canvas, x: float, y: float, lean: float, material: int) -> None:
    tip = y + 33 * canvas.figure.ears
    ear = canvas.limb([(x, y), (x + 0.3 * lean, 0.5 * (y + tip)), (x + lean, tip)], [5, 7, 5], material)
    canvas.limb([(x, y), (x + 0.3 * lean, 0.5 * (y + tip)), (x + lean, tip - 1)], [2, 3.6, 2], PALE, part=ear)


def _rabbit_face(canvas: Canvas, x: float, y: float, turn: float, head: int) -> None:
    canvas.ellipse((x + 1.8 * turn, y - 8), (8, 6), PALE, part=head)
    cheeks(canvas, (x + turn, y - 6), 12.5, head)
    eyes(canvas, (x + 1.2 * turn, y + 1.5), 8, 4.5, look=turn / 4)
    canvas.ellipse((x + 1.9 * turn, y - 4), (2.4, 1.8), DARK, part=head)
    canvas.line([(x + 1.9 * turn, y - 5), (x + 1.9 * turn, y - 10)], head, width=1.2)
    smile(canvas, (x + 1.9 * turn, y - 10), 4, head)


def elephant_side(canvas: Canvas) -> Anchors:
    """An elephant with its trunk out in front."""
    figure = canvas.figure
    canvas.limb([(-34, 40), (-43, 34), (-44, 22)], [2, 1.8, 2.6], BODY)
    for x in (-22.0, 10.0):
        canvas.leg((x, 26), x + 3, 7, DEEP)
    body = canvas.ellipse((-10, 38), (29, 22), BODY)
    for x in (-29.0, 2.0):
        canvas.leg((x, 28), x, 7.6, BODY, part=body)
    canvas.focus((20, 50), figure.head)
    canvas.limb([(32, 46), (46, 40), (41, 20), (50, 14), (54, 22)], [9, 7, 5.5, 4.5, 4.2], BODY)
    canvas.polygon([(28, 42), (34, 40), (42, 36), (34, 34)], BONE, rounds=1)
    head = canvas.ellipse((23, 52), (17.5, 17), BODY)
    cheeks(canvas, (29, 46), 3, head)
    smile(canvas, (28, 41), 4, head)
    eyes(canvas, (30, 55), 5.4, 3.9, look=1)
    ear = canvas.ellipse((6, 50), (12 * figure.ears, 15 * figure.ears), BODY, tilt=8)
    canvas.ellipse((6, 50), (7.5 * figure.ears, 10 * figure.ears), PALE, part=ear, tilt=8)
    return Anchors((23, 68), 13, -4, (4, 34), 15, -50, (-40, 36), (-34, 86))


def elephant_front(canvas: Canvas) -> Anchors:
    """An elephant with both ears spread and its trunk down."""
    figure = canvas.figure
    body = canvas.ellipse((0, 32), (25, 26), BODY)
    for side in (-1, 1):
        canvas.leg((side * 15, 26), side * 15, 8.4, BODY, part=body)
        canvas.ellipse((side * 15, 2.4), (5.6, 1.8), BONE, part=body)
    canvas.focus((0, 56), figure.head)
    for side in (-1, 1):
        ear = canvas.ellipse((side * 28, 58), (16 * figure.ears, 19 * figure.ears), BODY, tilt=side * -14)
        canvas.ellipse((side * 28, 57), (10 * figure.ears, 13 * figure.ears), PALE, part=ear, tilt=side * -14)
    head = canvas.ellipse((0, 56), (19.5, 19), BODY)
    cheeks(canvas, (0, 52), 13, head)
    for side in (-1, 1):
        canvas.polygon([(side * 8, 44), (side * 14, 44), (side * 15, 30), (side * 11, 32)], BONE, rounds=1)
    trunk = canvas.limb([(0, 50), (0, 34), (2, 20), (9, 15)], [8, 6.8, 5.4, 4.6], BODY)
    for y in (42.0, 35.0, 28.0):
        canvas.line([(-5, y), (0, y - 1.5), (5, y)], trunk, width=1.1)
    eyes(canvas, (0, 60), 9.4, 4.4)
    return Anchors((0, 74), 14, 0, (0, 36), 17, 0, (20, 20), (44, 92))


def giraffe_side(canvas: Canvas) -> Anchors:
    """A giraffe with its long neck up."""
    figure = canvas.figure
    canvas.limb([(-24, 42), (-33, 38), (-35, 24)], [2, 1.6, 3.2], DEEP)
    for x in (-13.0, 8.0):
        canvas.leg((x, 36), x + 3, 3.8, DEEP)
    body = canvas.ellipse((-6, 41), (22, 13), BODY, tilt=10)
    for x in (-21.0, 1.0):
        canvas.leg((x, 38), x, 4.2, BODY, part=body)
    canvas.limb([(5, 44), (14, 62), (20, 84)], [10, 6.5, 6], BODY, part=body)
    for x, y, radius in ((-20, 42, 4), (-10, 46, 4.6), (-11, 36, 3.2), (1, 40, 4.6), (7, 51, 3.8), (13, 61, 3.2)):
        canvas.ellipse((x, y), (radius, 0.8 * radius), DEEP, part=body, tilt=20)
    canvas.ellipse((16.5, 70), (2.8, 3), DEEP, part=body)
    canvas.focus((24, 86), figure.head)
    _giraffe_horns(canvas, 20, 92, (-3.0, 5.0))
    canvas.limb([(15, 86), (8, 89), (4, 92)], [2.4, 3.6 * figure.ears, 1.6], BODY)
    head = canvas.ellipse((24, 87), (12.5, 9.5), BODY, tilt=-10)
    canvas.ellipse((34, 82), (9.5, 7), PALE, part=head, tilt=-10)
    eyes(canvas, (25.5, 89), 5, 3.9, look=1)
    smile(canvas, (36, 78.6), 3.6, head)
    canvas.ellipse((39, 83.5), (1.1, 1.4), DARK, part=head)
    return Anchors((20, 98), 9, -8, (12, 58), 9, -20, (-33, 32), (-30, 84))


def giraffe_front(canvas: Canvas) -> Anchors:
    """A giraffe that looks at us over its long neck."""
    figure = canvas.figure
    body = canvas.ellipse((0, 34), (17, 16), BODY)
    for side in (-1, 1):
        canvas.leg((side * 11, 30), side * 12, 4.8, BODY, part=body)
    canvas.limb([(0, 38), (0, 60), (0, 80)], [11, 7, 6.5], BODY, part=body)
    for x, y, radius in ((-9, 36, 4.6), (8, 40, 4.4), (-2, 28, 4), (-3, 50, 3.6), (3, 60, 3.2), (-3, 68, 2.8)):
        canvas.ellipse((x, y), (radius, 0.9 * radius), DEEP, part=body)
    canvas.focus((0, 84), figure.head)
    _giraffe_horns(canvas, 0, 92, (-5.0, 5.0))
    for side in (-1, 1):
        canvas.limb([(side * 9, 88), (side * 16, 90), (side * 21, 93)], [2.6, 4 * figure.ears, 1.6], BODY)
    head = canvas.ellipse((0, 86), (13, 10.5), BODY)
    canvas.ellipse((0, 78.5), (10, 7.5), PALE, part=head)
    eyes(canvas, (0, 88), 6.6, 4.1)
    for side in (-1, 1):
        canvas.ellipse((side * 3.4, 80.5), (1.1, 1.4), DARK, part=head)
    smile(canvas, (0, 75.6), 4, head)
    return Anchors((0, 97), 10, 0, (0, 56), 10, 0, (15, 26), (38, 82))


def _giraffe_horns(canvas: Canvas, x: float, y: float, offsets: tuple[float, float]) -> None:
    for dx in offsets:
        horn = canvas.limb([(x + dx, y), (x + 1.2 * dx, y + 9)], [1.6, 1.6], BODY)
        canvas.ellipse((x + 1.2 * dx, y + 9), (2.5, 2.5), DEEP, part=horn)


def dragon_side(canvas: Canvas) -> Anchors:
    """A dragon with one wing up and a long tail."""
    figure, tail = canvas.figure, 36 + 10 * canvas.figure.tail
    canvas.limb([(-10, 18), (-32, 8), (4 - tail, 14), (-tail, 30)], [13, 8, 4, 2], BODY)
    canvas.polygon([(-tail - 8, 29), (-tail, 43), (7 - tail, 30), (-tail, 32)], DEEP, rounds=1)
    for x in (-10.0, 12.0):
        canvas.leg((x, 18), x + 3, 5.6, DEEP)
    _spikes(canvas, [(-30, 17), (-23, 27), (-14, 37), (-4, 44)])
    body = canvas.ellipse((-3, 27), (21, 18), BODY, tilt=25)
    canvas.ellipse((5, 22), (12, 13), PALE, part=body, tilt=25)
    for y in (16.0, 22.0, 28.0):
        canvas.line([(-4, y - 2), (6, y - 3), (18, y + 1)], body, width=1.0)
    canvas.limb([(6, 34), (16, 46)], [12, 9], BODY, part=body)
    for x in (-16.0, 8.0):
        canvas.leg((x, 18), x, 6, BODY, part=body)
    canvas.focus((22, 56), figure.head)
    _dragon_horns(canvas, 14, 64, (-5.0, 4.0), -7)
    head = canvas.ellipse((20, 56), (16, 14), BODY)
    canvas.ellipse((34, 51), (12, 8.5), BODY, part=head, tilt=-6)
    cheeks(canvas, (24, 49), 5, head)
    eyes(canvas, (23, 60), 6.2, 4.4, look=1)
    canvas.ellipse((42, 54), (1.3, 1.6), DARK, part=head)
    smile(canvas, (34, 46.6), 5.5, head)
    canvas.focus((-8, 34), figure.ears)
    wing = canvas.polygon(
        [(-6, 32), (-8, 58), (-26, 74), (-28, 60), (-38, 56), (-30, 46), (-34, 38), (-18, 38)], DEEP, rounds=1
    )
    canvas.line([(-7, 34), (-14, 54), (-26, 72)], wing)
    canvas.line([(-7, 34), (-22, 48), (-37, 55)], wing)
    return Anchors((18, 68), 11, -4, (12, 38), 13, -30, (-46, 30), (-4, 94))


def dragon_front(canvas: Canvas) -> Anchors:
    """A sitting dragon with both wings spread."""
    figure, tail = canvas.figure, canvas.figure.tail
    for side in (-1, 1):
        canvas.focus((side * 12, 36), figure.ears)
        wing = canvas.polygon(
            [(side * x, y) for x, y in ((8, 34), (22, 60), (46, 66), (43, 52), (50, 42), (40, 36), (40, 25), (26, 28))],
            DEEP, rounds=1,
        )  # fmt: skip
        canvas.line([(side * 12, 36), (side * 26, 56), (side * 45, 64)], wing)
        canvas.line([(side * 12, 34), (side * 30, 44), (side * 48, 42)], wing)
    canvas.focus((0, 0), 1.0)
    canvas.limb([(-8, 8), (-30, 4), (-40 * tail, 12)], [8, 5, 2], BODY)
    canvas.polygon([(-40 * tail - 7, 10), (-40 * tail - 3, 23), (-40 * tail + 5, 12)], DEEP, rounds=1)
    body = canvas.polygon([(-13, 44), (13, 44), (24, 14), (18, 0), (-18, 0), (-24, 14)], BODY)
    canvas.ellipse((0, 20), (13, 18), PALE, part=body)
    for y in (12.0, 20.0, 28.0):
        canvas.line([(-11, y), (0, y - 2), (11, y)], body, width=1.0)
    for side in (-1, 1):
        canvas.ellipse((side * 16, 5), (9 * figure.limbs, 5.6), BODY)
    canvas.focus((0, 54), figure.head)
    _dragon_horns(canvas, 0, 66, (-9.0, 9.0), 0)
    head = canvas.ellipse((0, 57), (18, 15), BODY)
    canvas.ellipse((0, 48), (14, 8.5), BODY, part=head)
    cheeks(canvas, (0, 51), 14, head)
    eyes(canvas, (0, 60), 8.2, 4.6)
    for side in (-1, 1):
        canvas.ellipse((side * 4, 51), (1.4, 1.6), DARK, part=head)
    smile(canvas, (0, 45), 6, head)
    return Anchors((0, 71), 12, 0, (0, 39), 14, 0, (20, 30), (40, 92))


def _spikes(canvas: Canvas, feet: list[tuple[float, float]]) -> None:
    for x, y in feet:
        canvas.polygon([(x - 5, y - 2), (x - 5, y + 9), (x + 4, y + 4)], BONE, rounds=0)


def _dragon_horns(canvas: Canvas, x: float, y: float, offsets: tuple[float, float], lean: float) -> None:
    for dx in offsets:
        canvas.limb(
            [(x + dx, y), (x + 1.3 * dx + 0.5 * lean, y + 8), (x + 1.5 * dx + lean, y + 15)], [3.4, 2.6, 0.8], BONE
        )


LEGGED: Final = {
    "cat": (cat_side, cat_front),
    "rabbit": (rabbit_side, rabbit_front),
    "elephant": (elephant_side, elephant_front),
    "giraffe": (giraffe_side, giraffe_front),
    "dragon": (dragon_side, dragon_front),
}
