"""Words for garments and outfits: lower case, unambiguous, from a small vocabulary."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from weftwork.datasets.readers.errors import check_choice
from weftwork.datasets.synthetic.outfits.vocabulary import Garment
from weftwork.datasets.synthetic.words import DETAILS, pick, with_article

PROMPT: Final = "a person wearing an outfit"
GENERIC_CAPTIONS: Final = (
    PROMPT,
    "a person in an outfit",
    "a person standing in a room",
    "a picture of a person",
    "a full body picture of a person in clothes",
)

COLOR_WORDS: Final[dict[str, tuple[str, ...]]] = {
    "red": ("red", "red", "crimson"),
    "green": ("green", "green", "emerald"),
    "purple": ("purple", "purple", "violet"),
}
BEFORE: Final[dict[str, tuple[str, ...]]] = {
    "plain": ("plain", "solid"),
    "striped": ("striped", "horizontally striped"),
    "pinstriped": ("pinstriped", "vertically striped"),
    "dotted": ("dotted", "polka dot"),
    "checked": ("checked", "plaid"),
    "diagonal": ("diagonal striped", "diagonally striped"),
}
AFTER: Final[dict[str, tuple[str, ...]]] = {
    "plain": ("without a pattern", "in one plain color"),
    "striped": ("with stripes", "with horizontal stripes"),
    "pinstriped": ("with pinstripes", "with vertical stripes"),
    "dotted": ("with dots", "with polka dots"),
    "checked": ("with checks", "with a checked pattern"),
    "diagonal": ("with diagonal stripes", "with a diagonal pattern"),
}
KIND_WORDS: Final[dict[str, tuple[str, ...]]] = {
    "t-shirt": ("t-shirt", "t-shirt", "tee"),
    "sweater": ("sweater", "sweater", "pullover"),
    "trousers": ("trousers", "trousers", "pants"),
    "long skirt": ("long skirt", "long skirt", "maxi skirt"),
}
PLURAL: Final = ("trousers", "shorts", "sneakers", "boots")
NEUTRAL: Final = ("nice", "new", "simple", "modern", "casual")


def describe(garment: Garment, rng: np.random.Generator) -> str:
    """One garment in words: always its kind, colour and pattern, in varied order."""
    color = pick(COLOR_WORDS.get(garment.color, (garment.color,)), rng)
    kind = pick(KIND_WORDS.get(garment.kind, (garment.kind,)), rng)
    before, after = pick(BEFORE[garment.pattern], rng), pick(AFTER[garment.pattern], rng)
    extra = f"{pick(NEUTRAL, rng)} " if rng.random() < 0.2 else ""
    form = int(rng.integers(4))
    if form == 0:
        words = f"{extra}{color} {kind} {after}"
    elif form == 1:
        words = f"{extra}{kind} in {color} {after}"
    else:
        words = f"{extra}{color} {before} {kind}"
    return words if garment.kind in PLURAL else with_article(words)


def reworded(garment: Garment, rng: np.random.Generator) -> str:
    """One garment in words that `describe` never has: the pattern before the colour, or no article."""
    color = pick(COLOR_WORDS.get(garment.color, (garment.color,)), rng)
    kind = pick(KIND_WORDS.get(garment.kind, (garment.kind,)), rng)
    looks = [color, pick(BEFORE[garment.pattern], rng)]
    plural = garment.kind in PLURAL  # without an article in any case
    turned, bare = pick(((True, True), (True, False), (plural, True)), rng)
    words = " ".join([*(reversed(looks) if turned else looks), kind])
    return words if bare or plural else with_article(words)


def caption(garments: Sequence[Garment], rng: np.random.Generator, detail: str = "full") -> str:
    """The outfit in words.

    Args:
        detail: "full" names all attributes of all garments, "partial" those of some, "kinds" only what is
            worn, "generic" nothing about the outfit.
    """
    check_choice("detail", detail, DETAILS)
    if detail == "generic" or not garments:
        return pick(GENERIC_CAPTIONS, rng)
    if detail == "partial":
        count = int(rng.integers(1, max(2, len(garments))))
        chosen = sorted(rng.choice(len(garments), count, replace=False))
        garments = [garments[index] for index in chosen]
    verb = pick(("wearing", "wearing", "in", "dressed in"), rng)
    words = [_plainly(garment, with_attributes=detail != "kinds") for garment in garments]
    return f"a person {verb} {_listed(words)}"


def attributes(garment: Garment) -> str:
    """Colour and pattern in words."""
    return f"{garment.color} {'diagonal striped' if garment.pattern == 'diagonal' else garment.pattern}"


def unnamed(garments: Sequence[Garment]) -> list[tuple[int, str]]:
    """Colour and pattern of every garment, with its index, sorted by the words: without the names of the garments."""
    return sorted(((i, attributes(garment)) for i, garment in enumerate(garments)), key=lambda pair: pair[1])


def _plainly(garment: Garment, *, with_attributes: bool) -> str:
    words = f"{attributes(garment)} {garment.kind}" if with_attributes else garment.kind
    return words if garment.kind in PLURAL else with_article(words)


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
