"""Recorded footsteps as the steps of walks, in rooms of varied reverberation.

A step is cut at its onset, played a little faster or slower, and scaled to energy 1 in its first 60 ms, so that
loudness depends on distance as with synthetic steps. A room is exponentially decaying noise, different at the two ears.
Its level does not depend on the distance of a step, so that steps from afar are more reverberant than near ones; both
are equally loud at the room's critical distance.
"""

from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Float
from scipy.ndimage import uniform_filter1d
from scipy.signal import lfilter, resample

from weftwork.datasets.readers.audio_files import audio_seconds, read_audio
from weftwork.datasets.readers.footsteps import FootstepFolder
from weftwork.datasets.synthetic.walks.sounds import ATTACK, CREST, SYNTHETIC, Impulses, StepSounds

LONGEST: Final = 0.6
"""Seconds after which a step is cut off."""
FADE: Final = 0.03
LOUD: Final = 0.06
"""Steps have energy 1 in their first so many seconds, less where their peak would exceed `CREST`."""
ONSET: Final = 0.3
"""A step begins where its level, over 4 ms, first exceeds this share of its maximum."""
SPEEDS: Final = (0.92, 1.08)
REVERBERATION: Final = (0.15, 0.6)
"""Seconds in which a room falls by 60 dB."""
CRITICAL: Final = (8.0, 32.0)
"""Distance in metres at which the room is as loud as the direct sound."""
LATE: Final = (0.005, 0.02)
"""Seconds from the direct sound to the room's."""
DARKNESS: Final = (0.2, 0.7)
"""Coefficient of the room's low-pass of first order."""


class RecordedSteps:
    """Steps of the recordings of a split of a folder.

    Args:
        rooms: off, steps are heard without reverberation.

    Raises:
        ValueError: as `FootstepFolder.of`.
    """

    def __init__(self, folder: FootstepFolder, split: str, *, rooms: bool = True) -> None:
        self.recordings, self.rooms = folder.of(split), rooms
        self.surfaces = tuple(self.recordings)

    def burst(self, surface: str, sample_rate: int, rng: np.random.Generator) -> Float[np.ndarray, " sample"]:
        some = self.recordings[surface]
        step = one_step(some[int(rng.integers(len(some)))].path, sample_rate)
        step = np.asarray(resample(step, round(len(step) / rng.uniform(*SPEEDS))))
        energy = np.square(step[: round(LOUD * sample_rate)]).sum() / sample_rate
        return step / max(np.sqrt(energy), np.abs(step).max() / CREST)

    def room(self, sample_rate: int, rng: np.random.Generator) -> Impulses | None:
        if not self.rooms:
            return None
        seconds, late, dark = (float(rng.uniform(*between)) for between in (REVERBERATION, LATE, DARKNESS))
        critical = np.exp(rng.uniform(*np.log(CRITICAL)))
        times = np.arange(round(seconds * sample_rate)) / sample_rate
        tail = rng.standard_normal((2, len(times))) * 10 ** (-3 * times / seconds)
        tail = np.asarray(lfilter([1 - dark], [1, -dark], tail * (times >= late)))
        return tail / np.sqrt(np.square(tail).sum()) / critical


@lru_cache(maxsize=1024)
def one_step(path: Path, sample_rate: int) -> Float[np.ndarray, " sample"]:
    """Returns a recorded step, mono, from its onset on."""
    mono = read_audio(path, 0.0, audio_seconds(path), sample_rate).mean(0, dtype=np.float64)
    power = uniform_filter1d(np.square(mono), max(1, round(0.004 * sample_rate)))
    level = np.sqrt(np.maximum(power, 0))  # its running sum rounds below 0
    start = max(0, int(np.argmax(level > ONSET * level.max())) - round(ATTACK * sample_rate))
    step = mono[start : start + round(LONGEST * sample_rate)].copy()
    fade = min(len(step), round(FADE * sample_rate))
    step[len(step) - fade :] *= np.linspace(1, 0, fade)
    return step


def steps_in(folder: Path | None, split: str) -> StepSounds:
    """Returns recorded steps of a split of a folder, opened once; without one, synthetic steps."""
    return SYNTHETIC if folder is None else _opened(folder, split)


@lru_cache(maxsize=8)
def _opened(folder: Path, split: str) -> RecordedSteps:
    return RecordedSteps(FootstepFolder(folder), split)
