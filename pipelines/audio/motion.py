"""Detector of walkers in videos of a camera that stands still: background subtraction, and tracking by overlap.

    video = Video.open("clip.mp4")
    tracks = walkers(video, MotionDetector(video))
    voices = [[smoothed(track), gait(track)] for track in tracks]  # for `voices.mixed`

The background is the median of frames from the whole video. People who touch in the image are one track, of which one
continues afterwards. Any other function from a frame to boxes by track can take the detector's place.
"""

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import find_objects, label, maximum_filter, minimum_filter, uniform_filter1d

from weftwork.attention_processors.audio.conditions import BoxTrack
from weftwork.attention_processors.core.method import load
from weftwork.datasets.readers.errors import UserError
from weftwork.pipelines.audio.videos import BOX_RATE, Detector, Frame, Video

WIDTH: Final = 384
"""Frames are reduced to about so many pixels."""
BACKGROUND_FRAMES: Final = 48
CHANGE: Final = 28.0
"""Difference from the background, of 255, that is motion."""
CLOSED: Final = (9, 3)
"""Height and width, in reduced pixels, of gaps in a walker that are closed."""
LEAST_HEIGHT, LEAST_WIDTH = 0.06, 0.015
"""Size of the smallest walker, in fractions of the frame."""
OVERLAP: Final = 0.2
"""Least intersection over union of a track's last box and its next one."""
PATIENCE: Final = 4
"""Frames for which a track is kept without a box."""
SHORTEST: Final = 1.5
"""Least seconds of a track; shorter ones are noise."""
LEAST_PATH: Final = 0.05
"""Least distance between two places of a track, in fractions of the frame; what moves less does not walk."""
SMOOTH: Final = 0.4
"""Seconds over which boxes are averaged."""

Box = tuple[float, float, float, float]


class MotionDetector:
    """Boxes, by track, of what differs from the background of a video; its camera must stand still."""

    def __init__(self, video: Video) -> None:
        rate = min(BACKGROUND_FRAMES / video.seconds, BOX_RATE)
        self.background = np.median(np.stack([_reduced(frame) for _, frame in video.frames(rate)]), 0)
        self.tracks: dict[int, tuple[Box, int]] = {}
        """Last box and age of each track that goes on."""
        self.count = 0

    def __call__(self, frame: Frame) -> dict[Hashable, Sequence[float]]:
        boxes = self._boxes(np.abs(_reduced(frame) - self.background).max(-1) > CHANGE)
        pairs = sorted(
            ((_overlap(last, box), name, i) for name, (last, _) in self.tracks.items() for i, box in enumerate(boxes)),
            reverse=True,
        )
        found: dict[Hashable, Sequence[float]] = {}
        free = set(range(len(boxes)))
        for overlap, name, i in pairs:
            if overlap >= OVERLAP and name not in found and i in free:
                found[name] = boxes[i]
                self.tracks[name] = boxes[i], 0
                free.remove(i)
        older = {name: (box, age + (name not in found)) for name, (box, age) in self.tracks.items()}
        self.tracks = {name: kept for name, kept in older.items() if kept[1] <= PATIENCE}
        for i in sorted(free):
            self.tracks[self.count] = boxes[i], 0
            found[self.count] = boxes[i]
            self.count += 1
        return found

    def _boxes(self, moving: Bool[np.ndarray, "height width"]) -> list[Box]:
        height, width = moving.shape
        specks_removed = maximum_filter(minimum_filter(moving, 2), 2, origin=-1)
        whole = minimum_filter(maximum_filter(specks_removed, CLOSED), CLOSED)
        labelled: Any = label(whole, np.ones((3, 3)))
        boxes: list[Box] = []
        for rows, columns in find_objects(labelled[0]):
            box = columns.start / width, rows.start / height, columns.stop / width, rows.stop / height
            if box[3] - box[1] >= LEAST_HEIGHT and box[2] - box[0] >= LEAST_WIDTH:
                boxes.append(box)
        return boxes


def detector_named(name: str, video: Video) -> Detector:
    """Returns the detector "motion", or the function at `"package.module:name"`; `ValueError` if there is none."""
    if name == "motion":
        return MotionDetector(video)
    try:
        found: Detector | None = load(name) if ":" in name else None
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"detector: got {name!r}, which cannot be imported ({error}); correct the name") from error
    if not callable(found):
        raise UserError(
            f"detector: got {name!r}, expected motion, or package.module:name of a function from an RGB frame to a "
            "mapping from tracks to boxes (left, top, right, bottom as fractions of the frame); pass one of these"
        )
    return found


def walkers(video: Video, detect: Detector) -> list[BoxTrack]:
    """Returns tracks that last `SHORTEST` seconds and move by `LEAST_PATH`, in order; `ValueError` for none."""
    tracks = [track for track in video.tracks(detect) if track.times[-1] - track.times[0] >= SHORTEST]
    moved = [track for track in tracks if _path(track) >= LEAST_PATH]
    if not moved:
        raise UserError(
            f"{video.path}: got no walkers from the detector, expected one or more that move for {SHORTEST} s; pass "
            "--boxes, or another detector"
        )
    return sorted(moved, key=lambda track: track.times[0])


def _path(track: BoxTrack) -> float:
    """Returns how far the feet move, sideways or up and down, in fractions of the frame."""
    left, _, right, bottom = track.boxes.T
    return max(float(np.ptp((left + right) / 2)), float(np.ptp(bottom)))


def smoothed(track: BoxTrack) -> BoxTrack:
    """Returns a track whose boxes are means over `SMOOTH` seconds."""
    size = max(1, round(SMOOTH / float(np.median(np.diff(track.times)))))
    return replace(track, boxes=uniform_filter1d(track.boxes, size, axis=0, mode="nearest"))


def _reduced(frame: Frame) -> Float[np.ndarray, "height width 3"]:
    """Returns means of square cells of a frame, so that its width is about `WIDTH`."""
    cell = max(1, round(frame.shape[1] / WIDTH))
    height, width = (side // cell * cell for side in frame.shape[:2])
    cells = frame[:height, :width].reshape(height // cell, cell, width // cell, cell, 3)
    return cells.mean((1, 3), dtype=np.float32)


def _overlap(one: Box, other: Box) -> float:
    """Returns intersection over union."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0.0) * max(height, 0.0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return shared / (areas - shared)
