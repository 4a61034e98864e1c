"""Walks of one step, and their audio without noise."""

from dataclasses import replace
from typing import Any

import numpy as np

from weftwork.datasets.synthetic.walks import SAMPLE_RATE, Walk, sound
from weftwork.datasets.synthetic.walks.scenes import FIELD_OF_VIEW

Array = np.ndarray[Any, np.dtype[Any]]


def standing(pan: float = 0.0, depth: float = 4.0, surface: str = "wood", level: float = 0.0) -> Walk:
    """One step, half a second into the clip, of someone who stays where they are."""
    x = pan * depth * np.tan(np.radians(FIELD_OF_VIEW / 2))
    return Walk(np.array([[x, depth]] * 2), np.array([0.5]), np.array([level]), surface, 1.0)


def steps_alone(walk: Walk, **options: bool) -> Array:
    """The sound less its noise, which a walk of the same key without steps is all of."""
    silent = replace(walk, steps=np.zeros(0), levels=np.zeros(0))
    return sound(walk, SAMPLE_RATE, **options).astype(float) - sound(silent, SAMPLE_RATE)
