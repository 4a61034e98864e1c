"""Synthetic dataset of furnished rooms seen by several cameras, with exact depth, points, normals and edges.

A scene is a papered room with things on its floor. Two reference cameras and two targets stand on one path through it:
one target between the references, one beyond them. Some edges of the image are edges of the geometry, some are
painted; both are known. Pairs of shape and pattern are divided between the splits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from weftwork.datasets.readers.cameras import Camera
from weftwork.datasets.readers.errors import UserError, check_choice
from weftwork.datasets.synthetic.rooms.shapes import Ball, Block, Column, Hit, Room, Shape
from weftwork.datasets.synthetic.rooms.surfaces import COLORS, PATTERNS, Surface
from weftwork.datasets.synthetic.words import DETAILS, with_article

SPLITS: Final = ("train", "validation", "test")
SHAPES: Final = ("block", "ball", "column")
PLACES: Final[Mapping[str, float]] = {
    "reference_0": 0.0,
    "reference_1": 1.0,
    "interpolating": 0.5,
    "extrapolating": 1.7,
}
"""By view its place on the path: the references are at 0 and 1."""
REFERENCES: Final = ("reference_0", "reference_1")
TARGETS: Final = ("interpolating", "extrapolating")
FACES: Final[Mapping[str, int]] = {"floor": 2, "wall": 4}
"""Of a room, those that captions name; cameras look at this wall."""
SAMPLES: Final = 2
"""A pixel's colour is the mean over a grid of so many rays a side; its geometry is that of its centre."""
STEP: Final = 0.15
BEND: Final = 0.9
"""A surface breaks where the next point is so far off its tangent plane (metres), or normals so far apart (cosine)."""
NEIGHBORS: Final = ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:]))
"""Pixels and those below them, pixels and those to their right."""


@dataclass(frozen=True)
class Scene:
    """Shapes, the room itself first, and where the light is."""

    shapes: tuple[Shape, ...]
    light: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class View:
    """The view of one camera. Depth is along its axis, in metres; points and normals are in the world; `paint` is the
    colour of the surface without light, in [0, 1]."""

    image: UInt8[np.ndarray, "height width 3"]
    depth: Float[np.ndarray, "height width"]
    normals: Float[np.ndarray, "height width 3"]
    shape: Int[np.ndarray, "height width"]
    """By pixel the index of its shape; 0 is the room."""
    paint: Float[np.ndarray, "height width 3"]
    camera: Camera

    @property
    def points(self) -> Float[np.ndarray, "height width 3"]:
        return self.camera.points(self.depth)


@dataclass(frozen=True, eq=False)
class RoomSample:
    scene: Scene
    views: Mapping[str, View]
    """By name of `PLACES`."""


def split_of(shape: str, pattern: str) -> str:
    """The only split in which things of this shape wear this pattern; plain ones are in training."""
    if pattern == "plain":
        return "train"
    place = SHAPES.index(shape) * len(PATTERNS) + list(PATTERNS).index(pattern)
    return {1: "validation", 3: "test"}.get(place % 5, "train")


@cache
def things(split: str) -> tuple[tuple[str, str], ...]:
    """All pairs of shape and pattern of a split; `ValueError` for an unknown one."""
    check_choice("split", split, SPLITS)
    return tuple((shape, pattern) for shape in SHAPES for pattern in PATTERNS if split_of(shape, pattern) == split)


def sample(
    split: str, index: int, *, seed: int = 0, size: int = 128, views: Sequence[str] = tuple(PLACES)
) -> RoomSample:
    """The sample of a split at an index; the same arguments give the same sample, everywhere and always.

    Args:
        size: side of the images.
        views: which of `PLACES` to render.

    Raises:
        ValueError: an unknown split or view, or an index, seed or size below what is possible.
    """
    options = things(split)
    unknown = [name for name in views if name not in PLACES]
    if unknown:
        raise UserError(f"views: got {unknown[0]!r}, expected some of {', '.join(PLACES)}; pass these")
    if index < 0 or seed < 0 or size < 8:
        raise UserError(f"index, seed, size: got {index}, {seed} and {size}, expected at least 0, 0 and 8")
    key = [SPLITS.index(split), seed, index]
    layout, look = (np.random.default_rng([*key, stream]) for stream in (0, 1))
    scene = _furnished(options, layout, look)
    cameras = _cameras(scene, layout)
    return RoomSample(scene, {name: render(scene, cameras[name], size) for name in views})


