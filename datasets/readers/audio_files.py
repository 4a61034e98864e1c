"""Reader of stereo audio from a piece of an audio file, without scaling."""

from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float32
from scipy.signal import resample_poly

from weftwork.datasets.readers.errors import UserError

SUFFIXES = (".wav", ".flac", ".ogg")
MOST_CHANNELS = 2


def audio_seconds(path: Path) -> float:
    """Seconds of an audio file; `ValueError` if it cannot be read, is empty, or has more than two channels."""
    with _opened(path) as file:
        return file.frames / file.samplerate


def audio_rate(path: Path) -> int:
    """Sample rate of an audio file in Hz; `ValueError` as `audio_seconds`."""
    with _opened(path) as file:
        return file.samplerate


def read_audio(
    path: Path, start: float, seconds: float, sample_rate: int | None = None
) -> Float32[np.ndarray, "2 sample"]:
    """Reads both channels, without scaling; mono files give two equal channels.

    Args:
        start, seconds: the piece to read, in seconds.
        sample_rate: rate to resample to, in Hz; the file's own when None.

    Raises:
        ValueError: a file that cannot be read, is empty or ends before the piece does, has more than two channels, or
            NaN.
    """
    with _opened(path) as file:
        own = file.samplerate
        file.seek(min(round(start * own), file.frames))
        samples = file.read(round(seconds * own), dtype="float32", always_2d=True).T
    if seconds - samples.shape[1] / own > 1 / own:
        raise UserError(
            f"{path}: got {samples.shape[1] / own:.4g} s of audio from {start:.4g} s on, expected {seconds:.4g} s; "
            "copy the file again, or read less"
        )
    if not np.isfinite(samples).all():
        raise UserError(f"{path}: got NaN or infinite samples, expected finite ones; extract it again")
    rate = sample_rate or own
    samples = resampled(samples, own, rate)
    length = round(seconds * rate)
    samples = np.pad(samples, ((0, 0), (0, max(0, length - samples.shape[1]))))[:, :length]
    return np.repeat(samples, MOST_CHANNELS // len(samples), axis=0).astype(np.float32)


def resampled(audio: Float32[np.ndarray, "channel sample"], rate: int, to: int) -> Float32[np.ndarray, "channel more"]:
    """Resamples audio to another rate, by a polyphase filter."""
    return audio if rate == to else resample_poly(audio, to, rate, axis=-1).astype(np.float32)


def _opened(path: Path) -> soundfile.SoundFile:
    try:
        file = soundfile.SoundFile(path)
    except (soundfile.LibsndfileError, OSError, TypeError) as error:
        raise UserError(
            f"{path}: got a file that cannot be read ({error}), expected a WAV file; extract it again"
        ) from error
    if file.channels > MOST_CHANNELS:
        file.close()
        raise UserError(f"{path}: got {file.channels} channels, expected one or two; mix it down to stereo")
    if not file.frames:
        file.close()
        raise UserError(f"{path}: got no samples, expected some audio; extract it again")
    return file
