"""Synthetic dataset of people who walk before a camera, with exact boxes, depth, steps and stereo audio.

A walk has a surface, a side it begins at, a side it ends at, and comes nearer or goes farther. Its surface is one of
`SURFACES` with synthetic steps, or one of a folder of recorded ones (`recordings`). Such combinations are
divided between the splits so that one and its mirror image are in the same split, and training shows all pairs of
surface, sides and direction: the test split joins three things that training has shown two by two.
"""

from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import Final, NamedTuple
from zlib import crc32

import numpy as np
from jaxtyping import Float, Float32

from weftwork.datasets.readers.errors import UserError, check_choice
from weftwork.datasets.synthetic.walks.scenes import (
    BOX_RATE,
    DEPTH_RATE,
    FARTHEST,
    HALF_WIDTH,
    LOUDEST,
    NEAREST,
    Boxes,
    Times,
    Walk,
    times_at,
)
from weftwork.datasets.synthetic.walks.sounds import SYNTHETIC, Audio, StepSounds, sound

SPLITS: Final = ("train", "validation", "test")
SAMPLE_RATE: Final = 16_000
SECONDS: Final = 2.048
"""32,768 samples, so that a clip is a whole number of hops of any power of two; about four steps."""
SIDES: Final = ("left", "middle", "right")
PANS: Final = (-0.8, -0.8 / 3, 0.8 / 3, 0.8)
"""Boundaries of `SIDES`."""
HEADINGS: Final = ("nearer", "farther")
KNOT_SECONDS: Final = 1.1
"""Knots of a path are at most so far apart, and not much nearer."""
STEPS_PER_SECOND: Final = (1.6, 2.3)
JITTER: Final = 0.03
"""Standard deviation of the time between steps, as a part of it."""
FREE: Final = (0.02, 0.1)
"""No step is in so many seconds at the beginning and the end of a clip, so that each can be heard."""


class Combination(NamedTuple):
    """A cell of the splits: a surface, two of `SIDES`, and one of `HEADINGS`."""

    surface: str
    start: str
    end: str
    heading: str


@dataclass(frozen=True, eq=False)
class WalkSample:
    """A clip with its truth. Steps, pans and the like are those of `walk`.

    Args:
        audio: [2, samples], left and right, within [-1, 1].
        boxes: at `box_times` (30 a second); left, top, right, bottom as fractions of the image.
        depth: at `depth_times` (4 a second), in metres along the camera's axis.
    """

    walk: Walk
    audio: Audio
    sample_rate: int
    box_times: Times
    boxes: Boxes
    depth_times: Times
    depth: Float32[np.ndarray, "frame height width"]

    @property
    def steps(self) -> Times:
        """In seconds."""
        return self.walk.steps

    @property
    def pan(self) -> Float[np.ndarray, " step"]:
        """By step, -1 at the left edge of the image and 1 at the right."""
        return self.walk.pan

    @property
    def distance(self) -> Float[np.ndarray, " step"]:
        """By step, in metres."""
        return self.walk.distance

    @property
    def surface(self) -> str:
        return self.walk.surface


def split_of(surface: str, start: str, end: str, heading: str) -> str:
    """The only split with such walks.

    Of the five unordered ways over the image (left and right being one), each surface and heading keeps one for the
    test split and one for validation.

    Raises:
        ValueError: an unknown name of a side or heading.
    """
    check_choice("start", start, SIDES)
    check_choice("end", end, SIDES)
    check_choice("heading", heading, HEADINGS)
    way = _way(SIDES.index(start), SIDES.index(end))
    place = way + _place_of(surface) + 2 * HEADINGS.index(heading)
    return {0: "test", 1: "validation"}.get(place % 5, "train")


@cache
def combinations(split: str, surfaces: tuple[str, ...] = SYNTHETIC.surfaces) -> tuple[Combination, ...]:
    """All of a split, on these surfaces; `ValueError` for an unknown split."""
    check_choice("split", split, SPLITS)
    every = product(surfaces, SIDES, SIDES, HEADINGS)
    return tuple(Combination(*names) for names in every if split_of(*names) == split)


