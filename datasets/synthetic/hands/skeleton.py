"""Skeleton of a hand: 21 joints in three dimensions from lengths, spread and flexion of its fingers.

The unit is about the length of the palm: the wrist is at the origin, x points away from the thumb, y towards the
fingers, z out of the palm, towards the viewer.
"""

from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float

FINGERS: Final = ("thumb", "index", "middle", "ring", "little")
GESTURES: Final[dict[str, tuple[int, ...]]] = {
    "an open hand": (1, 1, 1, 1, 1),
    "a fist": (0, 0, 0, 0, 0),
    "a pointing hand": (0, 1, 0, 0, 0),
    "a victory sign": (0, 1, 1, 0, 0),
    "a thumb up": (1, 0, 0, 0, 0),
    "a hand that counts to three": (1, 1, 1, 0, 0),
    "a hand that counts to four": (0, 1, 1, 1, 1),
    "horns": (0, 1, 0, 0, 1),
}
"""Fingers that are extended, by words; the others are bent."""
BENT: Final = (62.0, 72.0, 30.0)
"""Flexion in degrees at the three joints of a bent finger; the tip stays in view."""
THUMB: Final = 62.0, 22.0, 0.25
"""Of a bent thumb: the turn across the palm, the flexion of all its bones, and a factor on that of `BENT`."""


class Finger(NamedTuple):
    """Base joint, angle to the y axis in degrees, lengths of the three bones, and radius at the base."""

    base: tuple[float, float, float]
    angle: float
    lengths: tuple[float, float, float]
    radius: float


HAND: Final = (
    Finger((-0.28, 0.20, 0.05), -46, (0.44, 0.36, 0.30), 0.125),
    Finger((-0.31, 0.92, 0.00), -10, (0.48, 0.31, 0.26), 0.110),
    Finger((-0.10, 0.98, 0.02), -2, (0.54, 0.35, 0.28), 0.115),
    Finger((0.11, 0.94, 0.02), 6, (0.49, 0.33, 0.27), 0.110),
    Finger((0.30, 0.82, 0.00), 16, (0.38, 0.25, 0.23), 0.095),
)


def posed(gesture: str, rng: np.random.Generator) -> Float[np.ndarray, "5 4 3"]:
    """Returns the joints of the fingers, from base to tip, about the wrist.

    Angles deviate at random, the view is from a random side, and half of the hands are left.
    """
    joints = []
    for name, finger, extended in zip(FINGERS, HAND, GESTURES[gesture], strict=True):
        bend = rng.uniform(0.0, 0.22) if extended else rng.uniform(0.85, 1.0)
        flexion, angle = np.cumsum(bend * np.array(BENT)), finger.angle + rng.uniform(-5, 5)
        if name == "thumb" and not extended:
            angle, flexion = angle + THUMB[0], THUMB[1] + flexion * THUMB[2]
        across, along = np.radians(angle), np.radians(flexion)
        bones = np.stack([np.cos(along) * np.sin(across), np.cos(along) * np.cos(across), np.sin(along)], 1)
        ends = np.cumsum(bones * np.array(finger.lengths)[:, None], 0)
        joints.append(np.array(finger.base) + np.concatenate([np.zeros((1, 3)), ends]))
    side = np.array([rng.choice([-1.0, 1.0]), 1, 1])
    turned = _rotation(1, rng.uniform(-28, 28)) @ _rotation(0, rng.uniform(-18, 18))
    return (np.stack(joints) * side) @ (_rotation(2, rng.uniform(-60, 60)) @ turned).T


def _rotation(axis: int, degrees: float) -> Float[np.ndarray, "3 3"]:
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.roll(np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]]), (axis, axis), (0, 1))
