"""Turns around what an image shows: cameras, their views, and a video of them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Float, UInt8

from weftwork.attention_processors.views.conditions import ReferenceView
from weftwork.datasets.readers.cameras import Camera
from weftwork.pipelines.core.video_files import write_video
from weftwork.pipelines.views.sampling import AlignedViewsOutput

FRAME_RATE = 12


class Generate(Protocol):
    """Generates the view of a camera from references."""

    def __call__(self, references: Sequence[ReferenceView], camera: Camera) -> AlignedViewsOutput: ...


def pivot_of(view: ReferenceView) -> Float[np.ndarray, "3"]:
    """Returns the median point of the middle third of a view, around which cameras turn."""
    height, width = view.image.shape[:2]
    middle = view.points[height // 3 : -(height // 3), width // 3 : -(width // 3)].reshape(-1, 3)
    known = middle[np.isfinite(middle).all(-1)]
    return np.median(known if len(known) else view.points[view.known], 0)


def turned(
    generate: Generate,
    view: ReferenceView,
    degrees: float,
    frames: int,
    on_frame: Callable[[int], object] = lambda index: None,
) -> list[UInt8[np.ndarray, "height width 3"]]:
    """Generates frames of a turn around a view, from the left to the right.

    Both ends are generated first and are references of the frames between, so that these show the same surfaces.

    Args:
        degrees: to each side.
        on_frame: called after each frame with the number of finished ones.
    """
    pivot, angles = pivot_of(view), np.linspace(-degrees, degrees, frames)
    cameras = [view.camera.orbited(pivot, float(angle)) for angle in angles]
    found: dict[int, UInt8[np.ndarray, "height width 3"]] = {}
    references = [view]
    for index in (0, frames - 1, *range(1, frames - 1)):
        out = generate(references, cameras[index])
        found[index] = out.pixels
        if index in (0, frames - 1):
            references = [*references, ReferenceView.of_depth(out.pixels / 255, out.depth, cameras[index])]
        on_frame(len(found))
    return [found[index] for index in range(frames)]


def save_video(path: Path, frames: Sequence[UInt8[np.ndarray, "height width 3"]]) -> Path:
    """Writes frames and then the way back as an MP4 of 12 frames a second; `UserError` without PyAV."""
    height, width = frames[0].shape[:2]
    both_ways = np.stack([*frames, *frames[-2:0:-1]])
    return write_video(both_ways[:, : height - height % 2, : width - width % 2], FRAME_RATE, path)
