"""Images of a walk: a flat wall and floor, and a walker whose feet meet the floor when the steps are heard."""

from collections.abc import Sequence
from typing import Final
from zlib import crc32

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.synthetic.walks.scenes import EYE, FOCAL, SURFACES, WALKER, WALL, Times, Walk, times_at

FINE: Final = 3
"""Images are drawn so many times larger, and reduced."""
WALL_COLOR: Final = (0.74, 0.78, 0.80)
COAT, TROUSERS, SKIN = (150, 40, 45), (45, 50, 75), (224, 178, 140)
HIP, SHOULDER, HEAD = 0.85, 1.42, 0.135
"""Heights above the floor, and the radius of the head, in metres."""
REACH, LIFT = 0.24, 0.16
"""Distance of feet from the middle when they meet the floor, and their height when they pass, in metres."""
LIMB: Final = 0.13
TILE: Final = 1.0
"""Side of the tiles of the floor, in metres."""


def frames(walk: Walk, size: int, rate: float, others: Sequence[Walk] = ()) -> UInt8[np.ndarray, "frame size size 3"]:
    """RGB images at 0, 1 / rate, ... seconds; `ValueError` for a size below 16, or a rate not above 0.

    Args:
        others: walks over the same floor at the same time.
    """
    if size < 16 or not 0 < rate < np.inf:
        raise UserError(f"size, rate: got {size} and {rate}, expected at least 16 pixels and more than 0 a second")
    times = times_at(rate, walk.seconds)
    empty = _room(walk.surface, size * FINE)
    images = []
    walkers = [np.column_stack([one.position(times), _phases(one, times)]) for one in (walk, *others)]
    for placed in np.stack(walkers, 1):
        image = empty.copy()
        for x, z, phase in sorted(placed.tolist(), key=lambda one: -one[1]):  # the nearest is in front
            _draw_walker(image, x, z, phase)
        images.append(np.asarray(image.resize((size, size), Image.Resampling.BOX)))
    return np.stack(images)


def scene(surface: str, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """RGB, wall and floor without a walker."""
    return np.asarray(_room(surface, size * FINE).resize((size, size), Image.Resampling.BOX))


def _phases(walk: Walk, times: Times) -> Times:
    """Steps made so far; whole numbers when one is heard. Before the first and after the last, the clock goes on."""
    if not len(walk.steps):
        return np.full(len(times), 0.5)
    gap = float(np.diff(walk.steps).mean()) if len(walk.steps) > 1 else 0.5
    around = 2 + int(walk.seconds / gap)
    gaps = gap * np.arange(1, around)
    clock = np.concatenate([walk.steps[0] - gaps[::-1], walk.steps, walk.steps[-1] + gaps])
    return np.interp(times, clock, np.arange(len(clock)) - len(gaps))


def floor_color(surface: str) -> tuple[float, float, float]:
    """Returns the color of a floor in [0, 1], that of `SURFACES` or any other that its name gives."""
    if surface in SURFACES:
        return SURFACES[surface].color
    red, green, blue = np.random.default_rng(crc32(surface.encode())).uniform(0.3, 0.8, 3)
    return float(red), float(green), float(blue)


def _room(surface: str, side: int) -> Image.Image:
    """Wall and floor; tiles of the floor show its depth."""
    across, down = np.meshgrid(*[(np.arange(side) + 0.5) / side - 0.5] * 2)
    z = FOCAL * EYE / np.maximum(down, 1e-6)
    x = across * z / FOCAL
    odd = (np.floor(x / TILE) + np.floor(z / TILE)) % 2
    floor = np.array(floor_color(surface)) * (1 - 0.12 * odd)[..., None]
    colors = np.where((z < WALL)[..., None], floor, np.array(WALL_COLOR))
    return Image.fromarray((colors * 255 + 0.5).astype(np.uint8))


def _draw_walker(image: Image.Image, x: float, z: float, phase: float) -> None:
    """Within the walker's box; the feet part sideways, and one is lifted while it passes the other."""
    draw, side = ImageDraw.Draw(image), image.width

    def at(right: float, up: float) -> tuple[float, float]:
        return (0.5 + FOCAL * (x + right) / z) * side, (0.5 + FOCAL * (EYE - up) / z) * side

    def line(points: list[tuple[float, float]], color: tuple[int, int, int], width: float = LIMB) -> None:
        draw.line([at(*point) for point in points], color, max(1, round(width * FOCAL / z * side)))

    swing, lift = REACH * np.cos(np.pi * phase), LIFT * abs(np.sin(np.pi * phase))
    lifted = int(np.floor(phase)) % 2
    for leg, sign in enumerate((1, -1)):
        up = 0.04 + lift * (leg == lifted)
        line([(0, HIP), (sign * swing * 0.6, HIP / 2 + up), (sign * swing, up)], TROUSERS)
        line([(0, SHOULDER), (-sign * swing * 0.9, HIP + 0.05)], COAT, LIMB * 0.7)
    line([(0, HIP - 0.05), (0, SHOULDER)], COAT, 0.34)
    top = WALKER[1]
    draw.ellipse((*at(-HEAD, top), *at(HEAD, top - 2 * HEAD)), SKIN)
