"""Posed views: clips of static scenes with a camera per frame, and depth where it is known.

    root/<clip>.txt                cameras, as RealEstate10K has them
    root/<clip>/<time>.png         frame, or .jpg, .jpeg, .webp
    root/<clip>/<time>.npy         its depth, optional: [height, width], along the camera's axis, in the cameras' unit

A line of the cameras' file, after a first line with the address of the video, which may be left out:

    <time> <focal x> <focal y> <center x> <center y> 0 0 <twelve numbers: world to camera, [3, 4] row by row>

Times are whole microseconds in increasing order; focal lengths and centres are fractions of width and height. Frames
that are not on disk are skipped, since clips of RealEstate10K list more than people keep.

Source: https://google.github.io/realestate10k (arXiv 1805.09817).
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch.utils.data import Dataset

from weftwork.datasets.readers.cameras import Camera
from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.readers.images import read_image
from weftwork.datasets.readers.sidecar_files import load_arrays

NUMBERS: Final = 19
MARGIN: Final = 30
"""Frames from one reference to the other, unless clips are too short for it."""
SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp")
PLACES: Final[Mapping[str, float]] = {
    "reference_0": 0.0,
    "reference_1": 1.0,
    "interpolating": 0.5,
    "extrapolating": 1.5,
}
"""Place of each view in a stretch of frames, in margins."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a clip; pixels are read on access."""

    time: int
    camera: Camera
    path: Path

    @property
    def image(self) -> Image.Image:
        """RGB image; `ValueError` if it cannot be read."""
        return read_image(self.path)

    @property
    def depth(self) -> Float[np.ndarray, "height width"] | None:
        """Depth map, None without a file; `ValueError` unless it is an array of two axes with a depth above 0."""
        path = self.path.with_suffix(".npy")
        if not path.is_file():
            return None
        values = np.asarray(load_arrays(path))
        if values.ndim != 2 or not np.issubdtype(values.dtype, np.number):
            raise UserError(f"{path}: got {values.dtype} of shape {values.shape}, expected numbers [height, width]")
        if not (np.isfinite(values) & (values > 0)).any():
            raise UserError(f"{path}: got no finite depth above 0, expected some; check its sign and unit")
        return values.astype(np.float64)


def read_clip(cameras: str | Path) -> tuple[Frame, ...]:
    """Reads the frames of a clip that are on disk, in order of time.

    Raises:
        ValueError: no such file, a line that is not a camera, times that do not increase, or no frame beside it.
    """
    path = Path(cameras)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cameras: got {str(path)!r}, which cannot be read ({error}), expected a text file") from error
    frames, before = [], -1
    for number, line in enumerate(lines, 1):
        if not line.strip() or (number == 1 and not line.split()[0].isdecimal()):  # an address, not a time
            continue
        try:
            time, camera = _camera(line.split())
        except ValueError as error:
            raise UserError(f"{path}, line {number}: {error}") from error
        if time <= before:
            raise UserError(f"{path}, line {number}: got time {time} after {before}, expected a later one; sort them")
        before = time
        found = [file for suffix in SUFFIXES if (file := path.with_suffix("") / f"{time}{suffix}").is_file()]
        if len(found) > 1:
            raise UserError(f"{found[0]}: got {found[1].name} beside it, expected one image per time; remove one")
        frames += [Frame(time, camera, file) for file in found]
    if not frames:
        raise UserError(
            f"{path}: got no frame for its times in {path.with_suffix('')}, expected images called <time>.png or .jpg"
        )
    return tuple(frames)


def _camera(words: list[str]) -> tuple[int, Camera]:
    if len(words) != NUMBERS:
        raise UserError(f"got {len(words)} numbers, expected {NUMBERS}: time, lens (4), 0 0, pose (12)")
    try:
        time, numbers = int(words[0]), [float(word) for word in words[1:]]
    except ValueError as error:
        raise UserError(f"got {error}, expected numbers") from None
    return time, Camera((numbers[0], numbers[1]), np.array(numbers[6:]).reshape(3, 4), (numbers[2], numbers[3]))


class PosedViews(Dataset[Mapping[str, Frame]]):
    """Dataset of stretches of clips: a frame per name in `PLACES`, the references `margin` frames apart.

    Args:
        margin: frames from one reference to the other, an even number; None for `MARGIN`, or as many as the longest
            clip has frames for, which is logged.
        step: frames between the starts of stretches.

    Raises:
        ValueError: no clip in the folder, none that is long enough, an odd margin, or one that `read_clip` rejects.
    """

    def __init__(self, root: str | Path, *, margin: int | None = None, step: int = 10) -> None:
        if (margin is not None and (margin < 2 or margin % 2)) or step < 1:
            raise UserError(f"margin, step: got {margin} and {step}, expected an even number above 0, and one above 0")
        files = sorted(Path(root).glob("*.txt"))
        if not files:
            raise UserError(f"root: got {str(root)!r}, expected a folder with <clip>.txt files; check the path")
        self._clips = [read_clip(file) for file in files]
        longest = max(map(len, self._clips))
        if margin is None and (margin := _largest_margin(longest)) < MARGIN:
            logger.info("%s: references %d frames apart, the most in clips of up to %d frames", root, margin, longest)
        self._margin = margin
        last = round(max(PLACES.values()) * margin)
        self._starts = [(i, start) for i, clip in enumerate(self._clips) for start in range(0, len(clip) - last, step)]
        if not self._starts:
            raise UserError(
                f"margin: got {margin} for clips of up to {longest} frames, expected over {last}; lower it, or take "
                "longer clips"
            )

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> Mapping[str, Frame]:
        clip, start = self._starts[index]
        return {name: self._clips[clip][start + round(place * self._margin)] for name, place in PLACES.items()}


def _largest_margin(frames: int) -> int:
    """Returns `MARGIN`, or less where the farthest of `PLACES` has to be within so many frames; 2 at least."""
    return max(2, min(MARGIN, int((frames - 1) / max(PLACES.values())) // 2 * 2))
