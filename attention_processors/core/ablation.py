"""Change of a denoiser's prediction when a layer, a head, or a condition in one of them is left out.

For the conditional rows of a call with prediction e, and e' without the part:   |e' - e| / |e|, mean over rows.

Without a head, its output is 0 at the image's places; without a condition in a head, it is that of the branches before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from weftwork.attention_processors.core.branch import Attend, Branch, OwnAttention
from weftwork.attention_processors.core.caches import without_caches
from weftwork.attention_processors.core.call_rows import rows_of
from weftwork.attention_processors.core.conditioning import Conditioning
from weftwork.attention_processors.core.families import sample_of
from weftwork.attention_processors.core.grids import Given
from weftwork.attention_processors.core.processor import conditioned, unwrapped
from weftwork.attention_processors.core.strength import ImageTokens

WHOLE: Final = "attention"
"""Name of a layer's attention with all conditions, among those of the adapters."""

ALL_HEADS: Final = slice(None)


@dataclass(frozen=True, eq=False)
class WithoutHeads(Branch):
    """Branch that leaves heads of the layer out: all that they read, or another branch in them.

    Args:
        branch: a branch that only adds to the output; None for all that the heads read.
        image: place of the image's tokens; None if all queries are the image's.
    """

    linear = True

    heads: int | slice
    branch: Branch | None = None
    image: ImageTokens | None = None

    def read(self, hidden_states: Tensor) -> None:
        if self.branch is not None:
            self.branch.read(hidden_states)

    def mix(self, query: Tensor, out: Tensor, attend: Attend, own: OwnAttention) -> Tensor:
        if self.branch is not None:
            mixed = self.branch.mix(query, out, attend, own).clone()
            mixed[:, :, self.heads] = out[:, :, self.heads]
            return mixed
        begin, end = (0, query.shape[1]) if self.image is None else self.image.span(query.shape[1])
        out = out.clone()
        out[:, begin:end, self.heads] = 0
        return out

    def rows(self, count: int) -> "WithoutHeads":
        return self if self.branch is None else replace(self, branch=self.branch.rows(count))


def only_adds(branch: Branch) -> bool:
    """Whether a branch acts on the layer's output alone, and so by head."""
    kind = type(branch)
    others = kind.qkv, kind.key_bias, kind.residual
    return kind.mix is not Branch.mix and others == (Branch.qkv, Branch.key_bias, Branch.residual)


@dataclass(frozen=True)
class Change:
    """Changes of the prediction by parts of one layer; of no heads for a condition that does not act by head."""

    layer: float
    heads: tuple[float, ...]


class Ablation:
    """A call of a denoiser that is repeated with parts left out.

    Args:
        given: arguments of the call by name.
    """

    def __init__(self, conditioning: Conditioning, denoiser: nn.Module, given: Given) -> None:
        layout = conditioning.layout
        assert layout is not None
        rows = len(sample_of(given)) // len(layout.halves)
        chosen = range(rows * (layout.conditional or 0), rows * ((layout.conditional or 0) + 1))
        inputs = {name: one[list(chosen)] for name, one in conditioning.inputs.items()}
        self.conditioning = replace(conditioning, inputs=inputs, recorder=None)
        self.denoiser, self.given, self.image = denoiser, rows_of(given, chosen), layout.tokens
        self.prediction = self._predicted(conditioning.branches)

    def without(self, name: str) -> float:
        """Returns the change without one adapter."""
        branches, names = self.conditioning.branches, self.conditioning.names
        return self._change({layer: self._others(layer, name) for layer in branches if name in names[layer]})

    def of_layer(self, layer: str, heads: int) -> dict[str, Change]:
        """Returns the changes by parts of a layer: by `WHOLE`, and by adapter.

        Args:
            heads: their number.
        """
        branches = self.conditioning.branches[layer]

        def whole(heads: int | slice) -> float:
            return self._change({layer: (*branches, WithoutHeads(heads, image=self.image))})

        changes = {WHOLE: Change(whole(ALL_HEADS), tuple(map(whole, range(heads))))}
        for index, name in enumerate(self.conditioning.names[layer]):
            of_heads = []
            for head in range(heads) if only_adds(branches[index]) else ():
                without = WithoutHeads(head, branches[index])
                of_heads.append(self._change({layer: (*branches[:index], without, *branches[index + 1 :])}))
            changes[name] = Change(self._change({layer: self._others(layer, name)}), tuple(of_heads))
        return changes

    def _others(self, layer: str, name: str) -> tuple[Branch, ...]:
        """Returns the branches of the other adapters at a layer."""
        named = zip(self.conditioning.names[layer], self.conditioning.branches[layer], strict=True)
        return tuple(branch for other, branch in named if other != name)

    def _change(self, changed: Mapping[str, Sequence[Branch]]) -> float:
        branches = {**self.conditioning.branches, **{layer: tuple(some) for layer, some in changed.items()}}
        difference = (self._predicted(branches) - self.prediction).norm(dim=1)
        return float((difference / self.prediction.norm(dim=1).clamp(min=torch.finfo(torch.float32).tiny)).mean())

    @torch.no_grad()
    def _predicted(self, branches: Mapping[str, tuple[Branch, ...]]) -> Float[Tensor, "row value"]:
        with conditioned(self.denoiser, replace(self.conditioning, branches=branches)), without_caches(self.denoiser):
            out: Any = unwrapped(self.denoiser).forward(**self.given)[0]
        return (torch.stack(out) if isinstance(out, list) else out).float().flatten(1)
