"""One walker before a camera that stands still: where they are at every time, and where each footstep falls.

The camera is a pinhole 1.5 m above a flat floor and looks along z; x is right; images are square. A walker is an
upright board of 0.6 m by 1.75 m that faces the camera. The path goes in straight lines from knot to knot, each begun
and ended softly (smoothstep), and faster than people walk, so that two seconds of it have something to say.

A footstep's pan is where its walker is in the image: -1 at the left edge, 1 at the right. It does not change when X
and Z grow by one factor.
"""

from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np
from jaxtyping import Float

from weftwork.datasets.readers.errors import UserError

FIELD_OF_VIEW: Final = 70.0
"""Across the image, in degrees."""
HALF_WIDTH: Final = float(np.tan(np.radians(FIELD_OF_VIEW) / 2))
"""Half of what the image shows, a metre from the camera."""
FOCAL: Final = 0.5 / HALF_WIDTH
"""As a fraction of the image's side."""
EYE: Final = 1.5
WALKER: Final = (0.6, 1.75)
NEAREST, FARTHEST = 1.8, 9.0
"""Between these depths walks are drawn. Nothing is nearer than the first, which bounds how loud they are."""
LOUDEST: Final = 1.0
"""In dB; no step is louder than usual by more, for the same reason."""
WALL: Final = 12.0
"""Depth of the wall behind everything; no walk reaches it."""
BOX_RATE, DEPTH_RATE = 30.0, 4.0
DEPTH_SIZE: Final = 32


@dataclass(frozen=True)
class Surface:
    """A material of the floor.

    Args:
        center: middle of the amplitudes of a step's spectrum, a Gaussian over octaves; in Hz.
        octaves: its width, from one standard deviation below to one above.
        decay: seconds in which a step falls by 20 dB.
        color: of the floor, RGB in [0, 1].
    """

    center: float
    octaves: float
    decay: float
    color: tuple[float, float, float]


SURFACES: Final[dict[str, Surface]] = {
    "gravel": Surface(3200, 1.6, 0.055, (0.58, 0.53, 0.46)),
    "wood": Surface(450, 1.0, 0.070, (0.62, 0.38, 0.18)),
    "snow": Surface(1600, 1.2, 0.090, (0.93, 0.95, 0.98)),
    "metal": Surface(2400, 0.5, 0.160, (0.36, 0.42, 0.52)),
}

Times = Float[np.ndarray, " time"]
Boxes = Float[np.ndarray, "frame 4"]
DepthMaps = Float[np.ndarray, "frame height width"]


