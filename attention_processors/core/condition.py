"""The base of all conditions: how strongly, where, when and in which layers one acts, and its form in records."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from weftwork.attention_processors.core.records import (
    ChoiceKind,
    Locate,
    NumberKind,
    RecordField,
    RegionKind,
    Schema,
    SharesKind,
    recorded,
    short,
)
from weftwork.attention_processors.core.regions import Area, area_map, checked_area
from weftwork.attention_processors.core.strength import Schedule, check_weight

GUIDANCE = ("both", "cond_only")


@dataclass(frozen=True, eq=False, kw_only=True)
class Condition:
    """What a user passes for one thing; validated on construction.

    Subclasses are frozen dataclasses with fields of their own in front of these. Fields made by `recorded` can be
    written in design files; those of `needs` tell the kinds of conditions apart there.

    Args:
        weight: 0 means off, exactly; 1 as trained.
        region: where it acts: None (everywhere), a box (left, top, right, bottom) in fractions of the canvas, or a mask
            (white = acts) of the canvas's aspect.
        start, end, curve: when it acts, see `Schedule`.
        layers: factors on the weight by preset or regular expression of layer names, 1 elsewhere; of several that match
            a layer, the last counts.
        cfg: "both" gives the unconditional half of guidance the null condition, "cond_only" leaves it to the frozen
            model.

    Raises:
        ValueError: a weight or factor that is negative or not finite, an unknown `cfg`, a box outside the canvas, a
            mask that is black or cannot be read, or a schedule out of order.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    """Keys of a record of which at least one is there."""

    weight: float = field(default=1.0, metadata=recorded(NumberKind(), "Strength: 0 is off, 1 as trained."))
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
        metadata=recorded(SharesKind(), "Factors on the weight by preset or pattern of layer names."),
    )
    cfg: str = field(
        default="both",
        metadata=recorded(
            ChoiceKind(GUIDANCE),
            "The unconditional half of guidance gets the null condition (both) or the frozen model (cond_only).",
        ),
    )

    def __post_init__(self) -> None:
        for factor in (self.weight, *self.layers.values()):
            check_weight(factor)
        if self.cfg not in GUIDANCE:
            raise ValueError(f"cfg: got {self.cfg!r}, expected one of {', '.join(GUIDANCE)}")
        Schedule(self.start, self.end, self.curve)
        object.__setattr__(self, "region", self.checked_region())

    def checked_region(self) -> Any:
        """Returns the region as a box, an image of bytes or None."""
        return checked_area(self.region)

    def region_map(self, size: tuple[int, int]) -> Float[Tensor, "height width"]:
        """The region in [0, 1] at a size (height, width)."""
        return area_map(self.region, size)  # pyright: ignore[reportArgumentType]

    @property
    def schedule(self) -> Schedule:
        return Schedule(self.start, self.end, self.curve)

    @property
    def aspect(self) -> float | None:
        """Height over width of the region, where it has an aspect of its own."""
        return self.region.height / self.region.width if isinstance(self.region, Image.Image) else None

    # -- records -------------------------------------------------------------------------------------------

    @classmethod
    def record_fields(cls) -> dict[str, tuple[str, RecordField]]:
        """Returns by key of a record the name of the field and its `RecordField`."""
        found = {one.name: one.metadata.get("record") for one in dataclasses.fields(cls)}
        return {record.key or name: (name, record) for name, record in found.items() if record is not None}

    @classmethod
    def from_record(cls, record: Mapping[str, object], locate: Locate) -> Self:
        """Returns the condition that an object of a design file describes; what is null counts as left out.

        Args:
            locate: finds the file of a path.

        Raises:
            ValueError: an unknown key, a value of the wrong type, a file that cannot be found or read; and as for the
                class.
        """
        known = cls.record_fields()
        if unknown := [key for key in record if key not in known]:
            raise ValueError(
                f"got the unknown key {', '.join(map(repr, unknown))}, expected {', '.join(known)}; rename or drop it"
            )
        values: dict[str, Any] = {}
        for key, value in record.items():
            if value is None:
                continue
            name, entry = known[key]
            try:
                values[name] = entry.kind.read(value, locate)
            except ValueError as error:
                raise ValueError(f"{key}: {error}") from error
        if cls.needs and not any(record.get(key) is not None for key in cls.needs):
            raise ValueError(f"got {short(dict(record))}, expected at least one of {', '.join(cls.needs)}; add it")
        return cls(**values)

    @classmethod
    def schema(cls) -> Schema:
        """Returns the JSON schema of a record."""
        properties = {}
        for key, (_, entry) in cls.record_fields().items():
            schema = entry.kind.schema()
            optional = schema if key in cls.needs and len(cls.needs) == 1 else {"anyOf": [schema, {"type": "null"}]}
            properties[key] = {"description": entry.help, **optional}
        given = [{"required": [key], "properties": {key: {"not": {"type": "null"}}}} for key in cls.needs]
        doc = (cls.__doc__ or cls.__name__).strip().splitlines()[0]
        schema = {"description": doc, "type": "object", "additionalProperties": False, "properties": properties}
        return schema | ({"anyOf": given} if given else {})
