"""Conditions of several designs as padded tensors: what all adapters share of `collate` and `forward`."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from weftwork.attention_processors.core.condition import Condition
from weftwork.attention_processors.core.layers import layer_factors
from weftwork.attention_processors.core.regions import area_map, common_aspect, region_size


def padded(rows: Sequence[Sequence[Any]], absent: Any) -> list[list[Any]]:
    """Ragged designs as rows of one length, at least 1."""
    most = max(1, *map(len, rows))
    return [[*row, *[absent] * (most - len(row))] for row in rows]


def stack_acting(rows: Sequence[Sequence[Condition]], layers: Sequence[str]) -> dict[str, Any]:
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
