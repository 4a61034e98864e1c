"""Colour words read from drawings: the nearest of a palette in CIELAB, by area."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from jaxtyping import UInt8

from weftwork.datasets.drawings.rendering import Rgba

PALETTE: Final[dict[str, tuple[str, ...]]] = {
    "black": ("14161a", "212124"),
    "dark gray": ("37393d", "4a4d52", "5f6368"),
    "gray": ("76797e", "8a8f94"),
    "light gray": ("a2a6aa", "b4b9bd", "c8cdd1"),
    "white": ("ffffff", "eceff1", "dde2e6"),
    "dark red": ("8e1b1b", "6d1214", "a82424"),
    "red": ("e53935", "c62828", "f8312f"),
    "light red": ("f2726b", "ef9a9a"),
    "dark orange": ("d9560b", "c2410c"),
    "orange": ("f57c00", "ff822d", "ef6c00"),
    "light orange": ("ffad4d", "ffc58a"),
    "dark yellow": ("f9a825", "e09f1f", "c99a1a"),
    "yellow": ("fdd835", "ffcc4d", "fcc21b"),
    "light yellow": ("ffe57f", "fff1a8", "fff7d0"),
    "dark green": ("1b5e20", "2e5d3a", "0f4d2c"),
    "green": ("43a047", "2e7d32", "00a651"),
    "light green": ("7cb342", "a5d46a", "c5e1a5", "00d26a"),
    "dark turquoise": ("00695c", "007f78"),
    "turquoise": ("26a69a", "00bfa5", "3cc3b5"),
    "light turquoise": ("4dd0c8", "8fe0da", "b8efe8"),
    "dark blue": ("1a3f8f", "0d2b5c", "22407c", "26395a"),
    "blue": ("1e88e5", "1565c0", "4289c1", "3b88c3"),
    "light blue": ("62b5f0", "90caf9", "bbddf5", "c5e8f7"),
    "dark purple": ("533566", "4a148c", "3b1f4f"),
    "purple": ("8e24aa", "7e57c2", "5e35b1"),
    "light purple": ("a98bd6", "b39ddb", "d6c6ee"),
    "dark pink": ("d81b60", "b0124e", "a3175b"),
    "pink": ("f06292", "f0529c"),
    "light pink": ("f48fb1", "ffaecb", "ffc0cb", "fbdbe4"),
    "dark brown": ("5d4037", "3e2723", "4b2c20"),
    "brown": ("6d4c41", "8d5a3b", "7a4f36"),
    "light brown": ("a0663d", "b9814f", "c58d5c"),
    "dark beige": ("c9a27a", "bf9f7f"),
    "beige": ("e8c9a0", "d7b58a"),
    "light beige": ("f3dcc0", "f7dece", "fbeadb"),
}
LEAST_SHARE: Final = 0.05
"""Colours of less than this share of a drawing go unsaid."""
MOST: Final = 4


def color_words(image: Rgba) -> tuple[str, ...]:
    """One to four colours of the opaque pixels, those of the largest areas first."""
    pixels = image[image[..., 3] > 127][:, :3]
    if not len(pixels):
        return ()
    distances = (_ANCHORS**2).sum(1) - 2 * cielab(pixels) @ _ANCHORS.T  # squared, less what is the same for all
    shares = np.bincount(_WORDS[distances.argmin(1)], minlength=len(PALETTE)) / len(pixels)
    order = [i for i in shares.argsort()[::-1][:MOST] if shares[i] >= LEAST_SHARE]
    return tuple(list(PALETTE)[i] for i in order or [shares.argmax()])


def painted(pixels: UInt8[np.ndarray, "pixel 3"], words: Sequence[str]) -> UInt8[np.ndarray, "pixel 3"]:
    """Returns the nearest of the named colours for each pixel; the same pixels without names."""
    if not words:
        return pixels
    typical = np.array([to_rgb(PALETTE[word][0]) for word in words], np.uint8)
    return typical[np.linalg.norm(cielab(pixels)[:, None] - cielab(typical), axis=2).argmin(1)]


def to_rgb(hexadecimal: str) -> tuple[int, int, int]:
    """Red, green and blue of six hexadecimal digits."""
    red, green, blue = bytes.fromhex(hexadecimal)
    return red, green, blue


def cielab(pixels: np.ndarray) -> np.ndarray:
    """CIELAB (D65) of sRGB bytes [pixel, 3]."""
    scaled = pixels.astype(np.float32) / 255
    linear = np.where(scaled > 0.04045, ((scaled + 0.055) / 1.055) ** 2.4, scaled / 12.92)
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]], np.float32)
    x, y, z = (linear @ matrix.T / np.array([0.9505, 1.0, 1.089], np.float32)).T
    fx, fy, fz = (np.where(v > 0.008856, np.cbrt(v), 7.787 * v + 16 / 116) for v in (x, y, z))
    return np.stack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)], -1)


_ANCHORS: Final = cielab(np.array([to_rgb(color) for colors in PALETTE.values() for color in colors]))
_WORDS: Final = np.array([i for i, colors in enumerate(PALETTE.values()) for _ in colors])
