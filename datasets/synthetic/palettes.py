"""Colours by name, shared by the synthetic datasets of images."""

from typing import Final

COLORS: Final = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
RGB: Final[dict[str, tuple[int, int, int]]] = {
    "red": (208, 32, 44),
    "orange": (244, 132, 24),
    "yellow": (246, 212, 52),
    "green": (40, 142, 74),
    "blue": (36, 84, 206),
    "purple": (122, 56, 168),
    "pink": (248, 148, 192),
    "brown": (112, 68, 36),
    "black": (34, 34, 40),
    "white": (242, 242, 240),
}
ROOMS: Final = (
    (214, 224, 230),
    (226, 218, 206),
    (212, 226, 214),
    (230, 214, 216),
    (220, 216, 232),
    (198, 204, 210),
)
