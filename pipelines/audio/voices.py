"""Audio of several walkers: each is generated over the time in which it is seen, and all are mixed."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import torch

from weftwork.attention_processors.audio.conditions import BoxTrack, OverTime
from weftwork.datasets.readers.errors import UserError
from weftwork.pipelines.audio.events import Audio, hear, onsets
from weftwork.pipelines.audio.output import AudioOutput
from weftwork.pipelines.audio.pipeline import VideoToAudioPipeline

LAST: Final = 0.3
"""Seconds for which the last step of a track is heard after the track ends."""
FADE: Final = 0.05


def mixed(
    pipe: VideoToAudioPipeline,
    voices: Sequence[Sequence[OverTime]],
    prompt: str,
    *,
    seconds: float,
    generator: torch.Generator,
    num_inference_steps: int = 50,
    guidance_scale: float = 2.0,
    callback: Callable[[int, int, torch.Tensor], None] | None = None,
) -> AudioOutput:
    """Generates each voice alone, from the first time of its first track to the last, and sums all.

    Args:
        voices: conditions by voice, with a track in each.
        seconds: length of the mix.
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
    for voice, track in zip(voices, tracks, strict=True):
        start, end = float(track.times[0]), min(float(track.times[-1]) + LAST, seconds)
        part = [cut for one in voice if (cut := one.between(start, end)) is not None]
        made = pipe(
            [part],
            prompt,
            seconds=end - start,
            generator=generator,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            callback=callback,
        ).audio
        placed.append(_placed(made, round(start * rate), round(seconds * rate), round(FADE * rate)))
    return AudioOutput(np.sum(placed, 0), placed, rate)


def pan_correlation(voice: Audio, sample_rate: int, track: BoxTrack) -> float:
    """Computes the correlation of the sides at which a voice's steps are heard with those of the boxes.

    NaN for fewer than three steps, or a track that stays at one side.
    """
    times = onsets(voice, sample_rate)
    boxes, seen = track.at(times)
    heard, place = hear(voice, sample_rate, times).pan, boxes[:, [0, 2]].sum(1) - 1
    known = seen & np.isfinite(heard)
    if known.sum() < 3 or place[known].std() < 1e-3 or heard[known].std() < 1e-9:
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
