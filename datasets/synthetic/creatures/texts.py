"""Words for creatures: lower case, from a small vocabulary; captions name contents, style captions the style too."""

from typing import Final

import numpy as np

from weftwork.datasets.readers.errors import check_choice
from weftwork.datasets.synthetic.creatures.vocabulary import NEUTRAL, STYLES, Creature
from weftwork.datasets.synthetic.words import DETAILS, pick, with_article

PROMPT: Final = "a creature"
GENERIC_CAPTIONS: Final = (PROMPT, "a cute creature", "a picture of a creature", "a little animal", "a single creature")

POSE_WORDS: Final[dict[str, tuple[str, ...]]] = {
    "left": ("facing left", "looking left", "turned to the left"),
    "right": ("facing right", "looking right", "turned to the right"),
    "front": ("facing front", "looking at us", "seen from the front"),
    "jumping": ("jumping", "jumping", "leaping up"),
}
ACCESSORY_WORDS: Final[dict[str, tuple[str, ...]]] = {
    "none": ("",),
    "hat": ("with a hat", "wearing a hat"),
    "scarf": ("with a scarf", "wearing a scarf"),
    "balloon": ("with a balloon", "holding a balloon"),
}
STYLE_WORDS: Final[dict[str, tuple[str, ...]]] = {
    "ink": ("as an ink drawing", "drawn in ink", "in ink style"),
    "pixel": ("as pixel art", "in pixel style", "made of large pixels"),
    "pastel": ("as a pastel drawing", "drawn in pastel", "in pastel style"),
    "blueprint": ("as a blueprint", "drawn on a blueprint", "in blueprint style"),
    "woodcut": ("as a woodcut", "printed as a woodcut", "in woodcut style"),
    "neon": ("as a neon sign", "glowing in neon", "in neon style"),
    "watercolor": ("as a watercolor", "painted in watercolor", "in watercolor style"),
    "poster": ("as a poster", "printed on a poster", "in poster style"),
}


def caption(creature: Creature, rng: np.random.Generator, detail: str = "full") -> str:
    """The creature in words, never its style.

    Args:
        detail: "full" names everything, "partial" leaves out colour, pose or accessory, "kinds" names only what
            is there, "generic" nothing about the creature.
    """
    check_choice("detail", detail, DETAILS)
    if detail == "generic":
        return pick(GENERIC_CAPTIONS, rng)
    color, pose = f"{creature.color} ", pick(POSE_WORDS[creature.pose], rng)
    accessory = pick(ACCESSORY_WORDS[creature.accessory], rng)
    if detail == "kinds":
        color = pose = ""
    elif detail == "partial":
        left_out = int(rng.integers(3 if accessory else 2))
        color, pose, accessory = (
            "" if index == left_out else word for index, word in enumerate((color, pose, accessory))
        )
    words = with_article(f"{color}{creature.species}")
    if pose and accessory:
        return f"{words} {pose}, {accessory}" if rng.random() < 0.5 else f"{words} {accessory}, {pose}"
    return " ".join(word for word in (words, pose, accessory) if word)


def style_caption(creature: Creature, style: str, rng: np.random.Generator, detail: str = "full") -> str:
    """The caption with the style named in words; the neutral look has no name, so its caption stays as it is."""
    check_choice("style", style, (NEUTRAL, *STYLES))
    words = caption(creature, rng, detail)
    return words if style == NEUTRAL else f"{words}, {pick(STYLE_WORDS[style], rng)}"
