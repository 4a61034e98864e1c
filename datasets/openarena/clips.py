"""Clips of maps: short paths of a camera, written in the layout of `datasets.readers.posed_views`."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from weftwork.datasets.openarena.archives import Archives
from weftwork.datasets.openarena.maps import read_map
from weftwork.datasets.openarena.renderer import Renderer
from weftwork.datasets.readers.atomic import atomic_path
from weftwork.datasets.readers.cameras import Camera
from weftwork.datasets.readers.errors import check_choice

SPLITS: Final = ("train", "validation", "test")
FRAMES: Final = 4
"""Frames of a clip: both references, at 0 and 2, the target between them, and the one beyond."""
EYES: Final = 1.0
"""Height of a camera above a player's or item's place, in metres."""
FIELD_OF_VIEW: Final = 75.0
TRIES: Final = 40
"""Of paths for each clip that is wanted."""


@dataclass(frozen=True, eq=False)
class Shot:
    """A rendered frame."""

    camera: Camera
    image: UInt8[np.ndarray, "size size 3"]
    depth: Float[np.ndarray, "size size"]

    @property
    def good(self) -> bool:
        """Whether it shows a place: surfaces nearly everywhere, none very near, not all far, and not dark."""
        if (self.depth > 0).mean() < 0.9:
            return False
        near, middle = np.quantile(self.depth[self.depth > 0], (0.05, 0.5))
        return bool(near > 1.0 and middle < 20 and self.image.mean() > 30 and self.image.std() > 15)


def split_of(name: str) -> str:
    """Returns the only split of a map: of ten maps one for validation and two for tests, by a hash of the name."""
    part = hashlib.sha256(name.encode()).digest()[0] % 10
    return "validation" if part == 0 else "test" if part < 3 else "train"


def maps_of(archives: Archives, split: str) -> list[str]:
    """Returns the maps of a split; `ValueError` for an unknown one."""
    check_choice("split", split, SPLITS)
    return [name for name in archives.maps if split_of(name) == split]


def write_clips(archives: Archives, name: str, folder: Path, *, count: int, size: int, seed: int = 0) -> int:
    """Renders clips of a map into a folder; returns their number, fewer than `count` where few places are good.

    `ValueError` for a map that cannot be read, or without OpenGL.
    """
    place = read_map(archives.read(f"maps/{name}.bsp"), name)
    rng = np.random.default_rng([seed, *name.encode()])
    written = 0
    if not len(place.places):
        return written
    with Renderer(place, archives, size) as renderer:
        for cameras in paths(place.places, rng, count * TRIES):
            shots = _good_shots(renderer, cameras)
            if shots:
                write_clip(folder, f"{name}-{written:03d}", shots)
                written += 1
            if written == count:
                break
    return written


def _good_shots(renderer: Renderer, cameras: Sequence[Camera]) -> list[Shot]:
    """Renders the frames of a path; none if one of them is not good."""
    shots = []
    for camera in cameras:
        shots.append(Shot(camera, *renderer.view(camera)))
        if not shots[-1].good:
            return []
    return shots


def paths(places: Float[np.ndarray, "place 3"], rng: np.random.Generator, count: int) -> Iterator[Sequence[Camera]]:
    """Yields paths of cameras: sideways from a place, looking at one point some metres ahead."""
    for _ in range(count):
        eye = places[rng.integers(len(places))] + [0, EYES, 0]
        angle, ahead = rng.uniform(0, 2 * np.pi), rng.uniform(3, 6)
        forward = np.array([np.cos(angle), 0, np.sin(angle)])
        target = eye + ahead * forward + [0, rng.uniform(-1.0, 0.2), 0]
        side = np.array([-forward[2], 0, forward[0]]) * rng.choice([-1, 1])
        step = rng.uniform(0.2, 0.45) * side + rng.uniform(-0.1, 0.1) * forward
        yield [Camera.looking(eye + i * step, target, field_of_view=FIELD_OF_VIEW) for i in range(FRAMES)]


def write_clip(folder: Path, name: str, shots: Sequence[Shot]) -> None:
    """Writes a clip: frames and depth first, its cameras last."""
    frames = folder / name
    frames.mkdir(parents=True, exist_ok=True)
    lines = [f"openarena {name}"]
    for index, shot in enumerate(shots):
        Image.fromarray(shot.image).save(frames / f"{index}.png")
        np.save(frames / f"{index}.npy", shot.depth.astype(np.float32))
        camera = shot.camera
        numbers = [*camera.focal, *camera.center, 0, 0, *camera.world_to_camera[:3].ravel()]
        lines.append(" ".join([str(index), *(f"{number:.9g}" for number in numbers)]))
    with atomic_path(folder / f"{name}.txt") as partial:
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
