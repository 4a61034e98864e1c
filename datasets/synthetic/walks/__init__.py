"""Synthetic dataset: walks with footsteps: video boxes, depth and stereo audio."""

from weftwork.datasets.synthetic.walks.dataset import (
    SAMPLE_RATE,
    SECONDS,
    SPLITS,
    Combination,
    WalkSample,
    combinations,
    mirrored,
    render,
    sample,
    split_of,
    walk_of,
)
from weftwork.datasets.synthetic.walks.images import frames
from weftwork.datasets.synthetic.walks.prompts import PROMPT
from weftwork.datasets.synthetic.walks.scenes import SURFACES, Walk
from weftwork.datasets.synthetic.walks.sounds import sound

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
