"""Plots of audio: spectrograms, and panning and loudness over time beside the tracks."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.signal import stft

from weftwork.attention_processors.audio.conditions import BoxTrack
from weftwork.datasets.readers.atomic import atomic_path
from weftwork.pipelines.audio.events import Audio, loudness_curve, pan_curve

BINS, FRAMES = 64, 160
FLOOR_DB = -80.0


def spectrogram(audio: Audio, sample_rate: int) -> Float[np.ndarray, "3 height width"]:
    """Spectrogram in [0, 1] over 80 dB: left above right, high frequencies first; for contact sheets."""
    window = 2 * BINS
    hop = max(1, audio.shape[1] // FRAMES)
    _, _, spectra = stft(audio, sample_rate, nperseg=window, noverlap=max(0, window - hop))
    decibels = 20 * np.log10(np.abs(spectra) + 1e-9)
    shown = np.clip(1 - decibels / FLOOR_DB, 0, 1)[:, :BINS, :FRAMES]
    shown = np.pad(shown, ((0, 0), (0, 0), (0, FRAMES - shown.shape[-1])))
    image = np.concatenate([side[::-1] for side in shown])
    return np.repeat(image[None], 3, 0)


def plot_audio(audio: Audio, sample_rate: int, tracks: Sequence[BoxTrack], path: Path) -> Path:
    """Write a PNG of panning over time, with the tracks' centres, and of loudness."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    top, bottom = figure.subplots(2, sharex=True)
    for index, track in enumerate(tracks, 1):
        times = np.linspace(track.times[0], track.times[-1], 400)
        boxes, seen = track.at(times)
        place = np.where(seen, boxes[:, [0, 2]].sum(1) - 1, np.nan)  # gaps, in which nothing is seen, stay open
        top.plot(times, place, color=f"C{index}", label="seen, by track" if index == 1 else None)
        top.annotate(str(index), (times[0], place[0]), color=f"C{index}", annotation_clip=True)
    times, pans = pan_curve(audio, sample_rate)
    top.plot(times, pans, ".", color="C0", markersize=3, label="heard")
    top.set(ylabel="left to right", ylim=(-1.05, 1.05), xlim=(0, audio.shape[1] / sample_rate))
    figure.legend(loc="outside upper left", ncols=2)
    times, decibels = loudness_curve(audio, sample_rate)
    bottom.plot(times, decibels, color="C0")
    bottom.set(xlabel="seconds", ylabel="loudness (dB)")
    for axes in (top, bottom):
        axes.grid(alpha=0.3)
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=120)
    return path
