"""Prompts of walks: with varied words for the steps, and with or without the surface."""

from typing import Final

import numpy as np

PROMPT: Final = "a person walks"
TEXTS: Final = (
    *("a person walks on {}", "footsteps on {}", "someone walking on {}", "steps on {}", "walking, {}"),
    *("someone walks over {}", "a person walking across {}", "the sound of footsteps on {}", "{} footsteps"),
)
GENERIC: Final = (PROMPT, "footsteps", "someone walking", "the sound of steps", "someone walks")


def words() -> list[str]:
    """Returns all words of prompts but the surfaces, sorted."""
    return sorted({word for text in (*TEXTS, *GENERIC) for word in text.format("").replace(",", "").split()})


def caption(surface: str, rng: np.random.Generator) -> str:
    """Draws a prompt of a walk; three in four name its surface."""
    if rng.random() < 0.25:
        return str(rng.choice(GENERIC))
    return str(rng.choice(TEXTS)).format(surface)
