"""The sound of a walk in stereo: one sound per step, panned, delayed at the far ear, softer from afar.

    gain = GAIN / max(r, 0.5), -6.02 dB per doubling of the distance r
    left, right = cos, sin of pi / 4 (1 + pan): their squares add up to 1 everywhere
    the far ear is late by (0.0875 m / 343 m/s) (angle + sin angle), at most 0.26 ms (Woodworth's sphere)

`GAIN` is one number for all clips, so that loudness depends on distance; nothing is ever scaled by its own peak. Steps
are heard when they happen: the way of the sound through the air takes no time.
"""

from typing import Final, Protocol

import numpy as np
from jaxtyping import Float, Float32
from scipy.signal import fftconvolve

from weftwork.datasets.readers.errors import UserError, check_choice
from weftwork.datasets.synthetic.walks.scenes import HALF_WIDTH, SURFACES, Surface, Walk

GAIN: Final = 0.055
USUAL: Final = 4.0
"""Without the law of distance, all steps are as if so many metres away."""
NOISE: Final = 0.001
"""Root mean square of the noise in each channel: -60 dBFS."""
ATTACK: Final = 0.002
CREST: Final = 24.0
"""Bursts, of energy 1 in seconds, have peaks up to this; others are drawn again."""
EAR: Final = 0.0875 / 343.0
"""Seconds from the middle of a head to its side."""
PAD: Final = 64
"""Samples that a burst is given before and after, for the ripples of delays that are no whole samples."""

Audio = Float32[np.ndarray, "2 sample"]
Impulses = Float[np.ndarray, "2 sample"]
"""Impulse response of a room at both ears, as loud as a step 1 m away if its energy is 1."""


class StepSounds(Protocol):
    """Audio of single steps and of the room around them."""

    @property
    def surfaces(self) -> tuple[str, ...]:
        """Surfaces that steps can be made on."""
        ...

    def burst(self, surface: str, sample_rate: int, rng: np.random.Generator) -> Float[np.ndarray, " sample"]:
        """Draws one step, of energy 1 in seconds and with peaks up to `CREST`."""
        ...

    def room(self, sample_rate: int, rng: np.random.Generator) -> Impulses | None:
        """Draws a room; none in the open."""
        ...


class SyntheticSteps:
    """Bursts of noise on the surfaces of `SURFACES`, without a room."""

    surfaces = tuple(SURFACES)

    def burst(self, surface: str, sample_rate: int, rng: np.random.Generator) -> Float[np.ndarray, " sample"]:
        return burst(SURFACES[surface], sample_rate, rng)

    def room(self, sample_rate: int, rng: np.random.Generator) -> None:
        return None


SYNTHETIC: Final = SyntheticSteps()


def sound(
    walk: Walk,
    sample_rate: int,
    *,
    draw: int = 0,
    pan: bool = True,
    delay: bool = True,
    distance: bool = True,
    steps: StepSounds = SYNTHETIC,
) -> Audio:
    """Renders the audio of a walk, within [-1, 1], with a floor of noise that differs between the channels.

    Args:
        draw: bursts and noise of another draw, of the same steps.
        pan: off, all steps are in the middle, and none is delayed.
        delay: off, no step is later at the far ear.
        distance: off, all steps are as loud as if `USUAL` metres away.
        steps: what steps and their room sound like.

    Raises:
        ValueError: a sample rate below 8000 Hz, a negative draw, or a surface that the steps do not have.
    """
    check_choice("surface", walk.surface, steps.surfaces)
    if sample_rate < 8000 or draw < 0:
        raise UserError(f"sample_rate, draw: got {sample_rate} and {draw}, expected at least 8000 and 0")
    rng = np.random.default_rng([*walk.key, draw, 1])
    pans = walk.pan if pan else np.zeros(len(walk.steps))
    delays = ear_delay(pans) if delay else np.zeros(len(walk.steps))
    distances = walk.distance if distance else np.full(len(walk.steps), USUAL)
    gains = GAIN * 10 ** (walk.levels / 20) / np.maximum(distances, 0.5)
    audio = NOISE * rng.standard_normal((2, round(walk.seconds * sample_rate)))
    room = steps.room(sample_rate, np.random.default_rng([*walk.key, draw, 3]))
    dry = np.zeros(audio.shape[1])
    for i, time in enumerate(walk.steps):
        one = steps.burst(walk.surface, sample_rate, np.random.default_rng([*walk.key, draw, 2, i]))
        late = np.maximum([delays[i], -delays[i]], 0)
        _add(audio, one, (time + late) * sample_rate, gains[i] * channel_gains(pans[i]))
        start = int(time * sample_rate)
        dry[start : start + len(one)] += 10 ** (walk.levels[i] / 20) * one[: len(dry) - start]
    if room is not None:
        audio += GAIN * fftconvolve(dry[None], room, axes=1)[:, : len(dry)]
    return np.clip(audio, -1, 1).astype(np.float32)


def channel_gains(pan: Float[np.ndarray, "*step"] | float) -> Float[np.ndarray, "2 *step"]:
    """Of left and right, by constant power; pan in [-1, 1]."""
    angle = np.pi / 4 * (1 + np.asarray(pan))
    return np.stack([np.cos(angle), np.sin(angle)])


def ear_delay(pan: Float[np.ndarray, "*step"]) -> Float[np.ndarray, "*step"]:
    """Delay of the left ear over the right one, in seconds; below 0 for steps at the left."""
    angle = np.arctan(np.asarray(pan) * HALF_WIDTH)
    return EAR * (angle + np.sin(angle))


def burst(surface: Surface, sample_rate: int, rng: np.random.Generator) -> Float[np.ndarray, " sample"]:
    """One step: noise in a Gaussian band over octaves, under an attack of 2 ms and a decay; energy 1 in seconds."""
    times = np.arange(round(2.5 * surface.decay * sample_rate)) / sample_rate
    shape = np.minimum(times / ATTACK, 1) * 10 ** (-times / surface.decay)
    frequencies = np.maximum(np.fft.rfftfreq(len(times), 1 / sample_rate), 1)
    band = np.exp(-0.5 * (np.log2(frequencies / surface.center) / (surface.octaves / 2)) ** 2)
    while True:
        noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(len(times))) * band, len(times)) * shape
        noise *= np.sqrt(sample_rate / np.square(noise).sum())
        if np.abs(noise).max() <= CREST:
            return noise


def _add(
    audio: Float[np.ndarray, "2 sample"],
    one: Float[np.ndarray, " sample"],
    starts: Float[np.ndarray, " 2"],
    gains: Float[np.ndarray, " 2"],
) -> None:
    """Add a burst to both channels where it starts, in samples that need not be whole; its end may be cut off."""
    first = int(starts.min())
    length = len(one) + 2 * PAD
    turn = np.exp(-2j * np.pi * np.fft.rfftfreq(length) * (starts - first + PAD)[:, None])
    both = np.fft.irfft(np.fft.rfft(one, length) * turn, length) * gains[:, None]
    left, right = max(first - PAD, 0), min(first - PAD + length, audio.shape[1])
    audio[:, left:right] += both[:, left - first + PAD : right - first + PAD]
