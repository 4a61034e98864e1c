"""What a user says with styles: one by name, or a mixture; validated when it is made."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from PIL import Image

from weft.attention_processors.regions import Area, checked_area
from weft.attention_processors.strength import Schedule, check_weight

GUIDANCE = ("both", "cond_only")


@dataclass(frozen=True, eq=False)
class Style:
    """A style, or a mixture of styles, by name.

    Args:
        styles: a name, or shares by name; shares are divided by their sum.
        weight: 0 means off, exactly; 1 as trained.
        region: where it acts: None (everywhere), a box (left, top, right, bottom) in fractions of the canvas, or a mask
            (white = acts) of the canvas's aspect.
        start, end, curve: when it acts, see `Schedule`.
        layers: factors on the weight by preset or regular expression of layer names, 1 elsewhere; of several that match
            a layer, the last counts.
        cfg: "both" gives the unconditional half of guidance the null style, "cond_only" leaves it to the frozen model.

    Raises:
        ValueError: no style, shares or weights that are negative, not finite or sum to 0, an unknown `cfg`; and as
            for `SketchTextPair`.
    """

    styles: str | Mapping[str, float]
    weight: float = 1.0
    region: Area = None
    start: float = 0.0
    end: float = 1.0
    curve: Callable[[float], float] | None = None
    layers: Mapping[str, float] = field(default_factory=dict)
    cfg: str = "both"

    def __post_init__(self) -> None:
        shares = {self.styles: 1.0} if isinstance(self.styles, str) else dict(self.styles)
        if not shares or not all(isinstance(name, str) and name for name in shares):
            raise ValueError(f"styles: got {self.styles!r}, expected a name or shares by name")
        for name, share in shares.items():
            if not (isinstance(share, int | float) and math.isfinite(share) and share >= 0):
                raise ValueError(
                    f"styles: got a share of {share!r} for {name!r}, expected a finite number of at least 0"
                )
        total = sum(shares.values())
        if total == 0:
            raise ValueError(
                "styles: got shares that sum to 0; give one more than 0, or weight=0 to turn the style off"
            )
        check_weight(self.weight)
        for factor in self.layers.values():
            check_weight(factor)
        if self.cfg not in GUIDANCE:
            raise ValueError(f"cfg: got {self.cfg!r}, expected one of {', '.join(GUIDANCE)}")
        Schedule(self.start, self.end, self.curve)
        object.__setattr__(self, "styles", {name: share / total for name, share in shares.items()})
        object.__setattr__(self, "region", checked_area(self.region))

    @property
    def schedule(self) -> Schedule:
        return Schedule(self.start, self.end, self.curve)

    @property
    def aspect(self) -> float | None:
        """Height over width of the region, where it has an aspect of its own."""
        return self.region.height / self.region.width if isinstance(self.region, Image.Image) else None
