"""Reference attention: what a denoiser reads of reference views, beside what it reads of its own.

After MoAI (arXiv 2506.11924). Two taps, as those of `views.instillation`: `RecordInput` keeps what a layer reads,
`ExtendContext` adds it to what another layer reads. `References` ties both together.
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
    """Keeps what a self-attention layer reads, [row, token, dim], under the layer's name."""

    layer: str
    store: InputStore

    def context(self, context: Tensor) -> Tensor:
        self.store[self.layer] = context
        return context


@dataclass(frozen=True, eq=False)
class ExtendContext(Branch):
    """Appends tokens to what a self-attention layer reads: its keys and values come of both (reference attention).

    Args:
        store: where `RecordInput` keeps them; there are `views` times as many rows as here, those of a row together.
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
    """Reference views for a denoiser: what a pass over them reads in its layers extends what the target's layers read.

    Args:
        layers: as in `select_layers`; all self-attentions by default.
    """

    def __init__(self, layers: str | Sequence[str] = "self") -> None:
        self.layers = layers
        self.store: dict[str, Tensor] = {}

    def record(self) -> Taps:
        """For the pass over the references; its rows are [target row, view], views of a row together."""
        return Taps(RecordInput, self.layers, {"store": self.store})

    def extend(self, views: int) -> Taps:
        """For passes over the target; `views` per row."""
        return Taps(ExtendContext, self.layers, {"store": self.store, "views": views})
