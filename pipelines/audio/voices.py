"""Audio of several walkers: each is generated over the time in which it is seen, and all are mixed."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import torch
from scipy.ndimage import uniform_filter1d

from weftwork.attention_processors.audio.conditions import BoxTrack, OverTime
from weftwork.datasets.readers.errors import UserError
from weftwork.pipelines.audio.events import SILENCE, STILL, Audio, hear, onsets
from weftwork.pipelines.audio.output import AudioOutput
from weftwork.pipelines.audio.pipeline import VideoToAudioPipeline

LAST: Final = 0.3
"""Seconds for which the last step of a track is heard after the track ends."""
FADE: Final = 0.05
BALANCE_WINDOW: Final = 0.03
"""Seconds over which the level of a channel is measured to balance it."""
FAINTEST: Final = 1e-3
"""Share of the power of both channels below which a channel is not amplified further."""


def mixed(  # noqa: PLR0913  (the options of the pipeline's call, and two of its own)
    pipe: VideoToAudioPipeline,
    voices: Sequence[Sequence[OverTime]],
    prompt: str,
    *,
    seconds: float,
    generator: torch.Generator,
    num_inference_steps: int = 50,
    guidance_scale: float = 2.0,
    balance: bool = True,
    callback: Callable[[int, int, torch.Tensor], None] | None = None,
) -> AudioOutput:
    """Generates each voice alone, from the first time of its first track to the last, and sums all.

    Args:
        voices: conditions by voice, with a track in each.
        seconds: length of the mix.
        balance: apply `balanced` to each voice, with its first track.
        callback: see the pipeline; called for each voice.

    Raises:
        ValueError: a track begins after the end, or as the pipeline.
    """
    rate = pipe.vae.config["sampling_rate"]
    placed = []
    tracks = [next(one for one in voice if isinstance(one, BoxTrack)) for voice in voices]
    if (last := max(float(track.times[0]) for track in tracks)) >= seconds:
        raise UserError(
            f"voices: got a track that begins at {last:g} s, expected one before {seconds:g} s; leave it out"
        )
    for conditions, track in zip(voices, tracks, strict=True):
        start, end = float(track.times[0]), min(float(track.times[-1]) + LAST, seconds)
        part = [cut for one in conditions if (cut := one.between(start, end)) is not None]
        made = pipe(
            [part],
            prompt,
            seconds=end - start,
            generator=generator,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            callback=callback,
        ).audio
        voice = _placed(made, round(start * rate), round(seconds * rate), round(FADE * rate))
        placed.append(balanced(voice, rate, track) if balance else voice)
    return AudioOutput(np.sum(placed, 0), placed, rate)


def balanced(voice: Audio, sample_rate: int, track: BoxTrack) -> Audio:
    """Returns a voice with gains of left and right over time that place it at the side of its boxes.

    The power of both channels together is kept. Before and after the track, its first and last box count. A track of a
    weight below 1 moves the voice by that part of the way, in dB.
    """
    size = max(1, round(BALANCE_WINDOW * sample_rate))
    powers = uniform_filter1d(np.square(voice, dtype=np.float64), size, axis=1, mode="nearest")
    powers = np.maximum(powers, 0)  # the running sum rounds below 0
    places = np.interp(np.arange(voice.shape[1]) / sample_rate, track.times, track.boxes[:, [0, 2]].mean(1))
    shares = np.square([np.cos(np.pi / 2 * places), np.sin(np.pi / 2 * places)])
    total = powers.sum(0)
    gains = np.sqrt(shares * total / (powers + FAINTEST * total + SILENCE))
    return (voice * gains ** min(track.weight, 1.0)).astype(voice.dtype)


def pan_correlation(voice: Audio, sample_rate: int, track: BoxTrack) -> float:
    """Computes the correlation of the sides at which a voice's steps are heard with those of the boxes.

    A `balanced` voice is at these sides by its gains, whatever was generated. Only the span from the first box to the
    last is measured, since noise that sets in after silence would count as a step. NaN for fewer than three steps, or a
    track that stays at one side (`STILL`).
    """
    first, last = (round(float(time) * sample_rate) for time in track.times[[0, -1]])
    voice = voice[:, first:last]
    times = onsets(voice, sample_rate)
    boxes, seen = track.at(times + track.times[0])
    heard, place = hear(voice, sample_rate, times).pan, boxes[:, [0, 2]].sum(1) - 1
    known = seen & np.isfinite(heard)
    if known.sum() < 3 or place[known].std() < STILL or heard[known].std() < 1e-9:
        return float("nan")
    return float(np.corrcoef(heard[known], place[known])[0, 1])


def _placed(voice: Audio, start: int, length: int, fade: int) -> Audio:
    """Returns a voice at its place in silence, with its end faded out."""
    placed = np.zeros((2, length), np.float32)
    size = min(voice.shape[1], length - start)
    placed[:, start : start + size] = voice[:, :size]
    fade = min(fade, size)
    placed[:, start + size - fade : start + size] *= np.linspace(1, 0, fade, dtype=np.float32)
    return placed
