"""Layout of scenes: drawings of one designer at random sizes and places on plain and graded grounds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image

from weftwork.datasets.drawings.colors import to_rgb
from weftwork.datasets.drawings.rendering import Gray, Rgba

SIZE: Final = 128
SIDES: Final = {1: (56, 124), 2: (48, 80), 3: (40, 66), 4: (34, 62)}
"""Least and most pixels of a drawing's side, by the number of drawings."""
COUNT_SHARES: Final = (0.5, 0.2, 0.15, 0.15)
FULL_SHARE: Final = 0.3
"""Share of single drawings that fill the canvas."""
WHITE_SHARE: Final = 0.5
PALER: Final = (0.0, 0.4, 0.75)
"""Shares of white in grounds."""
GROUNDS: Final = {
    "black": "14161a",
    "gray": "5f6368",
    "white": "ffffff",
    "red": "e53935",
    "orange": "f57c00",
    "yellow": "fdd835",
    "green": "43a047",
    "turquoise": "26a69a",
    "light blue": "90caf9",
    "blue": "1e88e5",
    "purple": "8e24aa",
    "pink": "f06292",
    "brown": "6d4c41",
    "beige": "e8c9a0",
}
"""Colours of grounds by name; fewer than those of `PALETTE`, and not always its shades."""

Canvas = np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]
Mask = np.ndarray[tuple[int, int], np.dtype[np.bool_]]


@dataclass(frozen=True)
class Place:
    """Square of a drawing on the canvas, in pixels."""

    left: int
    top: int
    side: int

    @property
    def area(self) -> tuple[slice, slice]:
        """Rows and columns."""
        return slice(self.top, self.top + self.side), slice(self.left, self.left + self.side)

    def overlap(self, other: "Place") -> float:
        """Pixels by which two squares overlap beyond their margins; 0 if they do not."""
        centers = [(p.left + p.side / 2, p.top + p.side / 2) for p in (self, other)]
        distance = max(abs(a - b) for a, b in zip(*centers, strict=True))
        return max(0.0, 0.42 * (self.side + other.side) - distance)


@dataclass(frozen=True)
class Ground:
    """Words for a ground, and its colours at the upper and the lower edge."""

    words: str
    upper: tuple[int, int, int]
    lower: tuple[int, int, int]


def random_places(count: int, rng: np.random.Generator) -> list[Place]:
    """Places for drawings, each the first of 20 that overlaps the earlier ones least."""
    least, most = SIDES[count]
    if count == 1 and rng.random() < FULL_SHARE:
        return [Place(0, 0, SIZE)]
    places: list[Place] = []
    for _ in range(count):
        tries = [_random_place(least, most, rng) for _ in range(20)]
        overlaps = [max((one.overlap(other) for other in places), default=0) for one in tries]
        places.append(tries[overlaps.index(min(overlaps))])
    return places


def _random_place(least: int, most: int, rng: np.random.Generator) -> Place:
    side = int(rng.integers(least, most + 1))
    left, top = (int(corner) for corner in rng.integers(0, SIZE - side + 1, 2))
    return Place(left, top, side)


def random_ground(rng: np.random.Generator) -> Ground:
    """White, or one of `GROUNDS`, plain or graded to another."""
    if rng.random() < WHITE_SHARE:
        return Ground("white", (255, 255, 255), (255, 255, 255))
    names = [str(name) for name in rng.choice(list(GROUNDS), 2, replace=False)]
    paler = float(rng.choice(PALER))
    upper, lower = (_mixed(to_rgb(GROUNDS[name]), paler) for name in names)
    pale = "pale " if paler > 0.5 else ""
    if rng.random() < 0.5:
        return Ground(f"{pale}{names[0]}", upper, upper)
    return Ground(f"{pale}{names[0]} and {names[1]}", upper, lower)


def _mixed(color: tuple[int, int, int], white: float) -> tuple[int, int, int]:
    red, green, blue = (round(value + (255 - value) * white) for value in color)
    return red, green, blue


def compose(images: Sequence[Rgba], places: Sequence[Place], ground: Ground) -> Canvas:
    """Drawings on a ground, later ones on top."""
    share = np.linspace(0, 1, SIZE, dtype=np.float32)[:, None, None]
    upper, lower = (np.array(color, np.float32) for color in (ground.upper, ground.lower))
    rows = upper * (1 - share) + lower * share
    canvas = np.broadcast_to(rows, (SIZE, SIZE, 3)).copy()
    for image, place in zip(images, places, strict=True):
        drawn = _premultiplied(image, place.side)
        canvas[place.area] = canvas[place.area] * (1 - drawn[..., 3:] / 255) + drawn[..., :3]
    return np.clip(canvas + 0.5, 0, 255).astype(np.uint8)


def sketches_on_canvas(sketches: Sequence[Gray], places: Sequence[Place]) -> list[Gray]:
    """Each sketch on a white canvas of its own, at the place of its drawing."""
    canvases = []
    for sketch, place in zip(sketches, places, strict=True):
        canvas = np.full((SIZE, SIZE), 255, np.uint8)
        resized = Image.fromarray(sketch).resize((place.side, place.side), Image.Resampling.BOX)
        canvas[place.area] = np.asarray(resized)
        canvases.append(canvas)
    return canvases


def visible_regions(images: Sequence[Rgba], places: Sequence[Place]) -> list[Mask]:
    """The pixels of each drawing that no later one hides."""
    masks: list[Mask] = []
    for image, place in zip(images, places, strict=True):
        mask = np.zeros((SIZE, SIZE), np.bool_)
        mask[place.area] = _premultiplied(image, place.side)[..., 3] > 127
        masks = [earlier & ~mask for earlier in masks] + [mask]
    return masks


def _premultiplied(image: Rgba, side: int) -> np.ndarray:
    """RGBA at another size, colours multiplied by opacity."""
    resized = Image.fromarray(image)
    if side != image.shape[0]:
        resized = resized.resize((side, side), Image.Resampling.HAMMING)  # has no negative weights, so no halos
    drawn = np.array(resized, np.float32)
    drawn[..., :3] *= drawn[..., 3:] / 255
    return drawn
