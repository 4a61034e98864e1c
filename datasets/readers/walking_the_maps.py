"""Walking The Maps: videos of walks through games, in chunks, as in Stable-V2A and its successors.

    root/<sample>/audio/<sample>.wav
    root/<sample>/frames_4fps/*.jpg          4 a second, in natural order of their names
    root/<sample>/<sample>.metadata.json     {"processed": {"video_duration": seconds}, ...}
    root/<sample>/<sample>.boxes.npz         or .json; optional, see `sidecar_files`
    root/<sample>/<sample>.depth.npz         or .json; optional, see `sidecar_files`
    envelopes/<sample>_<a>_<b>.npy           optional: predicted loudness from frame a to frame b of 30 a second

A split is a text file with the name of a sample on each line. Chunks do not overlap; the rest of a video is left out.

Source: arXiv 2412.15023; YusuphaJuwara/Stable-V2A-v1 at 0d13ac6, main/data/dataset_wtm.py. Files of boxes and depth are
not part of the dataset.
Differs: loudness is kept. There each chunk is divided by its peak, which removes the effect of distance.
"""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Float, Float32
from PIL import Image
from torch.utils.data import Dataset

from weftwork.datasets.readers.audio_files import audio_rate, audio_seconds, read_audio
from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.readers.images import read_image
from weftwork.datasets.readers.sidecar_files import BoxFrames, DepthFrames, beside, read_array, read_boxes, read_depth

TEXT: Final = "A person walks."
"""Prompt of all samples."""
FRAME_RATE: Final = 4
ENVELOPE_RATE: Final = 30
SLACK: Final = 0.5
"""Seconds by which audio may be shorter than its video."""


@dataclass(frozen=True, eq=False)
class MapChunk:
    """A chunk of a video; audio, images and the rest are read on access.

    Args:
        folder: folder of its sample.
        start: in seconds from the video's beginning.
        sample_rate: rate to resample audio to, in Hz; the file's own when None.
        envelopes: folder of predicted envelopes.
    """

    folder: Path
    start: float
    seconds: float
    sample_rate: int | None = None
    envelopes: Path | None = None

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def audio(self) -> Float32[np.ndarray, "2 sample"]:
        """Audio at `rate`, `seconds` long, unscaled; mono files give two equal channels; `ValueError` if unreadable."""
        return read_audio(_audio(self.folder), self.start, self.seconds, self.sample_rate)

    @property
    def rate(self) -> int:
        """Sample rate of `audio` in Hz."""
        return self.sample_rate or audio_rate(_audio(self.folder))

    @property
    def frame_paths(self) -> tuple[Path, ...]:
        """Paths of the frames, 4 a second; `ValueError` if some are missing."""
        folder = self.folder / f"frames_{FRAME_RATE}fps"
        first, last = int(self.start * FRAME_RATE + 1e-9), int((self.start + self.seconds) * FRAME_RATE + 1e-9)
        paths = sorted(folder.glob("*.jpg"), key=_natural)
        if len(paths) < last:
            raise UserError(f"{folder}: got {len(paths)} images, expected {last} or more; extract them again at 4 fps")
        return tuple(paths[first:last])

    @property
    def frames(self) -> tuple[Image.Image, ...]:
        """RGB frames, 4 a second; `ValueError` if one is missing or cannot be read."""
        return tuple(map(read_image, self.frame_paths))

    @property
    def boxes(self) -> tuple[BoxFrames, ...] | None:
        """Tracks that are seen in this chunk; None without a file; `ValueError` as `beside` and `read_boxes`."""
        path = beside(self.folder / self.name, "boxes")
        return None if path is None else read_boxes(path, self.start, self.seconds)

    @property
    def depth(self) -> DepthFrames | None:
        """Depth maps; None without a file; `ValueError` as `beside` and `read_depth`."""
        path = beside(self.folder / self.name, "depth")
        return None if path is None else read_depth(path, self.start, self.seconds)

    @property
    def envelope(self) -> Float[np.ndarray, " frame"] | None:
        """Predicted loudness, 30 a second; None without a folder; `ValueError` unless a finite array of one axis."""
        if self.envelopes is None:
            return None
        first, last = (round(time * ENVELOPE_RATE) for time in (self.start, self.start + self.seconds))
        path = self.envelopes / f"{self.name}_{first}_{last}.npy"
        values = np.squeeze(read_array(path))
        if values.ndim != 1:
            raise UserError(f"{path}: got shape {values.shape}, expected [frame]; save one envelope in a file")
        return values


class WalkingTheMaps(Dataset[MapChunk]):
    """Dataset of all chunks of a split, sample by sample.

    Args:
        split: file with the name of a sample on each line.
        seconds: length of a chunk; videos that are shorter have none.
        sample_rate: rate to resample audio to, in Hz; each file's own when None.
        envelopes: folder of predicted envelopes.

    Raises:
        ValueError: no such files, names that are not folders of the root, metadata without a duration, audio that
            cannot be read or is much shorter than its video, or no chunk at all.
    """

    def __init__(
        self,
        root: str | Path,
        split: str | Path,
        *,
        seconds: float = 2.0,
        sample_rate: int | None = None,
        envelopes: str | Path | None = None,
    ) -> None:
        if not 0 < seconds < math.inf or (sample_rate is not None and sample_rate < 1):
            raise UserError(
                f"seconds, sample_rate: got {seconds} and {sample_rate}, expected finite numbers above 0; correct them"
            )
        folders = [_folder(Path(root), name) for name in _names(Path(split))]
        predicted = None if envelopes is None else Path(envelopes)
        self._chunks = [
            MapChunk(folder, i * seconds, seconds, sample_rate, predicted)
            for folder in folders
            for i in range(int(_duration(folder) / seconds + 1e-9))
        ]
        if not self._chunks:
            raise UserError(f"seconds: got {seconds}, expected at most the longest video of {split}; lower it")

    def __len__(self) -> int:
        return len(self._chunks)

    def __getitem__(self, index: int) -> MapChunk:
        return self._chunks[index]


def _names(split: Path) -> list[str]:
    try:
        names = [line.strip() for line in split.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"split: got {str(split)!r}, which cannot be read ({error}), expected a text file") from error
    if not names or len(set(names)) < len(names):
        got = "a name twice" if names else "no names"
        raise UserError(f"split: got {got} in {str(split)!r}, expected one on each line; write each once")
    return names


def _folder(root: Path, name: str) -> Path:
    folder = root / name
    if Path(name).name != name or not folder.is_dir():
        raise UserError(f"split: got the sample {name!r}, expected a folder of {str(root)!r}; check root and split")
    return folder


def _duration(folder: Path) -> float:
    """Returns the shorter duration of video and audio in seconds."""
    path = folder / f"{folder.name}.metadata.json"
    try:
        seconds = json.loads(path.read_text(encoding="utf-8"))["processed"]["video_duration"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f'{path}: got {type(error).__name__} ({error}), expected {{"processed": {{"video_duration": seconds}}}}; '
            "write it"
        ) from error
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
        raise UserError(f"{path}: got a video_duration of {seconds!r}, expected seconds above 0; correct it")
    heard = audio_seconds(_audio(folder))
    if heard < seconds - SLACK:
        raise UserError(
            f"{_audio(folder)}: got {heard:.4g} s of audio for {seconds:.4g} s of video, expected as much; "
            "extract it again"
        )
    return min(heard, float(seconds))


def _audio(folder: Path) -> Path:
    return folder / "audio" / f"{folder.name}.wav"


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort key in which numbers in a name count as numbers: 2 before 10."""
    return [(int(part or 0), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", path.name)]
