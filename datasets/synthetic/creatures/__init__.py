"""Synthetic dataset: single creatures in nine styles."""

from weftwork.datasets.synthetic.creatures.dataset import SPLITS, CreatureSample, cells, render, sample, split_of
from weftwork.datasets.synthetic.creatures.texts import GENERIC_CAPTIONS, PROMPT, caption, style_caption
from weftwork.datasets.synthetic.creatures.vocabulary import (
    ACCESSORIES,
    COLORS,
    NEUTRAL,
    POSES,
    SPECIES,
    STYLES,
    Creature,
)

__all__ = [
    "ACCESSORIES",
    "COLORS",
    "GENERIC_CAPTIONS",
    "NEUTRAL",
    "POSES",
    "PROMPT",
    "SPECIES",
    "SPLITS",
    "STYLES",
    "Creature",
    "CreatureSample",
    "caption",
    "cells",
    "render",
    "sample",
    "split_of",
    "style_caption",
]
