"""Overlapping windows for audio longer than the trained length."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from jaxtyping import Float

from weftwork.datasets.readers.errors import UserError


@dataclass(frozen=True)
class Windows:
    """Windows of equal length that cover the audio.

    Args:
        total: seconds of the audio.
        seconds: seconds of one window.
        starts: starts of the windows in seconds.
        latents: latents of one window.
        hop: samples per latent.
    """

    total: float
    seconds: float
    starts: list[float]
    latents: int
    hop: int
    sample_rate: int

    @classmethod
    def plan(cls, total: float, longest: float, overlap: float, hop: int, sample_rate: int) -> Self:
        """Plans the fewest windows that cover the audio; `ValueError` for no length, or an overlap outside [0, 0.5]."""
        if not (total > 0 and math.isfinite(total)):
            raise UserError(f"seconds: got {total}, expected a number above 0")
        if not 0 <= overlap <= 0.5:
            raise UserError(f"overlap: got {overlap}, expected a share of a window in [0, 0.5]")
        seconds = min(total, longest)
        more = math.ceil((total - seconds) / (longest * (1 - overlap)) - 1e-9) if total > longest else 0
        starts = [float(start) for start in np.linspace(0, total - seconds, more + 1)]
        return cls(total, seconds, starts, math.ceil(seconds * sample_rate / hop - 1e-9), hop, sample_rate)

    def joined(self, parts: Sequence[Float[np.ndarray, "2 sample"]]) -> Float[np.ndarray, "2 sample"]:
        """Joins the audio of windows; squared weights sum to 1, which preserves the power of noise."""
        length = round(self.total * self.sample_rate)
        out = np.zeros((2, length), np.float32)
        edges = [round(start * self.sample_rate) for start in self.starts]
        for i, (part, begin) in enumerate(zip(parts, edges, strict=True)):
            size = min(part.shape[1], length - begin)
            weight = np.ones(size, np.float32)
            if i:
                fade = edges[i - 1] + parts[i - 1].shape[1] - begin
                weight[:fade] = np.sin(np.pi / 2 * (np.arange(fade) + 0.5) / fade)
            if i + 1 < len(parts):
                fade = begin + size - edges[i + 1]
                weight[size - fade :] *= np.cos(np.pi / 2 * (np.arange(fade) + 0.5) / fade)
            out[:, begin : begin + size] += part[:, :size] * weight
        return out
