"""Attention with biases of low rank, as more channels of queries and keys instead of a mask."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

CHANNELS = 8
"""Kernels want channels in multiples of this."""


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns a mask as numbers that are added to logits; True = keep."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, -torch.inf)


def biased(
    run: Callable[..., Tensor],
    query: Float[Tensor, "row query head dim"],
    key: Float[Tensor, "row key kv_head dim"],
    value: Float[Tensor, "row key kv_head dim"],
    mask: Tensor | None,
    biases: Sequence[tuple[Tensor, Tensor]],
    scale: float | None = None,
) -> Float[Tensor, "row query head dim"]:
    """Computes attention with biases, [row, query, part] and [row, key, part] each, as channels.

    Args:
        scale: factor of the logits without biases; None for that of the queries' channels.
    """
    dim = query.shape[-1]
    own = dim**-0.5 if scale is None else scale
    count = sum(one.shape[-1] for one, _ in biases)
    spare = -count % CHANNELS

    def extended(heads: Tensor, channels: Sequence[Tensor], factor: float) -> Tensor:
        more = F.pad(torch.cat(list(channels), -1) * factor, (0, spare)).to(heads.dtype)
        return torch.cat([heads, more.unsqueeze(2).expand(-1, -1, heads.shape[2], -1)], -1)

    queries = extended(query, [one for one, _ in biases], 1 / own)
    keys = extended(key, [other for _, other in biases], 1.0)
    return run(queries, keys, F.pad(value, (0, count + spare)), mask, scale=own)[..., :dim]
