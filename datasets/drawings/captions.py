"""Captions of scenes: names, tags, categories, colours, style and ground, in varied words."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


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


def caption(scene: DepictedScene, rng: np.random.Generator) -> str:
    """One of many captions of a scene; each tells only part of what there is to see."""
    described = [describe(one, rng) for one in scene.drawings]
    words = described[-1]
    if len(described) > 1:
        words = f"{', '.join(described[:-1])}{_pick((' and ', ', '), rng)}{words}"
    if rng.random() < 0.7:
        form = _pick(("{}, {} style", "{} in {} style", "{}, {}"), rng)
        words = form.format(words, scene.style)
    chance = 0.1 if scene.ground == "white" else 0.9  # so that white is what a ground is unless said
    if rng.random() < chance:
        words = f"{words}{_pick((' on ', ', '), rng)}{_pick(('a ', ''), rng)}{scene.ground} background"
    return words


def describe(one: Depicted, rng: np.random.Generator) -> str:
    """A name, tag or category; its colours before or after it, or none; with or without an article."""
    noun = one.name
    kind = rng.random()
    if kind < 0.08 and one.tags:
        noun = _pick(one.tags, rng)
    elif kind < 0.15:
        noun = f"{one.name}, {one.category}" if rng.random() < 0.5 else one.category
    colors = one.colors[: int(rng.integers(1, 4))] if rng.random() < 0.7 else ()
    if colors and rng.random() < 0.65:
        noun = f"{_listed(colors)} {noun}"
    elif colors:
        noun = f"{noun}{_pick((' in ', ' with ', ', '), rng)}{_listed(colors)}"
    return with_article(noun) if rng.random() < 0.5 else noun


def with_article(words: str) -> str:
    """Puts "a" or "an" before words, unless they are plural."""
    noun = words.split(",")[0].split(" with ")[0].split(" in ")[0]
    if noun.endswith(("s", "men", "people")) and not noun.endswith(("ss", "us")):
        return words
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _pick(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]
