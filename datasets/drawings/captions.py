"""Captions of scenes: names, tags, categories, colours, style and ground, in varied words."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weftwork.datasets.drawings.colors import MOST


@dataclass(frozen=True)
class Depicted:
    """Name, tags, category and colours (by falling area) of one drawing, for captions."""

    name: str
    tags: tuple[str, ...]
    category: str
    colors: tuple[str, ...]


@dataclass(frozen=True)
class DepictedScene:
    """Drawings, style and ground of a scene, for captions.

    Args:
        style: words for the designer, such as "flat fluent".
        ground: words for the ground, such as "white" or "light blue".
    """

    drawings: tuple[Depicted, ...]
    style: str
    ground: str


def caption(scene: DepictedScene, rng: np.random.Generator, style_share: float = 0.7) -> str:
    """One of many captions of a scene, each of a part of it; `style_share` of them name the style."""
    nouns = [describe(one, rng) for one in scene.drawings]
    words = nouns[-1]
    if len(nouns) > 1:
        words = f"{', '.join(nouns[:-1])}{_pick((' and ', ', '), rng)}{words}"
    if rng.random() < style_share:
        form = _pick(("{}, {} style", "{} in {} style", "{}, {}"), rng)
        words = form.format(words, scene.style)
    chance = 0.1 if scene.ground == "white" else 0.9  # so that white is what a ground is unless said
    if rng.random() < chance:
        words = f"{words}{_pick((' on ', ', '), rng)}{_pick(('a ', ''), rng)}{scene.ground} background"
    return words


def setting(scene: DepictedScene, *, styled: bool = True) -> str:
    """Style and ground of a scene, without its drawings."""
    ground = f"a {scene.ground} background"
    return f"{scene.style} style on {ground}" if styled else ground


def full_caption(scene: DepictedScene, *, styled: bool = True) -> str:
    """All that captions can say, in the plainest words."""
    return ", ".join([*map(full_description, scene.drawings), setting(scene, styled=styled)])


def full_description(one: Depicted) -> str:
    """All colours and the name, without an article."""
    return f"{color_list(one.colors)} {one.name}".strip()


def color_list(colors: Sequence[str]) -> str:
    """Colours in words, such as "red, blue and white"."""
    return "".join(colors) if len(colors) < 2 else f"{', '.join(colors[:-1])} and {colors[-1]}"


def describe(one: Depicted, rng: np.random.Generator) -> str:
    """A name, tag or category; its colours before or after it, or none; with or without an article."""
    noun = one.name
    kind = rng.random()
    if kind < 0.08 and one.tags:
        noun = _pick(one.tags, rng)
    elif kind < 0.15:
        noun = f"{one.name}, {one.category}" if rng.random() < 0.5 else one.category
    colors = one.colors[: int(rng.integers(1, MOST + 1))] if rng.random() < 0.8 else ()
    if colors and rng.random() < 0.65:
        noun = f"{color_list(colors)} {noun}"
    elif colors:
        noun = f"{noun}{_pick((' in ', ' with ', ', '), rng)}{color_list(colors)}"
    return with_article(noun) if rng.random() < 0.5 else noun


def with_article(words: str) -> str:
    """Puts "a" or "an" before words, unless they are plural."""
    noun = words.split(",")[0].split(" with ")[0].split(" in ")[0]
    if noun.endswith(("s", "men", "people")) and not noun.endswith(("ss", "us")):
        return words
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _pick(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]