@dataclass(frozen=True, eq=False)
class Walk:
    """All that is known of a walk, exactly.

    Args:
        knots: [knot, 2], X and Z in metres, from X = 0 before the camera; evenly spread over the clip.
        steps: when feet meet the floor, in seconds, increasing.
        levels: by step how much louder than usual it is, in dB.
        surface: of the floor; what it sounds like is said by the `StepSounds` that render the walk.
        seconds: length of the clip.
        key: seed of what the steps sound like; walks that differ in all else may share it.

    Raises:
        ValueError: knots that are not two or more pairs, finite, and between `NEAREST` and `WALL`;
            steps that do not increase or are outside the clip; not as many levels as steps, or one above `LOUDEST`.
    """

    knots: Float[np.ndarray, "knot 2"]
    steps: Float[np.ndarray, " step"]
    levels: Float[np.ndarray, " step"]
    surface: str
    seconds: float
    key: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        for name in ("knots", "steps", "levels"):
            object.__setattr__(self, name, np.array(getattr(self, name), np.float64))
        _check_knots(self.knots)
        _check_steps(self.steps, self.levels, self.seconds)

    def position(self, times: Times) -> Float[np.ndarray, "time 2"]:
        """X and Z in metres; before the clip and after it, those of its first and last moment."""
        place = np.clip(np.asarray(times, np.float64) / self.seconds, 0, 1) * (len(self.knots) - 1)
        knot = np.minimum(place.astype(int), len(self.knots) - 2)
        part = (place - knot)[..., None]
        part = part * part * (3 - 2 * part)
        return self.knots[knot] * (1 - part) + self.knots[knot + 1] * part

    @property
    def pan(self) -> Float[np.ndarray, " step"]:
        """By step, -1 at the left edge of the image and 1 at the right."""
        x, z = self.position(self.steps).T
        return x / z / HALF_WIDTH

    @property
    def distance(self) -> Float[np.ndarray, " step"]:
        """By step how far it is from the camera over the floor, in metres."""
        return np.hypot(*self.position(self.steps).T)

    def boxes(self, times: Times) -> Boxes:
        """Left, top, right and bottom of the walker, as fractions of the image, cut off at its edges."""
        return np.clip(self.whole_boxes(times), 0, 1)

    def whole_boxes(self, times: Times) -> Boxes:
        """As `boxes`, not cut off."""
        x, z = self.position(times).T
        width, height = WALKER
        edges = [x - width / 2, np.full_like(x, EYE - height), x + width / 2, np.full_like(x, EYE)]
        return 0.5 + FOCAL * np.stack(edges, 1) / z[:, None]

    def depth(self, times: Times, size: int = DEPTH_SIZE) -> DepthMaps:
        """Depth along the camera's axis in metres, float32: the nearest of floor, wall and walker."""
        middles = (np.arange(size) + 0.5) / size
        floor = np.full(size, np.inf)
        np.divide(FOCAL * EYE, middles - 0.5, out=floor, where=middles > 0.5)
        left, top, right, bottom = self.whole_boxes(times).T[..., None]
        rows, columns = (middles >= top) & (middles <= bottom), (middles >= left) & (middles <= right)
        inside = rows[:, :, None] & columns[:, None]
        walker = np.where(inside, self.position(times)[:, 1, None, None], np.inf)
        return np.minimum(walker, np.minimum(floor, WALL)[:, None]).astype(np.float32)

    def mirrored(self) -> Self:
        """Left and right exchanged."""
        return replace(self, knots=self.knots * (-1, 1))

    def farther(self, factor: float) -> Self:
        """X and Z times a factor: the same pans, angles and steps, 20 log10(factor) dB less.

        Raises:
            ValueError: the walker would come nearer than `NEAREST`, or to the wall.
        """
        return replace(self, knots=self.knots * factor)


def times_at(rate: float, seconds: float) -> Times:
    """Times of the frames of a clip in seconds: 0, 1 / rate, ..., below its length."""
    return np.arange(int(np.ceil(seconds * rate - 1e-9))) / rate


def _check_knots(knots: Float[np.ndarray, "..."]) -> None:
    if knots.ndim != 2 or knots.shape[0] < 2 or knots.shape[1] != 2 or not np.isfinite(knots).all():
        raise UserError(f"knots: got {knots.shape}, expected finite numbers [knot, 2]; pass two or more knots")
    near, far = knots[:, 1].min(), knots[:, 1].max()
    if near < NEAREST - 1e-9 or far >= WALL:
        raise UserError(
            f"knots: got depths from {near:.4g} to {far:.4g} m, expected {NEAREST} m or more and less than {WALL} m; "
            "nearer steps would clip, farther ones are behind the wall"
        )
    if np.abs(knots[:, 0] / knots[:, 1]).max() > HALF_WIDTH + 1e-9:
        raise UserError(
            f"knots: got a pan of {(knots[:, 0] / knots[:, 1] / HALF_WIDTH).tolist()}, expected all within -1 and 1; "
            "keep the walker in the image"
        )


def _check_steps(steps: Float[np.ndarray, "..."], levels: Float[np.ndarray, "..."], seconds: float) -> None:
    if not (np.isfinite(seconds) and seconds > 0):
        raise UserError(f"seconds: got {seconds}, expected more than 0; pass the length of the clip")
    if steps.ndim != 1 or steps.shape != levels.shape:
        raise UserError(f"levels: got shape {levels.shape}, expected one for each of {steps.shape} steps; pass as many")
    if not (np.isfinite(levels) & (levels <= LOUDEST)).all():
        raise UserError(f"levels: got {levels.tolist()}, expected finite ones up to {LOUDEST} dB; louder steps clip")
    if not np.isfinite(steps).all() or (np.diff(steps) <= 0).any() or ((steps < 0) | (steps >= seconds)).any():
        raise UserError(
            f"steps: got {steps.tolist()}, expected increasing times in [0, {seconds}) seconds; sort them, and drop "
            "others"
        )