def render(scene: Scene, camera: Camera, size: int = 128) -> View:
    """Renders a scene as a camera sees it, on a square image."""
    rays = camera.rays(size, size).reshape(-1, 3)
    shape, hit = _cast(scene, camera.position, rays)
    fine = camera.rays(size * SAMPLES, size * SAMPLES).reshape(-1, 3)
    colors = _shaded(scene, camera.position, fine, *_cast(scene, camera.position, fine))
    image = colors.reshape(size, SAMPLES, size, SAMPLES, 3).mean((1, 3))
    return View(
        image=np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8),
        depth=hit.distance.reshape(size, size),
        normals=hit.normal.reshape(size, size, 3),
        shape=shape.reshape(size, size),
        paint=_painted(scene, shape, hit).reshape(size, size, 3),
        camera=camera,
    )


def caption(scene: Scene, rng: np.random.Generator, detail: str = "full") -> str:
    """Describes the things in the room, its floor and its far wall, in any order.

    Args:
        detail: "full" names everything, "partial" leaves some out, "kinds" names things by their shapes only,
            "generic" nothing.

    Raises:
        ValueError: an unknown detail.
    """
    check_choice("detail", detail, DETAILS)
    room, *things = scene.shapes
    names = [type(shape).__name__.lower() for shape in things]
    if detail != "kinds":
        names = [f"{shape.surfaces[0].words} {name}" for shape, name in zip(things, names, strict=True)]
        names += [f"{room.surfaces[face].words} {name}" for name, face in FACES.items()]
    names = [names[i] for i in rng.permutation(len(names))]
    if detail == "partial":
        names = names[: int(rng.integers(len(names) + 1))]
    if detail == "generic" or not names:
        return "a room"
    phrases = [with_article(name) for name in names]
    return f"a room with {' and '.join(part for part in (', '.join(phrases[:-1]), phrases[-1]) if part)}"


def geometry_edges(view: View) -> Bool[np.ndarray, "height width"]:
    """Pixels at whose right or lower side the surface breaks: another shape, a fold, or a step."""
    edges, points = np.zeros(view.depth.shape, bool), view.points
    for first, second in NEIGHBORS:
        fold = (view.normals[first] * view.normals[second]).sum(-1) < BEND
        step = np.abs((view.normals[first] * (points[second] - points[first])).sum(-1)) > STEP
        edges[first] |= (view.shape[first] != view.shape[second]) | fold | step
    return edges


def painted_edges(view: View) -> Bool[np.ndarray, "height width"]:
    """Pixels at whose right or lower side the paint changes, and the surface does not break."""
    edges = np.zeros(view.depth.shape, bool)
    for first, second in NEIGHBORS:
        edges[first] |= (view.paint[first] != view.paint[second]).any(-1)
    return edges & ~geometry_edges(view)


# -- scenes ----------------------------------------------------------------------------------------------------


def _furnished(options: Sequence[tuple[str, str]], layout: np.random.Generator, look: np.random.Generator) -> Scene:
    """A room with two to four things on its floor, none within another."""
    width, height, depth = layout.uniform(4.0, 6.0), layout.uniform(2.5, 3.2), layout.uniform(5.0, 7.0)
    walls = [_surface(look, str(look.choice(list(PATTERNS)))) for _ in range(6)]
    shapes: list[Shape] = [Room((width, height, depth), tuple(walls))]
    taken: list[tuple[float, float, float]] = []
    wanted = int(layout.integers(2, 5))
    for _ in range(40):
        if len(taken) == wanted:
            break
        radius = layout.uniform(0.3, 0.6)
        x, z = layout.uniform(radius + 0.1, width - radius - 0.1), layout.uniform(radius + 0.1, depth - 2.4 - radius)
        if all(np.hypot(x - a, z - b) > radius + r + 0.1 for a, b, r in taken):
            taken.append((x, z, radius))
            shapes.append(_thing(options[int(look.integers(len(options)))], x, z, radius, layout, look))
    light = (width * layout.uniform(0.3, 0.7), height - 0.2, depth * layout.uniform(0.3, 0.6))
    return Scene(tuple(shapes), light)


