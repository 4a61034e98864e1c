"""From material indices to an image: room, light, colours and patterns.

The canvas says for each cell which material is seen; averaging 4x4 cells gives the share of each material in
each pixel, so the image is a sum over materials without fringes, and the masks come from the same shares.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, ImageFilter

from weftwork.datasets.synthetic.outfits.figure import (
    BACKGROUND,
    CANVAS_SIZE,
    DARK,
    FIRST_GARMENT,
    FLOOR,
    HAIR,
    LIGHT,
    SKIN,
    SUIT,
    UNITS,
    Canvas,
    Figure,
)
from weftwork.datasets.synthetic.outfits.vocabulary import SLOTS, Garment
from weftwork.datasets.synthetic.palettes import RGB, ROOMS

Plane = np.ndarray[tuple[int, int], np.dtype[np.float32]]
Pixels = np.ndarray[tuple[int, int, int], np.dtype[np.float32]]
Color = np.ndarray[tuple[int], np.dtype[np.float32]]

LIGHT_COLORS: Final = ("orange", "yellow", "pink", "white")
CREAM: Final = (250, 242, 222)
INK: Final = (44, 38, 50)
SKINS: Final = ((250, 214, 186), (236, 188, 150), (206, 150, 108), (160, 108, 74), (112, 74, 52))
HAIRS: Final = ((48, 36, 32), (86, 58, 38), (150, 106, 60), (214, 176, 106), (150, 62, 34), (150, 150, 152))
SUIT_RGB: Final = (174, 166, 156)


@dataclass(frozen=True)
class Layers:
    """Shares of materials per pixel, keyed by material, with the shares of construction lines of garments."""

    shares: dict[int, Plane]
    lines: dict[int, Plane]


@dataclass(frozen=True)
class Window:
    """The part of an image where a material is seen; nothing is computed elsewhere."""

    size: int
    part: tuple[slice, slice]

    @classmethod
    def around(cls, share: Plane) -> "Window":
        """The smallest window that holds the whole shape."""
        rows, columns = np.flatnonzero(share.any(axis=1)), np.flatnonzero(share.any(axis=0))
        return cls(len(share), (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)))

    @property
    def unit(self) -> float:
        """Pixels per unit."""
        return self.size / UNITS

    def grid(self) -> tuple[Plane, Plane]:
        """Pixel centres in units, as (y, x)."""
        y, x = _grid(self.size)
        return y[self.part], x[self.part]


def read_layers(canvas: Canvas, size: int) -> Layers:
    """Average the cells of each material over the pixels they fall in."""
    factor = CANVAS_SIZE // size
    materials, lines = np.asarray(canvas.materials), np.asarray(canvas.lines)
    present = np.flatnonzero(np.bincount(materials.ravel(), minlength=FIRST_GARMENT + len(SLOTS)))
    shares = {int(material): _reduce(materials == material, factor) for material in present}
    seen = np.where(lines == materials, lines, 0)
    drawn = {material: _reduce(seen == material, factor) for material in shares if material >= FIRST_GARMENT}
    return Layers(shares, drawn)


def shade(share: Plane, window: Window, light: float, rng: np.random.Generator) -> Plane:
    """A soft relief of a shape lit from one side, with a few faint folds."""
    blurred = _blur(share, 3.2 * window.unit)
    step = round(2 * window.unit)
    slope = (np.roll(blurred, step, axis=1) - np.roll(blurred, -step, axis=1))[window.part]
    blurred = blurred[window.part]
    y, x = window.grid()
    angle, period = rng.uniform(-0.5, 0.5), rng.uniform(13, 22)
    folds = np.sin((x * np.cos(angle) + y * np.sin(angle)) * (2 * np.pi / period) + rng.uniform(0, 2 * np.pi))
    return (1.0 - 0.22 * light * slope + 0.025 * folds + 0.04 * (blurred - 0.6)).astype(np.float32)


def pattern_share(pattern: str, window: Window, small: bool, rng: np.random.Generator) -> Plane:
    """Share of each pixel in the second colour of a pattern, before clipping to the garment."""
    y, x = window.grid()
    period = rng.uniform(6.8, 7.8) if small else rng.uniform(7.4, 9.6)
    tilt = np.deg2rad(rng.uniform(-4, 4))
    phase_u, phase_v = rng.uniform(0, period, 2)
    if pattern == "diagonal":
        tilt += np.deg2rad(45 if rng.random() < 0.5 else -45)
    u = x * np.cos(tilt) + y * np.sin(tilt) + phase_u
    v = -x * np.sin(tilt) + y * np.cos(tilt) + phase_v
    unit = window.unit
    if pattern == "plain":
        return np.zeros(x.shape, np.float32)
    if pattern in ("striped", "diagonal"):
        return _bands(v, period, 0.40 * period, unit)
    if pattern == "pinstriped":
        return _bands(u, period, 0.38 * period, unit)
    if pattern == "checked":
        width = 0.27 * period
        return np.maximum(_bands(u, period, width, unit), _bands(v, period, width, unit))
    row = np.floor(v / period)
    du = _centered(u + 0.5 * period * (row % 2), period)
    distance = np.hypot(du, _centered(v, period))
    return np.clip((0.31 * period - distance) * unit + 0.5, 0, 1).astype(np.float32)


def second_color(color: str) -> tuple[float, float, float]:
    """The contrasting colour of a pattern: cream on deep colours, ink on light ones, tinted with the base."""
    contrast, part = (INK, 0.12) if color in LIGHT_COLORS else (CREAM, 0.06)
    red, green, blue = (part * base + (1 - part) * other for base, other in zip(RGB[color], contrast, strict=True))
    return red, green, blue


def draw_room(figure: Figure, size: int, rng: np.random.Generator) -> Pixels:
    """A wall with a soft gradient, a floor, one or two plain shapes and the person's shadow."""
    y, x = _grid(size)
    wall = np.asarray(ROOMS[int(rng.integers(len(ROOMS)))], np.float32) + rng.uniform(-10, 10, 3).astype(np.float32)
    slope = rng.uniform(-0.10, 0.10) * (x / UNITS - 0.5) + rng.uniform(-0.04, 0.12) * (0.6 - y / UNITS)
    room = wall * (1 + slope[..., None])
    for _ in range(int(rng.integers(0, 3))):
        tone = wall * rng.uniform(0.86, 1.06) + rng.uniform(-6, 6, 3)
        room += _room_shape(x, y, rng)[..., None] * (tone.astype(np.float32) - room)
    line = rng.uniform(100, 112)
    floor = wall * rng.uniform(0.72, 0.94) + rng.uniform(-8, 8, 3).astype(np.float32)
    on_floor = np.clip(y - line + 0.5, 0, 1)[..., None]
    room += on_floor * (floor * (1 + 0.002 * (y[..., None] - 118)) - room)
    shadow = np.exp(-(((x - figure.x) / 24) ** 2 + ((y - FLOOR) / 3.2) ** 2))
    return (room * (1 - 0.35 * shadow[..., None])).astype(np.float32)


