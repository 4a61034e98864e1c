"""The vocabulary of creatures: ten species, ten colours, four poses, four accessories, eight styles."""

from dataclasses import dataclass
from typing import Final

from weftwork.datasets.synthetic.checks import known
from weftwork.datasets.synthetic.palettes import COLORS

__all__ = ["ACCESSORIES", "COLORS", "NEUTRAL", "POSES", "SPECIES", "STYLES", "Creature"]

SPECIES: Final = ("cat", "rabbit", "elephant", "giraffe", "dragon", "bird", "fish", "turtle", "snail", "octopus")
POSES: Final = ("left", "right", "front", "jumping")
ACCESSORIES: Final = ("none", "hat", "scarf", "balloon")
STYLES: Final = ("ink", "pixel", "pastel", "blueprint", "woodcut", "neon", "watercolor", "poster")
NEUTRAL: Final = "neutral"


@dataclass(frozen=True)
class Creature:
    """The content of an image, without its style."""

    species: str
    color: str
    pose: str
    accessory: str

    def __post_init__(self) -> None:
        known("species", self.species, SPECIES)
        known("color", self.color, COLORS)
        known("pose", self.pose, POSES)
        known("accessory", self.accessory, ACCESSORIES)