def _thing(
    kind: tuple[str, str], x: float, z: float, radius: float, layout: np.random.Generator, look: np.random.Generator
) -> Shape:
    name, pattern = kind
    surfaces = _surface(look, pattern, small=True), _surface(look, "plain")
    if name == "ball":
        return Ball((x, radius, z), radius, surfaces[:1])
    height = layout.uniform(0.5, 1.5)
    if name == "column":
        return Column((x, height / 2, z), radius * 0.8, height, surfaces)
    side = radius * 1.35  # its corners stay within the radius
    size = side, height, side * layout.uniform(0.7, 1.0)
    return Block((x, height / 2, z), size, layout.uniform(0, np.pi / 2), surfaces)


def _surface(look: np.random.Generator, pattern: str, *, small: bool = False) -> Surface:
    color, other = look.choice(list(COLORS), 2, replace=False)
    period = look.uniform(0.25, 0.45) if small else look.uniform(0.6, 1.2)
    return Surface(pattern, str(color), str(other), float(period))


def _cameras(scene: Scene, layout: np.random.Generator) -> dict[str, Camera]:
    """Cameras on a path along the free end of the room, looking at its furnished part."""
    room = scene.shapes[0]
    assert isinstance(room, Room)
    width, height, depth = room.size
    eye = layout.uniform(1.1, min(1.9, height - 0.5))
    step = layout.uniform(0.5, 0.9) * layout.choice([-1.0, 1.0])
    start = width / 2 - step * layout.uniform(0.4, 1.0)
    away = depth - layout.uniform(0.4, 1.2)
    target = np.array([width * layout.uniform(0.4, 0.6), layout.uniform(0.4, 0.9), depth * layout.uniform(0.25, 0.4)])
    drift, rise = layout.uniform(-0.3, 0.3), layout.uniform(-0.15, 0.15)
    cameras = {}
    for name, place in PLACES.items():
        position = [start + step * place, eye + rise * place, away + drift * place]
        position = np.clip(position, 0.25, np.array(room.size) - 0.25)
        cameras[name] = Camera.looking(position, target, field_of_view=75.0)
    return cameras


# -- light -----------------------------------------------------------------------------------------------------


def _cast(
    scene: Scene, origin: Float[np.ndarray, "3"], rays: Float[np.ndarray, "ray 3"]
) -> tuple[Int[np.ndarray, " ray"], Hit]:
    """By ray the index of the shape that it meets first, and where."""
    hits = [shape.meet(origin, rays) for shape in scene.shapes]
    first = np.stack([hit.distance for hit in hits]).argmin(0)
    every = np.arange(len(rays))
    return first, Hit(*(np.stack(parts)[first, every] for parts in zip(*hits, strict=True)))


def _shaded(
    scene: Scene,
    origin: Float[np.ndarray, "3"],
    rays: Float[np.ndarray, "ray 3"],
    shape: Int[np.ndarray, " ray"],
    hit: Hit,
) -> Float[np.ndarray, "ray 3"]:
    """Colours under one lamp, by Lambert's law, and light from everywhere."""
    toward = np.array(scene.light) - (origin + hit.distance[:, None] * rays)
    toward /= np.linalg.norm(toward, axis=1, keepdims=True)
    lit = np.clip((hit.normal * toward).sum(1), 0, 1)
    return _painted(scene, shape, hit) * (0.5 + 0.5 * lit)[:, None]


def _painted(scene: Scene, shape: Int[np.ndarray, " ray"], hit: Hit) -> Float[np.ndarray, "ray 3"]:
    """Colours of the surfaces."""
    colors = np.zeros((len(shape), 3))
    for index, one in enumerate(scene.shapes):
        for face in np.unique(hit.face[shape == index]):
            here = (shape == index) & (hit.face == face)
            colors[here] = one.surfaces[min(int(face), len(one.surfaces) - 1)](hit.coordinates[here])
    return colors
