"""Synthetic dataset of small hands in gloves with coloured fingertips, with exact joints and a box of the hand.

The hand fills at most a quarter of the image and points in any direction within 60 degrees of up. Fingertips and cuff
have colours that nothing else has, from which `weftwork.evaluation.scores.hands` reads them back.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageFilter

from weftwork.datasets.readers.errors import check_choice
from weftwork.datasets.readers.part_views import Box, part_box
from weftwork.datasets.synthetic.checks import check_draw
from weftwork.datasets.synthetic.hands.rendering import Capsule, Seen, render
from weftwork.datasets.synthetic.hands.skeleton import FINGERS, GESTURES, HAND, posed
from weftwork.datasets.synthetic.palettes import ROOMS

SPLITS: Final = ("train", "validation", "test")
SIZE: Final = 256
"""Side of the images; training halves it for the view of the whole image."""
KEYPOINTS: Final = (*FINGERS, "cuff")
COLORS: Final = ((220, 40, 40), (225, 215, 40), (50, 190, 60), (40, 190, 215), (60, 70, 220), (205, 50, 200))
"""Of the keypoints: hues 60 degrees apart."""
GLOVES: Final = {"white": (232, 230, 226), "grey": (158, 160, 164), "black": (74, 74, 80), "beige": (206, 192, 174)}
SLEEVES: Final = ((92, 98, 110), (128, 118, 110), (176, 178, 182), (66, 64, 68))
SHOWN: Final = (9, 12, 15, 18, 21, 1)
"""Capsules of the keypoints."""
FIRST_OF_HAND: Final = 2
"""Behind the capsules of sleeve and cuff."""
VISIBLE: Final = 0.35
"""Share of a keypoint's area above which it counts."""

Pixels = UInt8[np.ndarray, "side side channel"]


@dataclass(frozen=True, eq=False)
class HandSample:
    """A hand.

    Args:
        image: uint8 [SIZE, SIZE, 3].
        control: shaded render of the hand alone, on black, like `image`.
        joints: x and y in fractions of the side, from the upper left; the wrist, then four per finger.
        keypoints: of `KEYPOINTS`, like `joints`: middles of the last bones, and the cuff.
        visible: which keypoints can be seen.
        box: of the hand, as `part_box`.
    """

    image: Pixels
    control: Pixels
    joints: Float[np.ndarray, "21 2"]
    keypoints: Float[np.ndarray, "6 2"]
    visible: Bool[np.ndarray, " 6"]
    box: Box
    caption: str


def sample(split: str, index: int, seed: int = 0) -> HandSample:
    """Returns the sample of a split at an index; the same arguments give the same sample."""
    check_choice("split", split, SPLITS)
    check_draw(index, seed)
    rng = np.random.default_rng([SPLITS.index(split), seed, index, 24])
    gesture, glove = str(rng.choice(list(GESTURES))), str(rng.choice(list(GLOVES)))
    capsules, points = _placed(np.concatenate([np.zeros((1, 3)), posed(gesture, rng).reshape(-1, 3)]), rng)
    seen = render(capsules, 2 * SIZE)
    control = _halved(np.where(seen.index >= FIRST_OF_HAND, seen.light, 0)[..., None]).repeat(3, -1)
    tips = points[1:].reshape(len(FINGERS), -1, 2)[:, 2:].mean(1)
    cuff = _fractions(capsules[SHOWN[-1]].start[None])  # the sleeve covers its end
    return HandSample(
        image=_painted(seen, GLOVES[glove], rng),
        control=control,
        joints=points,
        keypoints=np.concatenate([tips, cuff]),
        visible=np.array([seen.visible(number) >= VISIBLE for number in SHOWN]),
        box=part_box(control),
        caption=f"{gesture} in a {glove} glove",
    )


def _placed(
    joints: Float[np.ndarray, "21 3"], rng: np.random.Generator
) -> tuple[list[Capsule], Float[np.ndarray, "21 2"]]:
    """Returns the capsules of sleeve, cuff, palm (5) and fingers (3 each) in pixels, and the joints in fractions."""
    low, size = joints.min(0) - 0.15, np.ptp(joints, axis=0) + 0.3
    scale = 2 * SIZE * rng.uniform(0.36, 0.48) / size[:2].max()
    corner = 2 * SIZE * 0.03 + (2 * SIZE * 0.94 - scale * size[:2]) * rng.uniform(0.15, 1, 2)
    joints = (joints - low * [1, 1, 0]) * scale + [*corner, 0]
    wrist, fingers = joints[0], joints[1:].reshape(len(FINGERS), -1, 3)
    back = wrist - fingers[2, 0]
    found = [
        Capsule(wrist + 0.30 * back, wrist + 7 * back, (0.27 * scale, 0.33 * scale)),
        Capsule(wrist + 0.06 * back, wrist + 0.30 * back, (0.255 * scale, 0.255 * scale)),
    ]
    found += [Capsule(wrist, one[0], (0.22 * scale, 0.15 * scale)) for one in fingers]
    for finger, ends in zip(HAND, fingers, strict=True):
        radii = finger.radius * scale * np.array([1.0, 0.95, 0.88, 0.80])
        found += [Capsule(ends[k], ends[k + 1], (radii[k], radii[k + 1])) for k in range(3)]
    return found, _fractions(joints)


def _painted(seen: Seen, glove: tuple[int, int, int], rng: np.random.Generator) -> Pixels:
    """Returns the image: a wall, a table, the hand's shadow, and the hand."""
    side = len(seen.index)
    wall, table = (np.array(ROOMS[i], float) for i in rng.choice(len(ROOMS), 2, replace=False))
    rows = np.linspace(0, 1, side)[:, None, None]
    ground = np.where(rows < rng.uniform(0.55, 0.8), wall * (1.02 - 0.16 * rows), table * 0.78)
    shadow = Image.new("L", (side, side))
    shadow.paste(Image.fromarray(((seen.index >= 0) * 255).astype(np.uint8)), (side // 40, side // 28))
    ground = ground * (1 - 0.32 / 255 * np.asarray(shadow.filter(ImageFilter.GaussianBlur(side / 50)))[..., None])
    colors = np.array([glove] * (max(SHOWN) + 1), float)
    colors[0], colors[list(SHOWN)] = SLEEVES[int(rng.integers(len(SLEEVES)))], COLORS
    painted = np.where(seen.index[..., None] >= 0, colors[seen.index] * seen.light[..., None], ground)
    return _halved(painted * rng.uniform(0.92, 1.04) / 255)


def _halved(values: Float[np.ndarray, "side side channel"]) -> Pixels:
    """Returns bytes at half the size, each the mean of four values in [0, 1]."""
    rows = values[::2] + values[1::2]
    return (np.clip((rows[:, ::2] + rows[:, 1::2]) / 4, 0, 1) * 255).round().astype(np.uint8)


def _fractions(points: Float[np.ndarray, "point 3"]) -> Float[np.ndarray, "point 2"]:
    return points[:, :2] / (2 * SIZE) * [1, -1] + [0, 1]
