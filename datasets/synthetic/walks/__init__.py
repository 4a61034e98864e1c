"""Synthetic dataset: walks with footsteps: video boxes, depth and stereo audio."""

from weftwork.datasets.synthetic.walks.dataset import (
    PROMPT,
    SAMPLE_RATE,
    SECONDS,
    SPLITS,
    SURFACES,
    Combination,
    Walk,
    WalkSample,
    combinations,
    frames,
    mirrored,
    render,
    sample,
    sound,
    split_of,
    walk_of,
)

__all__ = [
    "PROMPT",
    "SAMPLE_RATE",
    "SECONDS",
    "SPLITS",
    "SURFACES",
    "Combination",
    "Walk",
    "WalkSample",
    "combinations",
    "frames",
    "mirrored",
    "render",
    "sample",
    "sound",
    "split_of",
    "walk_of",
]
