"""Synthetic dataset of dressed people, with exact labels, masks and sketches of their garments.

An outfit fills one to four slots. Triples of kind, colour and pattern are divided between the splits, so
every garment of a test outfit is one that training has never shown, made of pairs that training has.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from weftwork.datasets.readers.errors import UserError, check_choice
from weftwork.datasets.synthetic.checks import check_draw, check_side
from weftwork.datasets.synthetic.outfits.drawing import paint_image, read_layers
from weftwork.datasets.synthetic.outfits.figure import FIRST_GARMENT, Canvas, draw_figure, paint_body, paint_head
from weftwork.datasets.synthetic.outfits.garments import PAINTERS
from weftwork.datasets.synthetic.outfits.sketches import draw_sketch
from weftwork.datasets.synthetic.outfits.styles import STYLES, paint_styled
from weftwork.datasets.synthetic.outfits.texts import caption, describe
from weftwork.datasets.synthetic.outfits.vocabulary import COLORS, KINDS, KINDS_BY_SLOT, PATTERNS, SLOTS, Garment

SPLITS: Final = ("train", "validation", "test")
COUNT_SHARES: Final = (0.05, 0.15, 0.40, 0.40)
SLOT_WEIGHTS: Final = (0.32, 0.32, 0.18, 0.18)

Image = np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]
Masks = np.ndarray[tuple[int, int, int], np.dtype[np.bool_]]
Sketches = np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]


@dataclass(frozen=True, eq=False)
class OutfitSample:
    """An image of an outfit with its truth; garments, masks, sketches and texts are in the same order."""

    image: Image
    garments: tuple[Garment, ...]
    masks: Masks
    sketches: Sketches
    texts: tuple[str, ...]
    caption: str


def split_of(garment: Garment) -> str:
    """The only split in which this triple of kind, colour and pattern occurs."""
    kind, color, pattern = garment.triple
    return {0: "test", 1: "validation"}.get((kind + 3 * color + 5 * pattern) % 7, "train")


def triples(split: str, slot: str) -> tuple[Garment, ...]:
    """All garments of a slot that a split may show."""
    return tuple(
        garment
        for kind in KINDS_BY_SLOT[slot]
        for color in COLORS
        for pattern in PATTERNS
        if split_of(garment := Garment.of(kind, color, pattern)) == split
    )


_TRIPLES: Final = {(split, slot): triples(split, slot) for split in SPLITS for slot in SLOTS}


def sample(
    split: str,
    index: int,
    *,
    seed: int = 0,
    count: int | None = None,
    sketch_style: str = "professional",
    style: str | None = None,
    size: int = 128,
) -> OutfitSample:
    """The sample of a split at an index; the same arguments give the same sample, everywhere and always.

    Args:
        count: how many garments, 1 to 4; drawn when left out, mostly three or four.
        style: how it is painted, one of `STYLES`; all but the image is the same without it.
    """
    check_choice("split", split, SPLITS)
    check_draw(index, seed)
    if count is not None and not 1 <= count <= len(SLOTS):
        raise UserError(f"count: got {count}, expected 1 to {len(SLOTS)} garments; pass one of these or leave it out")
    key = (SPLITS.index(split), seed, index)
    rng = np.random.default_rng([*key, 0])
    drawn = 1 + int(rng.choice(len(COUNT_SHARES), p=COUNT_SHARES))
    slots = sorted(rng.choice(len(SLOTS), count or drawn, replace=False, p=SLOT_WEIGHTS))
    garments = [_draw_garment(split, SLOTS[slot], rng) for slot in slots]
    return render(garments, seed=key, sketch_style=sketch_style, style=style, size=size)


def render(
    garments: Sequence[Garment],
    *,
    seed: int | Sequence[int],
    sketch_style: str = "professional",
    style: str | None = None,
    size: int = 128,
) -> OutfitSample:
    """These garments on the person of this seed.

    Body, pose, room, light and the outline of each kind depend on the seed alone: other colours and patterns
    leave them as they are. The sample of (split, seed, index) has the seed (index of split, seed, index).
    """
    garments = sorted(garments, key=lambda garment: SLOTS.index(garment.slot))
    slots = [garment.slot for garment in garments]
    if len(set(slots)) != len(slots):
        raise UserError(f"garments: got slots {', '.join(slots)}, expected each at most once; drop one of the doubled")
    check_side(size)
    if style is not None:
        check_choice("style", style, STYLES)
    key = [seed] if isinstance(seed, int) else list(seed)
    streams = {
        name: np.random.default_rng([*key, 1 + i])
        for i, name in enumerate(("figure", "room", "light", *SLOTS, "hand", "words"))
    }
    canvas = _paint_canvas(garments, key, streams["figure"])
    layers = read_layers(canvas, size)
    worn = {FIRST_GARMENT + SLOTS.index(garment.slot): garment for garment in garments}
    if style is None:
        image = paint_image(canvas, layers, worn, size, streams)
    else:
        streams["style"] = np.random.default_rng([*key, 50])
        image = paint_styled(canvas, layers, worn, style, size, streams)
    masks = _masks(layers.shares, list(worn))
    empty = np.zeros((size, size), np.float32)
    sketches = [
        draw_sketch(
            layers.shares.get(material, empty),
            layers.lines.get(material, empty),
            sketch_style,
            streams["hand"],
        )
        for material in worn
    ]
    texts = tuple(describe(garment, streams["words"]) for garment in garments)
    return OutfitSample(
        image,
        tuple(garments),
        masks,
        np.asarray(sketches, np.uint8).reshape(-1, size, size),
        texts,
        caption(garments, streams["words"]),
    )


def _draw_garment(split: str, slot: str, rng: np.random.Generator) -> Garment:
    """Kinds are drawn evenly, then one of the split's triples of that kind."""
    kinds = KINDS_BY_SLOT[slot]
    kind = kinds[int(rng.integers(len(kinds)))]
    options = [garment for garment in _TRIPLES[split, slot] if garment.kind == kind]
    return options[int(rng.integers(len(options)))]


def _paint_canvas(garments: Sequence[Garment], key: Sequence[int], rng: np.random.Generator) -> Canvas:
    canvas = Canvas(draw_figure(rng))
    kinds = {garment.slot: garment.kind for garment in garments}
    # boots hide the ends of trousers, skirts hide the tops of boots, sneakers are hidden by both
    order = (
        ["bottom", "shoes"]
        if kinds.get("shoes") == "boots" and "skirt" not in kinds.get("bottom", "")
        else ["shoes", "bottom"]
    )
    paint_body(canvas)
    for slot in (*order, "top", "head", "accessory"):
        if slot == "head":
            paint_head(canvas)
        elif slot in kinds:
            outline = np.random.default_rng([*key, 100 + KINDS.index(kinds[slot])])
            PAINTERS[kinds[slot]](canvas, FIRST_GARMENT + SLOTS.index(slot), outline)
    return canvas


def _masks(shares: dict[int, np.ndarray], worn: Sequence[int]) -> Masks:
    """A pixel belongs to the material with the largest share of it."""
    order = list(shares)
    winner = np.asarray(order)[np.argmax(np.stack([shares[material] for material in order]), axis=0)]
    return np.asarray([winner == material for material in worn], np.bool_).reshape(-1, *winner.shape)
