"""Shapes in rooms and their intersection with rays: distances, normals and surface coordinates.

Everything is exact, in closed form, for many rays at once. A distance is in lengths of the ray's direction, infinite
where the shape is missed.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, Int

from weftwork.datasets.synthetic.rooms.surfaces import Surface

Vectors = Float[np.ndarray, "ray 3"]
NEAR = 1e-6


class Hit(NamedTuple):
    """Intersections of rays with a shape; normals and coordinates mean something only where the distance is finite."""

    distance: Float[np.ndarray, " ray"]
    normal: Vectors
    coordinates: Float[np.ndarray, "ray 2"]
    face: Int[np.ndarray, " ray"]
    """Index of the shape's surface, from 0."""


class Shape(Protocol):
    @property
    def surfaces(self) -> tuple[Surface, ...]:
        """By face; the last one serves all faces beyond."""
        ...

    def meet(self, origin: Float[np.ndarray, "3"], rays: Vectors) -> Hit: ...


@dataclass(frozen=True)
class Room:
    """The inside of a box from 0 to `size` (width, height, depth); faces are the low and the high end of x, y and z."""

    size: tuple[float, float, float]
    surfaces: tuple[Surface, ...]

    def meet(self, origin: Float[np.ndarray, "3"], rays: Vectors) -> Hit:
        far = np.where(rays > 0, np.array(self.size), 0.0)
        steps = np.where(np.abs(rays) < NEAR, np.inf, (far - origin) / np.where(np.abs(rays) < NEAR, 1, rays))
        axis = steps.argmin(1)
        distance = np.take_along_axis(steps, axis[:, None], 1)[:, 0]
        outwards = np.take_along_axis(rays, axis[:, None], 1)[:, 0] > 0
        points = origin + distance[:, None] * rays
        normal = -np.eye(3)[axis] * np.where(outwards, 1.0, -1.0)[:, None]
        return Hit(distance, normal, _across(points, axis), axis * 2 + outwards)


@dataclass(frozen=True)
class Block:
    """A box on the floor, turned about its upright axis; faces are its sides, then its top."""

    middle: tuple[float, float, float]
    size: tuple[float, float, float]
    turn: float
    surfaces: tuple[Surface, ...]

    def meet(self, origin: Float[np.ndarray, "3"], rays: Vectors) -> Hit:
        turned = _turn(self.turn)
        start, toward = (origin - np.array(self.middle)) @ turned.T, rays @ turned.T
        safe = np.where(np.abs(toward) < NEAR, NEAR, toward)
        half = np.array(self.size) / 2
        ends = np.sort(np.stack([(-half - start) / safe, (half - start) / safe]), 0)
        axis = ends[0].argmax(1)
        enter, leave = ends[0].max(1), ends[1].min(1)
        distance = np.where((enter < leave) & (enter > NEAR), enter, np.inf)
        local = start + np.where(np.isfinite(distance), distance, 0)[:, None] * toward
        sign = -np.sign(np.take_along_axis(toward, axis[:, None], 1))
        return Hit(distance, (np.eye(3)[axis] * sign) @ turned, _across(local + half, axis), (axis == 1).astype(int))


@dataclass(frozen=True)
class Ball:
    middle: tuple[float, float, float]
    radius: float
    surfaces: tuple[Surface, ...]

    def meet(self, origin: Float[np.ndarray, "3"], rays: Vectors) -> Hit:
        start = origin - np.array(self.middle)
        distance = _nearest_root((rays**2).sum(1), rays @ start, float(start @ start) - self.radius**2)
        normal = (start + np.where(np.isfinite(distance), distance, 0)[:, None] * rays) / self.radius
        angles = np.arctan2(normal[:, 2], normal[:, 0]), np.arccos(np.clip(normal[:, 1], -1, 1))
        return Hit(distance, normal, np.stack(angles, 1) * self.radius, np.zeros(len(rays), int))


@dataclass(frozen=True)
class Column:
    """An upright cylinder on the floor; faces are its side, then its top."""

    middle: tuple[float, float, float]
    radius: float
    height: float
    surfaces: tuple[Surface, ...]

    def meet(self, origin: Float[np.ndarray, "3"], rays: Vectors) -> Hit:
        start, flat = origin - np.array(self.middle), rays[:, [0, 2]]
        across = start[[0, 2]]
        side = _nearest_root((flat**2).sum(1), flat @ across, float(across @ across) - self.radius**2)
        level = start[1] + np.where(np.isfinite(side), side, 0) * rays[:, 1]
        side = np.where(np.abs(level) <= self.height / 2, side, np.inf)
        safe = np.where(np.abs(rays[:, 1]) < NEAR, NEAR, rays[:, 1])
        top = (self.height / 2 - start[1]) / safe
        inside = ((start + top[:, None] * rays)[:, [0, 2]] ** 2).sum(1) <= self.radius**2
        top = np.where(inside & (top > NEAR) & (rays[:, 1] < 0), top, np.inf)
        distance, on_top = np.minimum(side, top), top < side
        points = start + np.where(np.isfinite(distance), distance, 0)[:, None] * rays
        around = points * np.array([1.0, 0.0, 1.0]) / self.radius
        normal = np.where(on_top[:, None], np.array([0.0, 1.0, 0.0]), around)
        unrolled = np.stack([np.arctan2(points[:, 2], points[:, 0]) * self.radius, points[:, 1]], 1)
        return Hit(distance, normal, np.where(on_top[:, None], points[:, [0, 2]], unrolled), on_top.astype(int))


def _turn(angle: float) -> Float[np.ndarray, "3 3"]:
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[cosine, 0.0, -sine], [0.0, 1.0, 0.0], [sine, 0.0, cosine]])


def _across(points: Vectors, axis: Int[np.ndarray, " ray"]) -> Float[np.ndarray, "ray 2"]:
    """The two coordinates that are not along the axis, upright ones second."""
    others = np.array([[2, 1], [0, 2], [0, 1]])[axis]
    return np.take_along_axis(points, others, 1)


def _nearest_root(
    square: Float[np.ndarray, " ray"], half: Float[np.ndarray, " ray"], rest: float
) -> Float[np.ndarray, " ray"]:
    """The first t > 0 with square t^2 + 2 half t + rest = 0, for rays that start outside."""
    root = half**2 - square * rest
    hit = (root >= 0) & (square > NEAR)
    distance = (-half - np.sqrt(np.where(hit, root, 0))) / np.where(square > NEAR, square, 1)
    return np.where(hit & (distance > NEAR), distance, np.inf)
