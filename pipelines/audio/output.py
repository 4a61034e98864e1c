"""Output of the audio pipeline, and its file."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import soundfile
from diffusers.utils import BaseOutput
from jaxtyping import Float

from weftwork.datasets.readers.atomic import atomic_path
from weftwork.datasets.readers.errors import UserError

logger = logging.getLogger(__name__)

Stereo = Float[np.ndarray, "2 sample"]


@dataclass
class AudioOutput(BaseOutput):
    """Output of `VideoToAudioPipeline`.

    Args:
        audio: the sum of all voices, in [-1, 1] unless it clips.
        voices: audio of each voice.
    """

    audio: Stereo
    voices: Sequence[Stereo]
    sample_rate: int

    def save(self, path: str | Path) -> Path:
        """Writes an audio file, such as WAV or FLAC, atomically; `ValueError` for an unknown suffix."""
        path = Path(path)
        if path.suffix[1:].upper() not in soundfile.available_formats():
            raise UserError(f"path: got {path.name!r}, expected a name that ends in .wav or .flac; change it")
        if (peak := float(np.abs(self.audio).max())) > 1:
            logger.warning("%s: the audio reaches %.2f and is clipped at 1; pass fewer voices, or scale it", path, peak)
        encoded = BytesIO()  # soundfile's own errors of writing are no OSError
        soundfile.write(encoded, self.audio.T, self.sample_rate, format=path.suffix[1:])
        with atomic_path(path) as partial:
            partial.write_bytes(encoded.getvalue())
        return path
