"""Patterns on the surfaces of rooms: two colours over a surface's own coordinates, in metres."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Bool, Float

COLORS: Final[dict[str, tuple[float, float, float]]] = {
    "red": (0.80, 0.16, 0.16),
    "orange": (0.93, 0.53, 0.14),
    "yellow": (0.93, 0.82, 0.25),
    "green": (0.22, 0.58, 0.28),
    "teal": (0.13, 0.60, 0.62),
    "blue": (0.18, 0.36, 0.78),
    "purple": (0.52, 0.28, 0.66),
    "brown": (0.48, 0.31, 0.19),
    "white": (0.93, 0.92, 0.89),
    "black": (0.14, 0.14, 0.16),
}
"""In [0, 1], before shading."""

Coordinates = Float[np.ndarray, "*point 2"]


def _plain(uv: Coordinates) -> Bool[np.ndarray, "*point"]:
    return np.zeros(uv.shape[:-1], bool)


def _striped(uv: Coordinates) -> Bool[np.ndarray, "*point"]:
    return uv[..., 0] % 1 < 0.5


def _checked(uv: Coordinates) -> Bool[np.ndarray, "*point"]:
    return (uv % 1 < 0.5).sum(-1) % 2 == 0


def _dotted(uv: Coordinates) -> Bool[np.ndarray, "*point"]:
    return np.square(uv % 1 - 0.5).sum(-1) < 0.08


def _bricks(uv: Coordinates) -> Bool[np.ndarray, "*point"]:
    row = np.floor(uv[..., 1] * 2)
    across = (uv[..., 0] + 0.5 * (row % 2)) % 1
    return (across < 0.08) | (uv[..., 1] * 2 % 1 < 0.15)


def _framed(uv: Coordinates) -> Bool[np.ndarray, "*point"]:
    return np.abs(uv % 1 - 0.5).max(-1) > 0.38


PATTERNS: Final[dict[str, Callable[[Coordinates], Bool[np.ndarray, "*point"]]]] = {
    "plain": _plain,
    "striped": _striped,
    "checked": _checked,
    "dotted": _dotted,
    "brick": _bricks,
    "framed": _framed,
}
"""By name, where over coordinates of period 1 the second colour is."""


@dataclass(frozen=True)
class Surface:
    """Pattern of a surface; `period` is the side of one tile in metres."""

    pattern: str
    color: str
    other: str
    period: float = 0.6

    @property
    def words(self) -> str:
        """A plain one by its colour, others by both colours and pattern."""
        return self.color if self.pattern == "plain" else f"{self.color} and {self.other} {self.pattern}"

    def __call__(self, coordinates: Coordinates) -> Float[np.ndarray, "*point 3"]:
        """Colours in [0, 1] at these places, given in metres."""
        second = PATTERNS[self.pattern](coordinates / self.period)
        palette = np.array([COLORS[self.color], COLORS[self.other]])
        return palette[second.astype(int)]
