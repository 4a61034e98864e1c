"""Captions of scenes that place each drawing by words, as "a fox left of a red car"."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from weftwork.datasets.drawings.captions import Depicted, color_list, with_article
from weftwork.datasets.drawings.dataset import Scene
from weftwork.datasets.drawings.scenes import Place

COLOR_SHARE: Final = 0.5
"""Share of subjects that are named with a colour."""
BESIDE_SHARE: Final = 0.3


@dataclass(frozen=True)
class PlacedSubjects:
    """Rows of the drawings of a scene from left to right, with the words that stand for each in the caption."""

    rows: tuple[int, ...]
    words: tuple[str, ...]
    caption: str


def placed(scene: Scene, depicted: Sequence[Depicted], rng: np.random.Generator) -> PlacedSubjects | None:
    """Returns the subjects of a scene with a caption that places each beside the one before, "a fox above a red car".

    None if words would stand for two subjects.
    """
    order = sorted(range(len(depicted)), key=lambda i: scene.places[i].left + scene.places[i].side / 2)
    words = [_words(depicted[i], rng) for i in order]
    caption = with_article(words[0])
    for before, i, own in zip(order, order[1:], words[1:], strict=False):
        caption = f"{caption} {_relation(scene.places[before], scene.places[i], rng)} {with_article(own)}"
    found = [len(re.findall(rf"(?<!\w){re.escape(one)}(?!\w)", caption, re.IGNORECASE)) for one in words]
    if any(count != 1 for count in found):
        return None
    return PlacedSubjects(tuple(scene.rows[i] for i in order), tuple(words), caption)


def _words(one: Depicted, rng: np.random.Generator) -> str:
    colored = one.colors and rng.random() < COLOR_SHARE
    return f"{color_list(one.colors[:1])} {one.name}" if colored else one.name


def _relation(one: Place, other: Place, rng: np.random.Generator) -> str:
    """Returns words for the place of one beside another."""
    if rng.random() < BESIDE_SHARE:
        return "beside"
    right, down = (
        (getattr(other, side) + other.side / 2) - (getattr(one, side) + one.side / 2) for side in ("left", "top")
    )
    if abs(right) >= abs(down):
        return "left of" if right >= 0 else "right of"
    return "above" if down > 0 else "below"
