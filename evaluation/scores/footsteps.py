"""Scores of what footsteps sound like: their spectral centroid, and the surface that a classifier recognizes.

The classifier is trained on walks with the steps of the train split, so its accuracy on the ground truth of another
split is that on unseen recordings: the ceiling of all other rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from weftwork.datasets.synthetic.walks import WalkSample, sample
from weftwork.datasets.synthetic.walks.recordings import steps_in
from weftwork.pipelines.audio.events import Audio, Events, check_audio, hear

PARTS: Final = (-0.002, 0.03, 0.08, 0.2)
"""Edges of the parts of a step whose spectra are features, in seconds from its onset."""
BANDS: Final = 24
LOWEST, HIGHEST = 60.0, 8000.0
"""Edges of the mel bands in Hz; the upper one at most half the sample rate."""
FAINT: Final = 1e-4
"""Power, relative to a step's mean over its bands, below which bands are not distinguished."""
CLIPS: Final = 300
"""Walks that the classifier is trained on."""
PENALTY: Final = 1e-3
"""Weight of the squared weights of the classifier."""


@dataclass(frozen=True, eq=False)
class SurfaceClassifier:
    """Logistic regression of mel spectra of steps.

    Args:
        mean, deviation: of the features in training.
        weight: of the features, with the bias as last row.
    """

    surfaces: tuple[str, ...]
    mean: Float[Tensor, " feature"]
    deviation: Float[Tensor, " feature"]
    weight: Float[Tensor, "feature1 surface"]

    @classmethod
    def fit(cls, clips: Sequence[WalkSample]) -> "SurfaceClassifier":
        """Trains a classifier on the steps of clips."""
        surfaces = tuple(sorted({clip.surface for clip in clips}))
        features = [torch.from_numpy(mel_features(clip.audio, clip.sample_rate, clip.steps)) for clip in clips]
        labels = torch.tensor([surfaces.index(clip.surface) for clip in clips for _ in clip.steps])
        every = torch.cat(features)
        mean, deviation = every.mean(0), every.std(0) + 1e-6
        rows = F.pad((every - mean) / deviation, (0, 1), value=1.0)
        weight = torch.zeros(rows.shape[1], len(surfaces), dtype=rows.dtype, requires_grad=True)
        optimizer = torch.optim.LBFGS([weight], max_iter=200, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            total = F.cross_entropy(rows @ weight, labels) + PENALTY * weight.square().sum()
            total.backward()
            return total

        optimizer.step(loss)
        return cls(surfaces, mean, deviation, weight.detach())

    def read(self, audio: Audio, sample_rate: int, steps: Events) -> str | None:
        """Returns the surface of a clip, by all of its audible steps; None without any."""
        heard = steps[np.isfinite(hear(audio, sample_rate, steps).level)]
        if not len(heard):
            return None
        features = torch.from_numpy(mel_features(audio, sample_rate, heard))
        rows = F.pad((features - self.mean) / self.deviation, (0, 1), value=1.0)
        return self.surfaces[int((rows @ self.weight).log_softmax(1).sum(0).argmax())]


@lru_cache(maxsize=4)
def classifier_of(footsteps: Path | None, sample_rate: int) -> SurfaceClassifier:
    """Returns the classifier of the train split of a folder of recordings, or of synthetic steps without one."""
    steps = steps_in(footsteps, "train")
    return SurfaceClassifier.fit([sample("train", i, sample_rate=sample_rate, steps=steps) for i in range(CLIPS)])


def score_footsteps(
    audio: Sequence[Audio], truths: Sequence[WalkSample], classifier: SurfaceClassifier
) -> dict[str, float]:
    """Scores generated audio: `surface_accuracy`, the share of clips whose surface is recognized, and `centroid_error`,
    the mean difference of the spectral centroids of audible steps from those of the true ones, in octaves.

    Raises:
        ValueError: audio that is not [2, samples], or numbers that are not finite.
    """
    right, errors = [], []
    for clip, truth in zip(audio, truths, strict=True):
        right.append(classifier.read(clip, truth.sample_rate, truth.steps) == truth.surface)
        found, true = (centroids(one, truth.sample_rate, truth.steps) for one in (clip, truth.audio))
        errors.append(np.abs(np.log2(found / true)))
    known = np.concatenate(errors)
    known = known[np.isfinite(known)]
    return {
        "surface_accuracy": float(np.mean(right)) if right else float("nan"),
        "centroid_error": float(known.mean()) if len(known) else float("nan"),
    }


def centroids(audio: Audio, sample_rate: int, steps: Events) -> Events:
    """Computes the spectral centroid of each step in Hz, up to `HIGHEST`; NaN where it is not audible."""
    powers, frequencies = _spectra(audio, sample_rate, steps, PARTS[0], PARTS[-1])
    powers = np.where(frequencies <= HIGHEST, powers, 0.0)
    found = (powers * frequencies).sum(1) / np.maximum(powers.sum(1), 1e-20)
    return np.where(np.isfinite(hear(audio, sample_rate, steps).level), found, np.nan)


def mel_features(audio: Audio, sample_rate: int, steps: Events) -> Float[np.ndarray, "step feature"]:
    """Computes the logarithms of power in mel bands by part of a step, relative to the mean of all."""
    parts = []
    for begin, end in pairwise(PARTS):
        powers, frequencies = _spectra(audio, sample_rate, steps, begin, end)
        parts.append(powers @ _bands(frequencies, min(HIGHEST, sample_rate / 2)).T / (end - begin))
    every = np.concatenate(parts, 1)
    return np.log(every / np.maximum(every.mean(1, keepdims=True), 1e-20) + FAINT)


def _spectra(
    audio: Audio, sample_rate: int, steps: Events, begin: float, end: float
) -> tuple[Float[np.ndarray, "step bin"], Float[np.ndarray, " bin"]]:
    """Computes the power spectra, summed over the channels, of a part of each step."""
    audio, length = check_audio(audio), round((end - begin) * sample_rate)
    size = max(1024, 1 << (length - 1).bit_length())
    padded = np.pad(audio, ((0, 0), (length, 2 * length)))
    starts = np.round((np.asarray(steps) + begin) * sample_rate).astype(int) + length
    windows = (
        np.stack([padded[:, start : start + length] for start in starts]) if len(starts) else np.zeros((0, 2, length))
    )
    powers = np.square(np.abs(np.fft.rfft(windows, size))).sum(1)
    return powers, np.fft.rfftfreq(size, 1 / sample_rate)


def _bands(frequencies: Float[np.ndarray, " bin"], highest: float) -> Float[np.ndarray, "band bin"]:
    """Makes triangular filters, evenly spaced in mel."""
    low, high = (2595 * np.log10(1 + edge / 700) for edge in (LOWEST, highest))
    edges = 700 * (10 ** (np.linspace(low, high, BANDS + 2) / 2595) - 1)
    rising = (frequencies - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - frequencies) / np.diff(edges)[1:, None]
    return np.clip(np.minimum(rising, falling), 0, None)
