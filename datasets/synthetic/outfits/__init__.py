"""Synthetic dataset: people in outfits of up to five garments."""

from weftwork.datasets.synthetic.outfits.dataset import SPLITS, OutfitSample, render, sample, split_of, triples
from weftwork.datasets.synthetic.outfits.styles import STYLES
from weftwork.datasets.synthetic.outfits.texts import GENERIC_CAPTIONS, PROMPT, caption, describe
from weftwork.datasets.synthetic.outfits.vocabulary import (
    COLORS,
    KINDS,
    KINDS_BY_SLOT,
    PATTERNS,
    SLOT_OF_KIND,
    SLOTS,
    Garment,
)

__all__ = [
    "COLORS",
    "GENERIC_CAPTIONS",
    "KINDS",
    "KINDS_BY_SLOT",
    "PATTERNS",
    "PROMPT",
    "SLOTS",
    "SLOT_OF_KIND",
    "SPLITS",
    "STYLES",
    "Garment",
    "OutfitSample",
    "caption",
    "describe",
    "render",
    "sample",
    "split_of",
    "triples",
]
