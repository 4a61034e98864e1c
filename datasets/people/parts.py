"""Parts of people, and their assembly to SVG: DiceBear's definition of Open Peeps (Pablo Stanley, CC0).

A definition is a tree of SVG elements, in which components stand for one of their named variants, and colours for
values.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, TypedDict
from xml.sax.saxutils import quoteattr

import numpy as np
from PIL import Image

from weftwork.datasets.drawings.packages import check_present, members
from weftwork.datasets.drawings.rendering import render
from weftwork.datasets.drawings.sets import PEOPLE
from weftwork.datasets.readers.images import as_image

DEFINITION: Final = "src/open-peeps.json"
EXPRESSIONS: Final[Mapping[str, str]] = {
    "smile": "smile",
    "grin": "smileBig",
    "laughter": "smileLOL",
    "love": "lovingGrin1",
    "calm": "calm",
    "worry": "concerned",
    "sadness": "solemn",
    "fear": "fear",
    "anger": "veryAngry",
    "rage": "rage",
    "suspicion": "suspicious",
    "tiredness": "tired",
}
"""Variants of the face by the expression's name."""
HAIR: Final[Mapping[str, str]] = {
    "an afro": "afro",
    "bangs": "bangs",
    "bantu knots": "bantuKnots",
    "three buns": "buns",
    "cornrows": "cornrows",
    "dreadlocks": "dreads1",
    "a flat top": "flatTop",
    "a bun": "grayBun",
    "parted hair": "grayShort",
    "a beanie": "hatBeanie",
    "a hat": "hatHip",
    "a hijab": "hijab",
    "long hair": "long",
    "long curls": "longCurly",
    "a bob": "medium1",
    "a mohawk": "mohawk",
    "a bald head": "noHair1",
    "a pompadour": "pomp",
    "short hair": "short1",
    "a turban": "turban",
    "twists": "twists",
}
"""Variants of the head by words."""
SKIN: Final[Mapping[str, str]] = {
    "pale": "#ffdbb4",
    "light": "#edb98a",
    "tan": "#d08b5b",
    "brown": "#ae5d29",
    "dark": "#694d3d",
}
CLOTHES: Final[Mapping[str, str]] = {
    "blue": "#8fa7df",
    "green": "#78e185",
    "orange": "#ffcf77",
    "pink": "#e279c7",
    "red": "#e78276",
    "turquoise": "#9ddadb",
    "yellow": "#fdea6b",
}
ATTRIBUTES: Final[Mapping[str, Mapping[str, str]]] = {"hair": HAIR, "skin": SKIN, "clothes": CLOTHES}
"""Values of a person's attributes."""
CONTRAST, INK = "#b58143", "#000000"


@dataclass(frozen=True)
class Person:
    """A person by words of `ATTRIBUTES`, without an expression."""

    hair: str
    skin: str
    clothes: str


class ParsedParts(TypedDict):
    """A definition as DiceBear publishes it, as far as it is read here."""

    canvas: Mapping[str, Any]
    components: Mapping[str, Mapping[str, Any]]


@cache
def open_parts(folder: Path) -> ParsedParts:
    """Reads the definition from the tarball in a folder.

    Raises:
        FileNotFoundError: the tarball is missing.
        ValueError: it is not the pinned one.
    """
    check_present(folder, [PEOPLE])
    [found] = members(folder, PEOPLE, DEFINITION)
    return found


def svg(parts: ParsedParts, person: Person, expression: str) -> str:
    """Returns a person with an expression as SVG."""
    variants = {"head": HAIR[person.hair], "expression": EXPRESSIONS[expression]}
    colors = {"skin": SKIN[person.skin], "clothing": CLOTHES[person.clothes], "headContrast": CONTRAST, "ink": INK}

    def assembled(element: Mapping[str, Any]) -> str:
        given, name = element.get("attributes", {}), element["name"]
        attributes = {key: colors[one["name"]] if isinstance(one, dict) else one for key, one in given.items()}
        inner = element.get("children", [])
        if element["type"] == "component":
            if name not in variants:
                return ""
            name, inner = "g", parts["components"][name]["variants"][variants[name]]["elements"]
        text = "".join(f" {key}={quoteattr(str(one))}" for key, one in attributes.items())
        return f"<{name}{text}>{''.join(map(assembled, inner))}</{name}>"

    canvas = parts["canvas"]
    box = f'viewBox="0 0 {canvas["width"]} {canvas["height"]}"'
    body = "".join(map(assembled, canvas["elements"]))
    return f'<svg xmlns="http://www.w3.org/2000/svg" {box} fill="none">{body}</svg>'


def draw(parts: ParsedParts, person: Person, expression: str, size: int) -> np.ndarray:
    """Returns a person with an expression on white, uint8 [size, size, 3]."""
    return np.asarray(as_image(Image.fromarray(render(svg(parts, person, expression), size))))
