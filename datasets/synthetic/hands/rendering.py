"""Renderer of bodies made of tapered capsules, shaded, with a map of which capsule is seen where."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float, Int

LIGHT: Final = np.array([-0.45, 0.55, 0.70]) / np.linalg.norm([-0.45, 0.55, 0.70])


@dataclass(frozen=True, eq=False)
class Capsule:
    """Spheres between two points, whose radius changes linearly; x to the right, y up, z to the viewer, in pixels."""

    start: Float[np.ndarray, " 3"]
    end: Float[np.ndarray, " 3"]
    radii: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Seen:
    """A rendered body: brightness, the capsule seen at each pixel (-1 for none), and the area of each one alone."""

    light: Float[np.ndarray, "side side"]
    index: Int[np.ndarray, "side side"]
    areas: Sequence[int]

    def visible(self, capsule: int) -> float:
        """Returns the share of a capsule's area that is seen."""
        return float((self.index == capsule).sum() / max(1, self.areas[capsule]))


def render(capsules: Sequence[Capsule], side: int) -> Seen:
    """Renders capsules in a square of `side` pixels, whose origin is its lower left corner."""
    depth = np.full((side, side), -np.inf)
    light, index = np.zeros((side, side)), np.full((side, side), -1)
    areas = []
    for number, one in enumerate(capsules):
        widest = max(one.radii)
        low = np.clip(np.floor(np.minimum(one.start, one.end)[:2] - widest), 0, side).astype(int)
        high = np.clip(np.ceil(np.maximum(one.start, one.end)[:2] + widest), 0, side).astype(int)
        window = slice(side - high[1], side - low[1]), slice(low[0], high[0])
        x, y = np.meshgrid(np.arange(low[0], high[0]) + 0.5, np.arange(high[1] - 1, low[1] - 1, -1) + 0.5)
        inside, height, normal = _surface(one, x, y)
        areas.append(int(inside.sum()))
        front = inside & (height > depth[window])
        shade = 0.42 + 0.62 * np.clip(normal @ LIGHT, 0, 1)
        edge = np.clip(normal[..., 2] / 0.45, 0, 1) * 0.35 + 0.65
        depth[window] = np.where(front, height, depth[window])
        light[window] = np.where(front, shade * edge, light[window])
        index[window] = np.where(front, number, index[window])
    return Seen(light, index, areas)


def _surface(
    one: Capsule, x: Float[np.ndarray, "row column"], y: Float[np.ndarray, "row column"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns where the capsule is seen, the height of its surface, and the normals there."""
    bone = one.end - one.start
    flat, length = max(1e-6, float(np.hypot(*bone[:2]))), max(1e-6, float(np.linalg.norm(bone)))
    x_from, y_from = x - one.start[0], y - one.start[1]
    along = (x_from * bone[0] + y_from * bone[1]) / flat
    beside = x_from**2 + y_from**2 - along**2
    rise = np.sqrt(np.maximum(np.mean(one.radii) ** 2 - beside, 0))
    along = np.clip((along + rise * bone[2] / length) / flat, 0, 1)  # of the sphere that is seen
    radius = one.radii[0] + along * (one.radii[1] - one.radii[0])
    away = np.stack([x_from - along * bone[0], y_from - along * bone[1]], -1)
    squared = radius**2 - (away**2).sum(-1)
    rise = np.sqrt(np.maximum(squared, 0))
    normal = np.concatenate([away, rise[..., None]], -1) / radius[..., None]
    return squared > 0, one.start[2] + along * bone[2] + rise, normal
