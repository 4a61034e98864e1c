"""Synthetic dataset of single creatures in nine styles, with exact labels and masks.

Triples of species, colour and style are divided between the splits, so every styled image of the test split
joins three things that training has shown in pairs only. The neutral look belongs to training in full.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np

from weftwork.datasets.readers.errors import UserError, check_choice
from weftwork.datasets.synthetic.checks import check_draw, check_side
from weftwork.datasets.synthetic.creatures.figure import Canvas, draw_figure
from weftwork.datasets.synthetic.creatures.layers import read_scene
from weftwork.datasets.synthetic.creatures.legged import LEGGED
from weftwork.datasets.synthetic.creatures.legless import LEGLESS
from weftwork.datasets.synthetic.creatures.paint_styles import neon, neutral, pastel, pixel, watercolor
from weftwork.datasets.synthetic.creatures.parts import ACCESSORY_PAINTERS
from weftwork.datasets.synthetic.creatures.print_styles import blueprint, ink, poster, woodcut
from weftwork.datasets.synthetic.creatures.texts import caption, style_caption
from weftwork.datasets.synthetic.creatures.vocabulary import (
    ACCESSORIES,
    COLORS,
    NEUTRAL,
    POSES,
    SPECIES,
    STYLES,
    Creature,
)
from weftwork.datasets.synthetic.palettes import RGB

SPLITS: Final = ("train", "validation", "test")
BODY_PAINTERS: Final = LEGGED | LEGLESS
STYLE_PAINTERS: Final = {
    "neutral": neutral,
    "ink": ink,
    "pixel": pixel,
    "pastel": pastel,
    "blueprint": blueprint,
    "woodcut": woodcut,
    "neon": neon,
    "watercolor": watercolor,
    "poster": poster,
}

Image = np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]
Mask = np.ndarray[tuple[int, int], np.dtype[np.bool_]]


@dataclass(frozen=True, eq=False)
class CreatureSample:
    """An image of a creature with its truth.

    The mask covers the creature and its accessory; the style caption is the caption with the style named in words.
    """

    image: Image
    creature: Creature
    style: str
    mask: Mask
    caption: str
    style_caption: str


def split_of(creature: Creature, style: str) -> str:
    """The only split in which this triple of species, colour and style occurs."""
    check_choice("style", style, (NEUTRAL, *STYLES))
    return _split(creature.species, creature.color, style)


@cache
def cells(split: str, style: str | None = None) -> tuple[tuple[str, str, str], ...]:
    """All triples of species, colour and style of a split; those of one style, or of all but the neutral look."""
    check_choice("split", split, SPLITS)
    if style is not None:
        check_choice("style", style, (NEUTRAL, *STYLES))
    return tuple(
        (species, color, look)
        for look in ((style,) if style else STYLES)
        for species in SPECIES
        for color in COLORS
        if _split(species, color, look) == split
    )


def sample(split: str, index: int, *, seed: int = 0, style: str | None = None, size: int = 128) -> CreatureSample:
    """The sample of a split at an index; the same arguments give the same sample, everywhere and always.

    Args:
        style: the style to show; drawn when left out, and then never the neutral look.
    """
    check_draw(index, seed)
    options = cells(split, style)
    if not options:
        raise UserError(
            f"style: got {style!r} for the {split} split, expected one of {', '.join(STYLES)}; "
            f"the neutral look is in the train split only"
        )
    key = (SPLITS.index(split), seed, index)
    rng = np.random.default_rng([*key, 0])
    species, color, look = options[int(rng.integers(len(options)))]
    pose, accessory = (choices[int(rng.integers(len(choices)))] for choices in (POSES, ACCESSORIES))
    return render(Creature(species, color, pose, accessory), look, seed=key, size=size)


def render(creature: Creature, style: str, *, seed: int | Sequence[int], size: int = 128) -> CreatureSample:
    """This creature in this style with the place and proportions of this seed.

    The mask depends on seed, species, pose and accessory alone. The sample of (split, seed, index) has the seed
    (index of split, seed, index).
    """
    check_choice("style", style, (NEUTRAL, *STYLES))
    check_side(size)
    key = [seed] if isinstance(seed, int) else list(seed)
    if min(key, default=0) < 0:
        raise UserError(f"seed: got {seed}, expected integers of at least 0; pass non-negative ones")
    shape, look, words, same_words = (np.random.default_rng([*key, stream]) for stream in (1, 2, 3, 3))
    canvas = Canvas(draw_figure(creature.species, creature.pose, shape))
    anchors = BODY_PAINTERS[creature.species][creature.pose == "front"](canvas)
    if creature.accessory != "none":
        ACCESSORY_PAINTERS[creature.accessory](canvas, anchors)
    red, green, blue = np.clip(RGB[creature.color] + look.uniform(-5, 5, 3), 0, 255).tolist()
    scene = read_scene(canvas, size, creature.color, (red, green, blue), look)
    image = np.clip(STYLE_PAINTERS[style](scene) + 0.5, 0, 255).astype(np.uint8)
    return CreatureSample(
        image,
        creature,
        style,
        scene.inside >= 0.5,
        caption(creature, words),
        style_caption(creature, style, same_words),
    )


def _split(species: str, color: str, style: str) -> str:
    if style == NEUTRAL:
        return "train"
    place = SPECIES.index(species) + 3 * COLORS.index(color) + 5 * STYLES.index(style)
    return {0: "test", 1: "validation"}.get(place % 7, "train")
