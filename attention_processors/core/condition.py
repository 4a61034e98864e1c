"""Base class of conditions: weight, region, schedule, layers and guidance, and its record in design files."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import ClassVar

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from weftwork.attention_processors.core.records import (
    ChoiceKind,
    NumberKind,
    Recorded,
    RecordField,
    RegionKind,
    SharesKind,
    recorded,
)
from weftwork.attention_processors.core.regions import Area, area_map, checked_area
from weftwork.attention_processors.core.strength import MAX_WEIGHT, Schedule, check_weight, number
from weftwork.datasets.readers.errors import UserError, check_choice

GUIDANCE = ("both", "cond_only")


@dataclass(frozen=True, eq=False, kw_only=True)
class Condition(Recorded):
    """Base class of conditions; validated on construction.

    Subclasses are frozen dataclasses with fields of their own in front of these. Fields made by `recorded` can be
    written in design files; the keys in `needs` identify the class there.

    Args:
        weight: 0 is exactly off, 1 as trained.
        region: where it acts: None (everywhere), a box (left, top, right, bottom) in fractions of the canvas, or a mask
            (white = acts) of the canvas's aspect.
        start, end, curve: when it acts, see `Schedule`.
        layers: factors on the weight by preset or regular expression of layer names, 1 elsewhere; of several that match
            a layer, the last counts.
        cfg: "both": the null condition in the unconditional half of guidance; "cond_only": the frozen model there.

    Raises:
        ValueError: a weight or factor that is negative or not finite, an unknown `cfg`, a box outside the canvas, a
            mask that is black or cannot be read, or a schedule out of order.
    """

    has_maps: ClassVar[bool] = True
    """Whether attention maps of it can be recorded."""
    refused: ClassVar[Mapping[str, str]] = {}
    """Fields of `Condition` that a subclass does not have, each with the reason and the remedy; records lack them."""

    weight: float = field(
        default=1.0, metadata=recorded(NumberKind(maximum=MAX_WEIGHT), "Strength: 0 is off, 1 as trained.")
    )
    region: Area = field(
        default=None,
        metadata=recorded(
            RegionKind(),
            "Where it acts: a box [left, top, right, bottom] in fractions of the canvas, or the path of a mask, white "
            "where it acts. Left out, everywhere.",
        ),
    )
    start: float = field(default=0.0, metadata=recorded(NumberKind(maximum=1), "Share of the steps where it begins."))
    end: float = field(default=1.0, metadata=recorded(NumberKind(maximum=1), "Share of the steps where it ends."))
    curve: Callable[[float], float] | None = None
    layers: Mapping[str, float] = field(
        default_factory=dict,
        metadata=recorded(
            SharesKind(maximum=MAX_WEIGHT),
            "Factors on the weight by preset (all, encoder, middle, decoder, self) or by a regular expression for "
            "names of layers; 1 elsewhere, and of several that match a layer the last counts.",
        ),
    )
    cfg: str = field(
        default="both",
        metadata=recorded(
            ChoiceKind(GUIDANCE),
            "The unconditional half of guidance gets the null condition (both) or the frozen model (cond_only).",
        ),
    )

    def __post_init__(self) -> None:
        for name, reason in self.refused.items():
            value = getattr(self, name)
            if value is not None and not (isinstance(value, Mapping) and not value):
                raise UserError(f"{name}: {reason}")
        for factor in (self.weight, *self.layers.values()):
            check_weight(factor)
        for name in ("weight", "start", "end"):
            if (value := number(getattr(self, name))) is not None:  # of any library
                object.__setattr__(self, name, value)
        check_choice("cfg", self.cfg, GUIDANCE)
        Schedule(self.start, self.end, self.curve)
        object.__setattr__(self, "region", self.checked_region())

    @classmethod
    def record_fields(cls) -> dict[str, tuple[str, RecordField]]:
        return {key: one for key, one in super().record_fields().items() if one[0] not in cls.refused}

    def has_record(self) -> bool:
        """Whether designs can hold it: fields that records lack have no value."""
        return bool(self.needs) and all(
            "record" in one.metadata or getattr(self, one.name) is None for one in fields(self)
        )

    def checked_region(self) -> Area:
        """Returns the region as a box, an 8-bit image or None."""
        return checked_area(self.region)

    def region_map(self, size: tuple[int, int]) -> Float[Tensor, "height width"]:
        """Returns the region as a map in [0, 1] of a size (height, width)."""
        return area_map(self.region, size)  # pyright: ignore[reportArgumentType]

    def common_fields(self) -> dict[str, object]:
        """Returns the values of the fields that all conditions have, by name."""
        return {one.name: getattr(self, one.name) for one in fields(Condition)}

    @property
    def schedule(self) -> Schedule:
        return Schedule(self.start, self.end, self.curve)

    @property
    def aspect(self) -> float | None:
        """Height over width of the region's mask; None without a mask."""
        return self.region.height / self.region.width if isinstance(self.region, Image.Image) else None
