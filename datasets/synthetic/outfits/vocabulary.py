"""The vocabulary of outfits: four slots, thirteen kinds, ten colours, six patterns."""

from dataclasses import dataclass
from typing import Final

from weftwork.datasets.readers.errors import UserError, check_choice
from weftwork.datasets.synthetic.palettes import COLORS

SLOTS: Final = ("top", "bottom", "shoes", "accessory")
KINDS_BY_SLOT: Final[dict[str, tuple[str, ...]]] = {
    "top": ("t-shirt", "sweater", "jacket", "vest"),
    "bottom": ("trousers", "shorts", "skirt", "long skirt"),
    "shoes": ("sneakers", "boots"),
    "accessory": ("hat", "bag", "scarf"),
}
KINDS: Final = tuple(kind for kinds in KINDS_BY_SLOT.values() for kind in kinds)
SLOT_OF_KIND: Final = {kind: slot for slot, kinds in KINDS_BY_SLOT.items() for kind in kinds}
PATTERNS: Final = ("plain", "striped", "pinstriped", "dotted", "checked", "diagonal")


@dataclass(frozen=True)
class Garment:
    """One garment: what it is, where it is worn, and the two attributes that belong to it alone."""

    slot: str
    kind: str
    color: str
    pattern: str

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, KINDS)
        check_choice("color", self.color, COLORS)
        check_choice("pattern", self.pattern, PATTERNS)
        if SLOT_OF_KIND[self.kind] != self.slot:
            raise UserError(
                f"slot: got {self.slot!r} for a {self.kind}, expected {SLOT_OF_KIND[self.kind]!r}; "
                f"use Garment.of(kind, color, pattern) to have it filled in"
            )

    @classmethod
    def of(cls, kind: str, color: str, pattern: str) -> "Garment":
        """The garment of this kind, worn where its kind is worn."""
        return cls(SLOT_OF_KIND.get(kind, ""), kind, color, pattern)

    @property
    def triple(self) -> tuple[int, int, int]:
        """The indices of kind, colour and pattern."""
        return KINDS.index(self.kind), COLORS.index(self.color), PATTERNS.index(self.pattern)
