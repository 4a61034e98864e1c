"""Reference attention: self-attention layers read the recorded inputs of reference views beside their own.

After MoAI (arXiv 2506.11924). Two taps, as those of `views.instillation`: `RecordInput` records a layer's input,
`ExtendContext` appends it to another pass's. `References` makes both.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from weftwork.attention_processors.core.conditioning import Branch
from weftwork.attention_processors.views.instillation import Taps, missing
from weftwork.datasets.readers.errors import UserError

InputStore = MutableMapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class RecordInput(Branch):
    """Branch that records a self-attention layer's input, [row, token, dim], by the layer's name."""

    layer: str
    store: InputStore

    def context(self, context: Tensor) -> Tensor:
        self.store[self.layer] = context
        return context


@dataclass(frozen=True, eq=False)
class ExtendContext(Branch):
    """Branch that appends recorded tokens to a self-attention layer's input for keys and values (reference attention).

    Args:
        store: entries of `RecordInput`, by layer, with `views` times as many rows as here, those of a row together.
    """

    layer: str
    store: Mapping[str, Tensor]
    views: int

    def context(self, context: Tensor) -> Tensor:
        if self.layer not in self.store:
            raise UserError(missing(self.layer, "input"))
        kept = self.store[self.layer]
        rows = context.shape[0]
        if kept.shape[0] != rows * self.views or kept.shape[2] != context.shape[2]:
            raise UserError(
                f"{self.layer}: got references of shape {tuple(kept.shape)}, expected {rows} x {self.views} rows of "
                f"width {context.shape[2]}; run the reference pass with all views of these rows"
            )
        return torch.cat([context, kept.to(context.dtype).reshape(rows, -1, kept.shape[2])], 1)


class References:
    """Reference views for a denoiser: layer inputs of a pass over them extend those of the target's pass.

    Args:
        layers: as in `select_layers`; all self-attentions by default.
    """

    def __init__(self, layers: str | Sequence[str] = "self") -> None:
        self.layers = layers
        self.store: dict[str, Tensor] = {}

    def record(self) -> Taps:
        """Branches for the pass over the references; its rows are [target row, view], views of a row together."""
        return Taps(RecordInput, self.layers, {"store": self.store})

    def extend(self, views: int) -> Taps:
        """Branches for passes over the target, with `views` references per row."""
        return Taps(ExtendContext, self.layers, {"store": self.store, "views": views})
