"""What a pipeline of sounds gives, and its file."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from diffusers.utils import BaseOutput
from jaxtyping import Float

from weftwork.datasets.readers.atomic import atomic_path

logger = logging.getLogger(__name__)

Sound = Float[np.ndarray, "2 sample"]


@dataclass
class SoundOutput(BaseOutput):
    """One sound.

    Args:
        audio: in [-1, 1] unless it clips.
        voices: the parts that it is the sum of.
    """

    audio: Sound
    voices: Sequence[Sound]
    sample_rate: int

    def save(self, path: str | Path) -> Path:
        """As a sound file, for example WAV or FLAC; whole or not at all.

        Raises:
            ValueError: a suffix of no known format.
        """
        path = Path(path)
        if path.suffix[1:].upper() not in soundfile.available_formats():
            raise ValueError(f"path: got {path.name!r}, expected a name that ends in .wav or .flac; change it")
        if (peak := float(np.abs(self.audio).max())) > 1:
            logger.warning("%s: the sound reaches %.2f and is clipped at 1; draw fewer voices, or scale it", path, peak)
        with atomic_path(path) as partial:
            soundfile.write(partial, self.audio.T, self.sample_rate)
        return path
