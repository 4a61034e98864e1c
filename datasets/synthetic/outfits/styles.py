"""Outfits in eight styles: one painting per colour, all with the same strokes, put together.

A style's painter knows one colour. What shows that colour takes its pixels from that painting; the surroundings, which
may glow or run in it, take them from the paintings of what is near.
"""

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from weftwork.datasets.synthetic.outfits.drawing import (
    HAIRS,
    LIGHT_COLORS,
    SKINS,
    SUIT_RGB,
    Layers,
    Window,
    cloth,
    second_color,
)
from weftwork.datasets.synthetic.outfits.figure import BACKGROUND, HAIR, SKIN, SUIT, UNITS, Canvas
from weftwork.datasets.synthetic.outfits.paint_styles import blocks, neon, pastel, pixel, watercolor
from weftwork.datasets.synthetic.outfits.print_styles import blueprint, ink, poster, woodcut
from weftwork.datasets.synthetic.outfits.style_layers import Plane, Rgb, blur, lightness, read_scene
from weftwork.datasets.synthetic.outfits.vocabulary import Garment

PAINTERS: Final = {
    "ink": ink,
    "pixel": pixel,
    "pastel": pastel,
    "blueprint": blueprint,
    "woodcut": woodcut,
    "neon": neon,
    "watercolor": watercolor,
    "poster": poster,
}
STYLES: Final = tuple(PAINTERS)
REACH: Final = 7.0
"""Units that the surroundings of a colour reach."""


def paint_styled(
    canvas: Canvas,
    layers: Layers,
    garments: Mapping[int, Garment],
    style: str,
    size: int,
    streams: Mapping[str, np.random.Generator],
) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    """The finished image, uint8.

    Args:
        garments: by material.
        streams: the random streams "style" and "light", and one named after each garment's slot.
    """
    seed = int(streams["style"].integers(2**63))
    shown = list(_colors(layers, garments, size, streams))
    background = layers.shares[BACKGROUND]
    near = np.stack([blur(share, REACH * size / UNITS) for share, _, _ in shown]) + 1e-4
    weights = np.stack([share for share, _, _ in shown]) + background * near / near.sum(0)
    plain = 1 - weights.sum(0)  # dark and light parts are the same in all paintings
    weights += plain / len(weights)
    if style == "pixel":
        weights = _whole_blocks(weights, 4 * size // UNITS)
    scene = read_scene(canvas, size, SUIT_RGB, streams["style"])
    image = np.zeros((size, size, 3), np.float32)
    for weight, (_, color, rgb) in zip(weights, shown, strict=True):
        if weight.any():
            scene.color, scene.rgb, scene.rng = color, rgb, np.random.default_rng(seed)
            image += weight[..., None] * PAINTERS[style](scene)
    return np.clip(image + 0.5, 0, 255).astype(np.uint8)


def _colors(
    layers: Layers, garments: Mapping[int, Garment], size: int, streams: Mapping[str, np.random.Generator]
) -> Iterator[tuple[Plane, str, Rgb]]:
    """Share of each pixel, name for painters, and RGB value of every colour."""
    light = streams["light"]
    bodies: dict[int, Rgb] = {
        SKIN: SKINS[int(light.integers(len(SKINS)))],
        HAIR: HAIRS[int(light.integers(len(HAIRS)))],
        SUIT: SUIT_RGB,
    }
    for material, share in layers.shares.items():
        if material in bodies:
            rgb = bodies[material]
            yield share, "black" if lightness(rgb) < 0.2 else "brown" if lightness(rgb) < 0.35 else "", rgb
        elif material in garments:
            garment = garments[material]
            window, second = Window.around(share), np.zeros_like(share)
            second[window.part], base = cloth(garment, window, streams[garment.slot])
            red, green, blue = np.clip(base, 0, 255).tolist()
            yield share * (1 - second), garment.color, (red, green, blue)
            if garment.pattern != "plain":
                contrast = "black" if garment.color in LIGHT_COLORS else "white"
                yield share * second, contrast, second_color(garment.color)


def _whole_blocks(weights: np.ndarray, side: int) -> np.ndarray:
    """All of each block to the colour that has most of it."""
    shares = np.stack([blocks(weight, len(weight) // side) for weight in weights])
    winner = shares.argmax(0)[None] == np.arange(len(weights))[:, None, None]
    return winner.repeat(side, 1).repeat(side, 2).astype(np.float32)
