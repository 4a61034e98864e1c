"""How a condition acts: how strongly, where, when, and in which layers. What styles and references share."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image

from weftwork.attention_processors.core.layers import layer_factors
from weftwork.attention_processors.core.regions import Area, area_map, checked_area, common_aspect, region_size
from weftwork.attention_processors.core.strength import Schedule, check_weight

GUIDANCE = ("both", "cond_only")


@dataclass(frozen=True, eq=False, kw_only=True)
class Acting:
    """The part of a condition that says how it acts.

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

    weight: float = 1.0
    region: Area = None
    start: float = 0.0
    end: float = 1.0
    curve: Callable[[float], float] | None = None
    layers: Mapping[str, float] = field(default_factory=dict)
    cfg: str = "both"

    def __post_init__(self) -> None:
        for factor in (self.weight, *self.layers.values()):
            check_weight(factor)
        if self.cfg not in GUIDANCE:
            raise ValueError(f"cfg: got {self.cfg!r}, expected one of {', '.join(GUIDANCE)}")
        Schedule(self.start, self.end, self.curve)
        object.__setattr__(self, "region", checked_area(self.region))

    @property
    def schedule(self) -> Schedule:
        return Schedule(self.start, self.end, self.curve)

    @property
    def aspect(self) -> float | None:
        """Height over width of the region, where it has an aspect of its own."""
        return self.region.height / self.region.width if isinstance(self.region, Image.Image) else None


def padded(rows: Sequence[Sequence[Any]], absent: Any) -> list[list[Any]]:
    """Ragged designs as rows of one length, at least 1."""
    most = max(1, *map(len, rows))
    return [[*row, *[absent] * (most - len(row))] for row in rows]


def stack_acting(rows: Sequence[Sequence[Acting]], layers: Sequence[str]) -> dict[str, Any]:
    """Padded designs as tensors [design, part, …] on the CPU; without any region there is none.

    Raises:
        ValueError: layers that match nothing, or regions of different aspects.
    """
    every = [one for row in rows for one in row]
    aspect = common_aspect(one.aspect for one in every)
    size = region_size(aspect or 1.0)
    region = None
    if any(one.region is not None for one in every):
        region = torch.stack([torch.stack([area_map(one.region, size) for one in row]) for row in rows])  # pyright: ignore
    return {
        "weight": torch.tensor([[float(one.weight) for one in row] for row in rows]),
        "guided": torch.tensor([[float(one.cfg == "both") for one in row] for row in rows]),
        "layer_weight": torch.tensor([[layer_factors(layers, one.layers) for one in row] for row in rows]),
        "schedules": [[one.schedule for one in row] for row in rows],
        "region": region,
        "region_aspect": aspect,
    }


def encoded_acting(features: Mapping[str, Any], layers: Sequence[str], device: torch.device) -> dict[str, Any]:
    """What `stack_acting` made, as the fields of `EncodedTokens`."""
    weight, layer_weight = features["weight"].to(device), features["layer_weight"].to(device)
    return {
        "weight": weight,
        "schedules": features["schedules"],
        "region": None if features["region"] is None else features["region"].to(device),
        "region_aspect": features["region_aspect"],
        "layer_weight": {name: layer_weight[..., i] for i, name in enumerate(layers)},
        "null_weight": weight * features["guided"].to(device),
    }
