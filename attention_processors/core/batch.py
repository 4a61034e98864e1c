"""Typed batches: conditions of several designs as padded tensors, from `collate` through `features` to `forward`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self, TypedDict, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from weftwork.attention_processors.core.condition import Condition
from weftwork.attention_processors.core.layers import layer_factors
from weftwork.attention_processors.core.regions import common_aspect, region_size
from weftwork.attention_processors.core.strength import Schedule

C = TypeVar("C", bound=Condition)
D = TypeVar("D", bound=Condition)
B = TypeVar("B", bound="Batch")


def padded(rows: Sequence[Sequence[C]], absent: D) -> list[list[C | D]]:
    """Pads ragged designs to rows of one length, at least 1."""
    most = max(1, *map(len, rows))
    return [[*row, *[absent] * (most - len(row))] for row in rows]


@dataclass(frozen=True, eq=False)
class TensorFields:
    """Base of frozen dataclasses with tensor fields."""

    def to(self, device: torch.device | str) -> Self:
        """Returns a copy with all tensors on a device."""
        return replace(self, **{name: _moved(value, device) for name, value in vars(self).items()})


def _moved(value: object, device: torch.device | str) -> object:
    if isinstance(value, Tensor | TensorFields):
        return value.to(device)
    return tuple(_moved(one, device) for one in value) if isinstance(value, tuple) else value


class Strengths(TypedDict):
    """The strengths of a batch as arguments of `EncodedTokens`."""

    weight: Tensor
    null_weight: Tensor
    layer_weight: dict[str, Tensor]
    schedules: Sequence[Sequence[Schedule]]
    region: Tensor | None
    region_aspect: float | None


@dataclass(frozen=True, eq=False, kw_only=True)
class Batch(TensorFields):
    """Conditions of several designs, [design, part, …]; methods add fields of their own.

    Args:
        guided: 1 if the unconditional half of guidance gets the null condition, 0 if it is left to the frozen model.
        layer_weight: factors on the weight by layer; None for 1, where layers of one grid may share tensors.
        region: in [0, 1]; None where no condition has one.
        region_aspect: height over width of the canvas that regions were drawn on; None fits any.
    """

    weight: Float[Tensor, "design part"]
    guided: Float[Tensor, "design part"]
    schedules: tuple[tuple[Schedule, ...], ...]
    layer_weight: Float[Tensor, "design part layer"] | None = None
    region: Float[Tensor, "design part height width"] | None = None
    region_aspect: float | None = None

    @classmethod
    def of(cls, rows: Sequence[Sequence[Condition]], config: Mapping[str, Any], **own: object) -> Self:
        """Stacks the strengths of padded designs, on the CPU.

        Args:
            config: of the adapter: its `layers`, and the presets of layers of its `base`.
            own: values of the subclass's fields.

        Raises:
            ValueError: layer factors that match nothing, or regions of different aspects.
        """
        every = [one for row in rows for one in row]
        names, presets = list(config["layers"]), (config.get("base") or {}).get("presets")
        aspect = common_aspect(one.aspect for one in every)
        size = region_size(aspect or 1.0)
        region = None
        if any(one.region is not None for one in every):
            region = torch.stack([torch.stack([one.region_map(size) for one in row]) for row in rows])
        return cls(
            weight=torch.tensor([[float(one.weight) for one in row] for row in rows]),
            guided=torch.tensor([[float(one.cfg == "both") for one in row] for row in rows]),
            schedules=tuple(tuple(one.schedule for one in row) for row in rows),
            layer_weight=torch.tensor([[layer_factors(names, one.layers, presets) for one in row] for row in rows]),
            region=region,
            region_aspect=aspect,
            **own,
        )

    def scaled(self, factor: float) -> Self:
        """Returns a copy with all weights multiplied."""
        return replace(self, weight=self.weight * factor)

    def derived(self, kind: type[B], **own: object) -> B:
        """Returns the fields that another kind of batch has in common with this one, with `own` beside them."""
        shared = {one.name for one in fields(kind)} & set(vars(self))
        return kind(**{**{name: getattr(self, name) for name in shared}, **own})

    def strengths(self, layers: Sequence[str], device: torch.device) -> Strengths:
        """Returns weights, schedules and regions on a device, as `EncodedTokens` takes them."""
        here = self.to(device)
        factors = here.layer_weight
        return Strengths(
            weight=here.weight,
            null_weight=here.weight * here.guided,
            layer_weight={} if factors is None else {name: factors[..., i] for i, name in enumerate(layers)},
            schedules=here.schedules,
            region=here.region,
            region_aspect=here.region_aspect,
        )
