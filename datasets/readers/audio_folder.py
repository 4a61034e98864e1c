"""Dataset of a folder of audio files, in pieces of one length, with boxes and depth in sidecar files.

    folder/<name>.wav                        or .flac, .ogg; one or two channels
    folder/<name>.boxes.npz, .boxes.json     optional, see `sidecar_files`
    folder/<name>.depth.npz, .depth.json     optional, see `sidecar_files`

Pieces do not overlap; the rest of a file is left out.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Float32
from torch.utils.data import Dataset

from weftwork.datasets.readers.audio_files import SUFFIXES, audio_seconds, read_audio
from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.readers.folders import files_below
from weftwork.datasets.readers.sidecar_files import SIDECARS, BoxFrames, DepthFrames, beside, read_boxes, read_depth

logger = logging.getLogger(__name__)

Read = TypeVar("Read")


@dataclass(frozen=True)
class AudioPiece:
    """A piece of an audio file, from `start` and of length `seconds`, read on access."""

    path: Path
    start: float
    seconds: float

    def audio(self, sample_rate: int) -> Float32[np.ndarray, "2 sample"]:
        """Audio of the piece, without scaling; mono files give two equal channels."""
        return read_audio(self.path, self.start, self.seconds, sample_rate)

    @property
    def boxes(self) -> tuple[BoxFrames, ...]:
        """Tracks that are seen in this piece, with times from its beginning."""
        path = beside(self.path.with_suffix(""), "boxes")
        return () if path is None else read_boxes(path, self.start, self.seconds)

    @property
    def depth(self) -> DepthFrames | None:
        """Depth maps; None without a file, or without maps in this piece."""
        path = beside(self.path.with_suffix(""), "depth")
        found = None if path is None else read_depth(path, self.start, self.seconds)
        return found if found is not None and len(found.times) else None


class AudioFolder(Dataset[AudioPiece]):
    """Dataset of all pieces, file by file.

    Args:
        seconds: length of a piece.

    Raises:
        ValueError: no audio files, none as long as a piece, or files that cannot be read, all of them listed.
    """

    def __init__(self, folder: str | Path, seconds: float) -> None:
        folder = Path(folder)
        if not seconds > 0:
            raise UserError(f"seconds: got {seconds}, expected a length above 0")
        files = files_below(folder)
        paths = [path for path in files if path.suffix.lower() in SUFFIXES]
        if not paths:
            raise UserError(f"{folder}: got no audio files, expected names that end in {', '.join(SUFFIXES)}; add some")
        names = {path.with_suffix("") for path in paths}
        for path in files:
            base = path.with_suffix("")
            if path.suffix in SIDECARS and base.suffix in (".boxes", ".depth") and base.with_suffix("") not in names:
                logger.warning("%s: got no audio file of this name, so it is not read; rename it", path)
        problems: list[str] = []
        self._pieces: list[AudioPiece] = []
        for path in paths:
            length = _tried(problems, audio_seconds, path)
            for name, read in (("boxes", read_boxes), ("depth", read_depth)):
                if sidecar := _tried(problems, beside, path.with_suffix(""), name):
                    _tried(problems, read, sidecar, 0.0, float("inf"))
            count = int((length or 0.0) / seconds + 1e-9)
            self._pieces += [AudioPiece(path, index * seconds, seconds) for index in range(count)]
        if problems:
            raise UserError("\n  ".join([f"{folder}: {len(problems)} files cannot be used", *problems]))
        if not self._pieces:
            raise UserError(f"seconds: got {seconds}, expected at most the longest audio file in {folder}; lower it")

    def __len__(self) -> int:
        return len(self._pieces)

    def __getitem__(self, index: int) -> AudioPiece:
        return self._pieces[index]


def _tried(problems: list[str], read: Callable[..., Read], *arguments: object) -> Read | None:
    try:
        return read(*arguments)
    except ValueError as error:
        problems.append(str(error))
        return None
