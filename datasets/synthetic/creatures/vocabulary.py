"""The vocabulary of creatures: ten species, ten colours, four poses, four accessories, eight styles."""

from dataclasses import dataclass
from typing import Final

from weftwork.datasets.readers.errors import check_choice
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
        check_choice("species", self.species, SPECIES)
        check_choice("color", self.color, COLORS)
        check_choice("pose", self.pose, POSES)
        check_choice("accessory", self.accessory, ACCESSORIES)
