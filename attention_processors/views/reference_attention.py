"""Reference attention: self-attention layers read the recorded inputs of reference views beside their own.

After MoAI (arXiv 2506.11924). Two taps, as those of `views.instillation`: `RecordInput` records a layer's input,
`ExtendContext` appends it to another pass's. `References` makes both.
"""

from collections.abc import Collection, Mapping, MutableMapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from weftwork.attention_processors.core.branch import Branch, Project
from weftwork.attention_processors.core.captured import ReadCaptured
from weftwork.attention_processors.core.layers import select_names
from weftwork.attention_processors.views.instillation import Taps, missing
from weftwork.datasets.readers.errors import UserError

InputStore = MutableMapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class RecordInput(Branch):
    """Branch that records a self-attention layer's input, [row, token, dim], by the layer's name."""

    layer: str
    store: InputStore
    kept_as: torch.dtype | None = None

    def read(self, hidden_states: Tensor) -> None:
        self.store[self.layer] = hidden_states.to(self.kept_as or hidden_states.dtype)


@dataclass(frozen=True, eq=False)
class ExtendContext(Branch):
    """Branch that appends recorded tokens to a self-attention layer's input for keys and values (reference attention).

    Args:
        store: entries of `RecordInput`, by layer, with `views` times as many rows as here, those of a row together.
    """

    layer: str
    store: Mapping[str, Tensor]
    views: int

    def qkv(self, query: Tensor, key: Tensor, value: Tensor, project: Project) -> tuple[Tensor, Tensor, Tensor]:
        more = self.projected(query, project)
        return query, torch.cat([key, more[0]], 1), torch.cat([value, more[1]], 1)

    def projected(self, query: Tensor, project: Project) -> tuple[Tensor, Tensor]:
        """Returns keys and values of the recorded tokens."""
        if self.layer not in self.store:
            raise UserError(missing(self.layer, "input"))
        kept, rows = self.store[self.layer], query.shape[0]
        if kept.shape[0] != rows * self.views:
            raise UserError(
                f"{self.layer}: got references of shape {tuple(kept.shape)}, expected {rows} x {self.views} rows; run "
                "the reference pass with all views of these rows"
            )
        return project(kept.to(query.dtype).reshape(rows, -1, kept.shape[2]))


@dataclass(frozen=True, eq=False, kw_only=True)
class ReadReferences(ReadCaptured):
    """Branch that reads recorded tokens at the strength of their views.

    Args:
        context: the recorded tokens.
        image_key: the image role's key of the recorded tokens, which replaces the layer's own.
    """

    context: ExtendContext
    image_key: Tensor | None = None

    def qkv(self, query: Tensor, key: Tensor, value: Tensor, project: Project) -> tuple[Tensor, Tensor, Tensor]:
        own, values = self.context.projected(query, project)
        self.captured.tokens = own if self.image_key is None else self.image_key, values
        return query, key, value


class References:
    """Reference views for a denoiser: layer inputs of a pass over them extend those of the target's pass.

    Args:
        layers: as in `select_layers`; all self-attentions by default.
        kept_as: precision in which inputs are kept; None is their own. The authors' code keeps them in float16.
    """

    def __init__(self, layers: str | Sequence[str] = "self", *, kept_as: torch.dtype | None = None) -> None:
        self.layers, self.kept_as = layers, kept_as
        self.store: dict[str, Tensor] = {}

    def names(self, known: Collection[str]) -> list[str]:
        """Returns the names of the layers among those of a denoiser; none without any."""
        return select_names(list(known), self.layers) if known else []

    def record(self) -> Taps:
        """Branches for the pass over the references; its rows are [target row, view], views of a row together."""
        return Taps(RecordInput, self.layers, {"store": self.store, "kept_as": self.kept_as})

    def extend(self, views: int) -> Taps:
        """Branches for passes over the target, with `views` references per row."""
        return Taps(ExtendContext, self.layers, {"store": self.store, "views": views})
