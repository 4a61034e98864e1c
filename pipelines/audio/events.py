"""Audible events in stereo audio: onsets, side, loudness and delay between the ears.

Measures use the audio alone. Energies are relative to the noise floor, the level of quiet parts, by channel. Measures
of events that are too close to the floor are NaN.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Bool, Float
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike
from scipy.signal import find_peaks

from weftwork.datasets.readers.errors import UserError

WINDOW: Final = 0.060
"""Duration in seconds over which an event is measured."""
EARLY: Final = 0.002
"""Seconds before an event from which it is measured, to include its attack."""
FRAME, HOP = 0.016, 0.004
"""Frame and hop of onset detection, in seconds: 256 and 64 samples at 16 kHz."""
RISE: Final = 6.0
"""Minimum rise in level at an onset, in dB."""
APART: Final = 0.1
"""Minimum time between onsets, in seconds."""
QUIET: Final = 0.1
"""Quantile of levels that is the noise floor."""
AUDIBLE: Final = 4.0
"""Factor on the floor's energy; events below are not heard."""
SILENCE: Final = 1e-9
"""Mean square (-90 dBFS) below which nothing is heard, whatever the floor."""
LARGEST_DELAY, FINER = 1e-3, 16
STILL: Final = 0.05
"""Sources whose pans have a smaller standard deviation have no correlation of pans."""

Audio = Float[np.ndarray, "2 sample"]
Events = Float[np.ndarray, " event"]
Curve = Float[np.ndarray, " frame"]


def check_audio(audio: ArrayLike, name: str = "audio") -> Audio:
    """Returns checked audio as float64; `ValueError` unless [2, samples] of finite numbers."""
    values = np.asarray(audio)
    if values.ndim != 2 or values.shape[0] != 2 or not np.issubdtype(values.dtype, np.floating):
        raise UserError(f"{name}: got {values.dtype} of shape {values.shape}, expected floats [2, samples]")
    if not np.isfinite(values).all():
        raise UserError(f"{name}: got NaN or infinite samples, expected finite ones; check their source")
    return values.astype(np.float64)


def onsets(audio: Audio, sample_rate: int) -> Events:
    """Detects onsets in seconds: peaks of the rise in level from frame to frame; `ValueError` as `check_audio`."""
    audio = check_audio(audio)
    frame, hop = _samples(FRAME, sample_rate), _samples(HOP, sample_rate)
    lag = round(FRAME / HOP)
    loud = _powers(audio, frame, hop).mean(0)
    if len(loud) <= lag:
        return np.zeros(0)
    floor = max(float(np.quantile(loud, QUIET)), SILENCE)
    levels = 10 * np.log10(np.concatenate([np.full(lag, floor), np.maximum(loud, floor)]))
    rises = np.concatenate([[0], levels[lag:] - levels[:-lag], [0]])
    peaks, _ = find_peaks(rises, height=RISE, distance=max(1, round(APART / HOP)))
    return (peaks - 1) * hop / sample_rate


@dataclass(frozen=True, eq=False)
class Heard:
    """Measures of events; all arrays are by event, and NaN where nothing is heard.

    Args:
        energies: energies of left and right above the floor, as mean squares over `WINDOW`.
        itd: delay of the left ear against the right one, in seconds.
    """

    energies: Float[np.ndarray, "2 event"]
    itd: Events

    @property
    def pan(self) -> Events:
        """Pan, by the inverse of constant-power panning: -1 left, 1 right."""
        return pan_of(self.energies)

    @property
    def ild(self) -> Events:
        """Level of right over left in dB, within 40."""
        return level_difference(self.energies)

    @property
    def level(self) -> Events:
        """Level of both channels, in dB."""
        return 10 * np.log10(self.energies.sum(0))


def hear(audio: Audio, sample_rate: int, times: Events) -> Heard:
    """Measures the events at these times, in seconds; `ValueError` as `check_audio`."""
    audio, length = check_audio(audio), _samples(WINDOW, sample_rate)
    padded = np.pad(audio, ((0, 0), (length, length)))
    starts = np.round((np.asarray(times, np.float64) - EARLY) * sample_rate).astype(int) + length
    windows = sliding_window_view(padded, length, axis=1)[:, np.clip(starts, 0, padded.shape[1] - length)]
    energies, heard = _above_floor(np.square(windows).mean(-1), _floor(audio, sample_rate))
    delays = [_delay(windows[:, i], sample_rate) if heard[i] else np.nan for i in range(len(starts))]
    return Heard(np.where(heard, energies, np.nan), np.array(delays, np.float64))


