"""Colour words read from drawings: the nearest of a palette in CIELAB, by area."""

from typing import Final

import numpy as np

from weftwork.datasets.drawings.rendering import Rgba

PALETTE: Final[dict[str, tuple[str, ...]]] = {
    "black": ("14161a", "2b2b2f"),
    "gray": ("5f6368", "8a8f94", "b4b9bd"),
    "white": ("ffffff", "eceff1", "dde2e6"),
    "red": ("e53935", "c62828", "f8312f", "8e1b1b"),
    "orange": ("f57c00", "ff9800", "ff822d", "ef6c00"),
    "yellow": ("fdd835", "ffcc4d", "fcc21b", "ffe57f", "f9a825"),
    "green": ("43a047", "2e7d32", "7cb342", "00d26a", "1b5e20", "a5d46a"),
    "turquoise": ("26a69a", "00897b", "4dd0c8"),
    "light blue": ("90caf9", "81d4fa", "bbddf5", "c5e8f7"),
    "blue": ("1e88e5", "1565c0", "4289c1", "1a3f8f", "3b88c3"),
    "purple": ("8e24aa", "7e57c2", "5e35b1", "b39ddb", "533566"),
    "pink": ("f06292", "f48fb1", "ff8dc5", "ffc0cb", "d81b60"),
    "brown": ("6d4c41", "8d5a3b", "5d4037", "a0663d", "3e2723"),
    "beige": ("e8c9a0", "f3dcc0", "d7b58a", "f7dece"),
}
LEAST_SHARE: Final = 0.1
"""Colours of less than this share of a drawing go unsaid."""
MOST: Final = 3


def color_words(image: Rgba) -> tuple[str, ...]:
    """One to three colours of the opaque pixels, those of the largest areas first."""
    pixels = image[image[..., 3] > 127][:, :3]
    if not len(pixels):
        return ()
    distances = (_ANCHORS**2).sum(1) - 2 * cielab(pixels) @ _ANCHORS.T  # squared, less what is the same for all
    shares = np.bincount(_WORDS[distances.argmin(1)], minlength=len(PALETTE)) / len(pixels)
    order = [i for i in shares.argsort()[::-1][:MOST] if shares[i] >= LEAST_SHARE]
    return tuple(list(PALETTE)[i] for i in order or [shares.argmax()])


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
