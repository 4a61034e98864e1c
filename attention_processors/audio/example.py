"""The smallest use of spatial audio."""

from typing import Any

import numpy as np
import torch
from torch import nn

from weftwork.attention_processors.audio.adapter import FrozenProjections, SpatialAudioAdapter
from weftwork.attention_processors.audio.conditions import AudioPrompt, BoxTrack, OverTime
from weftwork.attention_processors.core.example import Example

AUDIO_DIM = 6


def example(denoiser: nn.Module) -> Example:
    """Returns an adapter, and conditions of a box that moves and of an audio prompt."""
    sizes = {
        "input_dim": FrozenProjections(denoiser).input_dim,
        "seconds": 1.0,
        "latent_rate": 16.0,
        "audio_dim": AUDIO_DIM,
    }
    adapter = SpatialAudioAdapter.for_denoiser(denoiser, depth_size=16, **sizes)
    torch.nn.init.normal_(adapter.null)

    def conditions(seed: int, **options: Any) -> list[OverTime]:
        times, left = np.linspace(0, 1, 5), 0.1 + 0.1 * (seed % 3) + np.linspace(0, 0.3, 5)
        boxes = np.stack([left, 0 * left + 0.2, left + 0.2, 0 * left + 0.9], -1)
        return [BoxTrack(times, boxes, **options), AudioPrompt(np.linspace(-1, 1, AUDIO_DIM), **options)]

    return Example(adapter, conditions)