def sample(
    split: str,
    index: int,
    *,
    seed: int = 0,
    seconds: float = SECONDS,
    sample_rate: int = SAMPLE_RATE,
    steps: StepSounds = SYNTHETIC,
) -> WalkSample:
    """The sample of a split at an index; the same arguments give the same sample, everywhere and always.

    Raises:
        ValueError: as `walk_of`, or a rate below 8000 Hz.
    """
    walk = walk_of(split, index, seed=seed, seconds=seconds, surfaces=steps.surfaces)
    return render(walk, sample_rate, steps)


def walk_of(
    split: str,
    index: int,
    *,
    seed: int = 0,
    seconds: float = SECONDS,
    surfaces: tuple[str, ...] = SYNTHETIC.surfaces,
) -> Walk:
    """The walk of a sample on one of these surfaces, not rendered; `ValueError` for arguments out of range."""
    options = combinations(split, surfaces)
    if index < 0 or seed < 0 or not 1 <= seconds < np.inf:
        raise UserError(f"index, seed, seconds: got {index}, {seed} and {seconds}, expected at least 0, 0 and 1")
    key = (SPLITS.index(split), seed, index)
    rng = np.random.default_rng([*key, 0])
    kind = options[int(rng.integers(len(options)))]
    steps = _steps(seconds, rng)
    levels = rng.uniform(-LOUDEST, LOUDEST, len(steps))
    return Walk(_knots(kind, seconds, rng), steps, levels, kind.surface, seconds, key)


def render(walk: Walk, sample_rate: int = SAMPLE_RATE, steps: StepSounds = SYNTHETIC) -> WalkSample:
    """Renders a walk as a sample; `ValueError` as `sound`."""
    box_times, depth_times = (times_at(rate, walk.seconds) for rate in (BOX_RATE, DEPTH_RATE))
    return WalkSample(
        walk=walk,
        audio=sound(walk, sample_rate, steps=steps),
        sample_rate=sample_rate,
        box_times=box_times,
        boxes=walk.boxes(box_times),
        depth_times=depth_times,
        depth=walk.depth(depth_times),
    )


def mirrored(clip: WalkSample) -> WalkSample:
    """The clip with left and right exchanged: its boxes, depth, channels, and all its truth."""
    left, top, right, bottom = clip.boxes.T
    return replace(
        clip,
        walk=clip.walk.mirrored(),
        audio=clip.audio[::-1].copy(),
        boxes=np.stack([1 - right, top, 1 - left, bottom], 1),
        depth=clip.depth[:, :, ::-1].copy(),
    )


def _place_of(surface: str) -> int:
    """A number that does not depend on which other surfaces there are."""
    names = SYNTHETIC.surfaces
    return names.index(surface) if surface in names else crc32(surface.encode())


def _way(start: int, end: int) -> int:
    """The same number for a way and its mirror image, from 0 to 4."""
    return min(3 * start + end, 3 * (2 - start) + 2 - end)


def _knots(kind: Combination, seconds: float, rng: np.random.Generator) -> Float[np.ndarray, "knot 2"]:
    """Pans even over the image, and depths even in their logarithm, so that loudness is even in dB."""
    count = max(2, round(seconds / KNOT_SECONDS) + 1)
    pans = rng.uniform(PANS[0], PANS[-1], count)
    depths = np.exp(rng.uniform(np.log(NEAREST), np.log(FARTHEST), count))
    for knot, side in ((0, kind.start), (-1, kind.end)):
        place = SIDES.index(side)
        pans[knot] = rng.uniform(PANS[place], PANS[place + 1])
    if (depths[-1] < depths[0]) != (kind.heading == "nearer"):
        depths[[0, -1]] = depths[[-1, 0]]
    return np.stack([pans * depths * HALF_WIDTH, depths], 1)


def _steps(seconds: float, rng: np.random.Generator) -> Times:
    """Steps of a clock that begins at any phase."""
    period = 1 / rng.uniform(*STEPS_PER_SECOND)
    first = FREE[0] + rng.uniform(0, period)
    gaps = period * (1 + JITTER * rng.standard_normal(int(np.ceil(seconds / period)) + 1))
    steps = first + np.concatenate([[0], np.cumsum(gaps)])
    return steps[steps < seconds - FREE[1]]
