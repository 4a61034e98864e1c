"""Times of steps from the boxes of a walker, which are wider when the feet are apart."""

from typing import Final

import numpy as np
from scipy.ndimage import uniform_filter1d

from weftwork.attention_processors.audio.conditions import BoxTrack, Envelope, Times

RATE: Final = 25.0
"""Samples of the width per second."""
STEPS_PER_SECOND: Final = (1.3, 2.6)
USUAL: Final = 1.9
"""Steps per second where none are seen."""
CLEAR: Final = 0.3
"""Least share of the power of widths that is at one rate for steps to count as seen."""
DECAY: Final = 0.07
"""Seconds in which a step falls by 20 dB."""
VALUES: Final = 500
"""Samples of the envelope per second."""


def step_times(track: BoxTrack) -> tuple[Times, bool]:
    """Returns step times of a track of unsmoothed boxes, and whether they are seen; otherwise they are even."""
    start, end = float(track.times[0]), float(track.times[-1])
    times = np.arange(start, end, 1 / RATE)
    left, top, right, bottom = track.at(times)[0].T
    widths = (right - left) / (bottom - top)
    widths = (widths - uniform_filter1d(widths, round(RATE), mode="nearest")) * np.hanning(len(times))
    rates = np.fft.rfftfreq(4 * len(times), 1 / RATE)
    spectrum = np.fft.rfft(widths, 4 * len(times))
    power, walks = np.square(np.abs(spectrum)), (rates >= STEPS_PER_SECOND[0]) & (rates <= STEPS_PER_SECOND[1])
    best = int(np.argmax(power * walks))
    near = np.abs(rates - rates[best]) <= 2 / max(end - start, 1e-6)
    peak = 0 < best < len(power) - 1 and power[best] > max(power[best - 1], power[best + 1])
    seen = bool(peak and (power * near).sum() >= CLEAR * power.sum())
    rate, first = (rates[best], -np.angle(spectrum[best]) / (2 * np.pi * rates[best])) if seen else (USUAL, 0.5 / USUAL)
    return start + np.arange(first % (1 / rate), end - start, 1 / rate), seen


def gait(track: BoxTrack) -> Envelope:
    """Returns the envelope of the steps of a track; 0 before and after it."""
    times, _ = step_times(track)
    clock = np.arange(round(float(track.times[-1]) * VALUES) + 1) / VALUES
    later = clock - times[:, None]
    loud = np.where(later >= 0, 10 ** (-np.maximum(later, 0) / DECAY), 0.0).sum(0)
    return Envelope.from_audio(loud[None], VALUES)