def pan_of(energies: Float[np.ndarray, "2 *event"]) -> Float[np.ndarray, "*event"]:
    """Computes the pan in [-1, 1] from the energies of left and right."""
    return 4 / np.pi * np.arctan2(np.sqrt(energies[1]), np.sqrt(energies[0])) - 1


def level_difference(energies: Float[np.ndarray, "2 *event"]) -> Float[np.ndarray, "*event"]:
    """Computes the level of right over left in dB, within 40; NaN if both are silent."""
    left, right = energies + 1e-4 * energies.sum(0)
    return 10 * np.log10(right / left)


def pan_curve(audio: Audio, sample_rate: int, *, hop_seconds: float = 0.02) -> tuple[Curve, Curve]:
    """Computes times in seconds and the pan around them, NaN where nothing is heard; `ValueError` as `check_audio`."""
    times, powers = _curve(check_audio(audio), sample_rate, hop_seconds)
    energies, heard = _above_floor(powers, _floor(audio, sample_rate))
    return times, np.where(heard, pan_of(energies), np.nan)


def loudness_curve(audio: Audio, sample_rate: int, *, hop_seconds: float = 0.02) -> tuple[Curve, Curve]:
    """Computes times in seconds and the level around them in dBFS, at least -90; `ValueError` as `check_audio`."""
    times, powers = _curve(check_audio(audio), sample_rate, hop_seconds)
    return times, 10 * np.log10(np.maximum(powers.mean(0), SILENCE))


def envelope(audio: Audio, sample_rate: int) -> Curve:
    """Computes the RMS over both channels in frames of 32 ms every 8 ms (512 and 128 samples at 16 kHz).

    Differs: others use the mono mix, in which a delay between the ears changes the loudness.
    """
    return np.sqrt(_powers(audio, _samples(0.032, sample_rate), _samples(0.008, sample_rate)).mean(0))


def _samples(seconds: float, sample_rate: int) -> int:
    return max(1, round(seconds * sample_rate))


def _powers(audio: Audio, length: int, hop: int) -> Float[np.ndarray, "2 frame"]:
    """Computes mean squares of the frames that begin every `hop` samples and lie within the audio."""
    if audio.shape[1] < length:
        return np.zeros((2, 0))
    return sliding_window_view(np.square(audio), length, axis=1)[:, ::hop].mean(-1)


def _curve(audio: Audio, sample_rate: int, hop_seconds: float) -> tuple[Curve, Float[np.ndarray, "2 frame"]]:
    length, hop = _samples(WINDOW, sample_rate), _samples(hop_seconds, sample_rate)
    padded = np.pad(audio, ((0, 0), (length // 2, length - length // 2)), mode="symmetric")
    powers = _powers(padded, length, hop)
    return np.arange(powers.shape[1]) * hop / sample_rate, powers


def _floor(audio: Audio, sample_rate: int) -> Float[np.ndarray, " 2"]:
    """Computes the mean square of a channel's quiet parts."""
    powers = _powers(audio, _samples(FRAME, sample_rate), _samples(HOP, sample_rate))
    return np.quantile(powers, QUIET, axis=1) if powers.shape[1] else np.zeros(2)


def _above_floor(
    powers: Float[np.ndarray, "2 event"], floor: Float[np.ndarray, " 2"]
) -> tuple[Float[np.ndarray, "2 event"], Bool[np.ndarray, " event"]]:
    heard = powers.sum(0) > max(AUDIBLE * floor.sum(), SILENCE)
    return np.maximum(powers - floor[:, None], 0), heard


def _delay(window: Float[np.ndarray, "2 sample"], sample_rate: int) -> float:
    """Computes the delay by phase cross-correlation (GCC-PHAT), on a grid finer than samples."""
    length = 2 * window.shape[1]
    left, right = np.fft.rfft(window, length)
    cross = left * np.conj(right)
    cross /= np.maximum(np.abs(cross), 1e-15)
    correlation = np.fft.irfft(cross, length * FINER)
    reach = int(LARGEST_DELAY * sample_rate * FINER)
    around = np.concatenate([correlation[-reach:], correlation[: reach + 1]])
    return (int(around.argmax()) - reach) / (sample_rate * FINER)