def _room_shape(x: Plane, y: Plane, rng: np.random.Generator) -> Plane:
    """A disc, a window or a panel on the wall."""
    center_x, center_y, radius = rng.uniform(5, 123), rng.uniform(15, 80), rng.uniform(14, 38)
    form = int(rng.integers(3))
    if form == 0:
        distance = np.hypot(x - center_x, y - center_y) - radius
    elif form == 1:
        distance = np.maximum(np.abs(x - center_x) - 0.6 * radius, np.abs(y - center_y) - radius)
    else:
        distance = np.abs(x - center_x) - 0.5 * radius
    return np.clip(0.5 - distance, 0, 1).astype(np.float32)


def paint_image(
    canvas: Canvas,
    layers: Layers,
    garments: dict[int, Garment],
    size: int,
    streams: dict[str, np.random.Generator],
) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    """The finished image, uint8.

    Args:
        garments: by material.
        streams: the random streams "room" and "light", and one named after each garment's slot.
    """
    light_rng = streams["light"]
    light, ambient = (
        light_rng.choice([-1.0, 1.0]) * light_rng.uniform(0.6, 1.2),
        light_rng.uniform(0.93, 1.04),
    )
    skin, hair = SKINS[int(light_rng.integers(len(SKINS)))], HAIRS[int(light_rng.integers(len(HAIRS)))]
    plain = {SKIN: skin, HAIR: hair, SUIT: SUIT_RGB, DARK: (40, 34, 36), LIGHT: (236, 232, 224)}
    image = draw_room(canvas.figure, size, streams["room"]) * layers.shares[BACKGROUND][..., None]
    for material, share in layers.shares.items():
        if material == BACKGROUND:
            continue
        window = Window.around(share)
        if material in garments:
            rng = streams[garments[material].slot]
            line = layers.lines[material][window.part]
            color = _cloth(garments[material], window, rng) * (1 - 0.30 * line[..., None])
            tone = shade(share, window, light, rng)
        else:
            color = np.asarray(plain[material], np.float32)
            tone = shade(share, window, light, light_rng)
        share = share[window.part]
        edge = 1 - 0.22 * 4 * share * (1 - share)
        image[window.part] += color * (share * tone * edge)[..., None]
    return np.clip(image * ambient + 0.5, 0, 255).astype(np.uint8)


def cloth(garment: Garment, window: Window, rng: np.random.Generator) -> tuple[Plane, Color]:
    """Share of each pixel in the second colour of a garment, and its first colour."""
    second = pattern_share(garment.pattern, window, garment.slot in ("shoes", "accessory"), rng)
    return second, np.asarray(RGB[garment.color], np.float32) + rng.uniform(-5, 5, 3).astype(np.float32)


def _cloth(garment: Garment, window: Window, rng: np.random.Generator) -> Pixels:
    share, base = cloth(garment, window, rng)
    second = share[..., None]
    return (base + second * (np.asarray(second_color(garment.color), np.float32) - base)).astype(np.float32)


def _grid(size: int) -> tuple[Plane, Plane]:
    """Pixel centres in units, as (y, x)."""
    centers = (np.arange(size, dtype=np.float32) + 0.5) * (UNITS / size)
    return np.broadcast_to(centers[:, None], (size, size)), np.broadcast_to(centers[None], (size, size))


def _bands(position: Plane, period: float, width: float, unit: float) -> Plane:
    return np.clip((0.5 * width - np.abs(_centered(position, period))) * unit + 0.5, 0, 1).astype(np.float32)


def _centered(position: Plane, period: float) -> Plane:
    return (position % period - 0.5 * period).astype(np.float32)


def _reduce(cells: np.ndarray[tuple[int, int], np.dtype[np.bool_]], factor: int) -> Plane:
    image = Image.fromarray(cells.view(np.uint8) * np.uint8(255)).reduce(factor)
    return np.divide(np.asarray(image), 255, dtype=np.float32)


def _blur(plane: Plane, radius: float) -> Plane:
    image = Image.fromarray((plane * 255).astype(np.uint8)).filter(ImageFilter.BoxBlur(radius))
    return np.divide(np.asarray(image), 255, dtype=np.float32)
