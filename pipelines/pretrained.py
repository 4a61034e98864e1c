"""The shipped models by name: what each is, and where it lies."""

from collections.abc import Mapping
from typing import Final

from weft.pretrained import available, shipped

DESCRIPTIONS: Final[Mapping[str, str]] = {
    "tiny-diffusion": "a complete small Stable Diffusion for people in outfits; opens in the stock pipeline too",
    "paired": "localized sketch-text pairs on tiny-diffusion; a PairedAdapter",
    "paired-global-sketch": "the baseline of paired: one sketch of the whole, with all words; a PairedAdapter",
    "creature-oracle": "reads style, species, colour and pose of a creature; what `weft evaluate style` measures with",
    "oracle": "reads garments, colours and patterns off a picture; what `weft evaluate paired` measures with",
}
"""One line per shipped model. A model that is named here may be missing from an installation; see `available`."""

__all__ = ["DESCRIPTIONS", "available", "shipped"]
