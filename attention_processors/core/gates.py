"""Gates of branches: learned, zero-initialised factors with which training starts at the frozen model.

With the layer's own attention A, that to the condition's tokens A_c, and the gain a (weight, region and schedule):

    exclusive   out + a g (A_c - A),   g one number per layer: at a g = 1 the condition stands in the text's place
    affine      out + a (alpha A_c + beta sum_s V_s),   alpha = tanh(q w_h / sqrt(d) + b),   beta = (m - alpha) / S

Both leave out as it is, bit for bit, where a or the gate is 0. Affine attention is exactly (alpha P + beta) V, with the
softmax P over S tokens, without a map: alpha, by query and head, scales what deviates from uniform attention; the
weights of every query add up to m. Masked tokens are in no sum.

Source: exclusive gates of Theme Transformer (arXiv 2111.04093), whose inclusive ones are out + a A_c; Affine-Scaled
Attention (arXiv 2602.23057).
Differs: Theme Transformer's gate is 0 or 1 by region and both halves are scaled by 1/2. Alpha is linear in the layer's
queries instead of its input, and m is learned, one number per layer, instead of a running mean by head.
"""

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from weftwork.attention_processors.core.branch import Attend, DecoupledBranch, OwnAttention

AFFINE = 2
"""Numbers of an affine gate behind its factors on queries: b and m."""


@dataclass(frozen=True, eq=False)
class GatedBranch(DecoupledBranch):
    """Base class of branches with a learned gate."""

    gate: Tensor = field(kw_only=True)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "GatedBranch":
        moved: DecoupledBranch = super().to(device, dtype)
        return replace(moved, gate=self.gate.to(device))  # pyright: ignore[reportReturnType]


class ExclusiveBranch(GatedBranch):
    """Branch in the place of the layer's own attention; `gate` is one number."""

    def added(self, query: Tensor, attend: Attend, own: OwnAttention) -> Tensor:
        return self.gate.to(query.dtype) * (super().added(query, attend, own) - own.out)


class AffineBranch(GatedBranch):
    """Branch with affine-scaled attention; `gate` is [inner + 2]: w of all heads, b and m."""

    def added(self, query: Tensor, attend: Attend, own: OwnAttention) -> Tensor:
        key, value, bias = self.tokens(query)
        gate, heads, dim = self.gate.to(query.dtype), *query.shape[2:]
        factors = gate[:-AFFINE].unflatten(0, (-1, dim)).repeat_interleave(heads // key.shape[2], 0)
        level, alpha = gate[-1], ((query * factors).sum(-1, keepdim=True) * dim**-0.5 + gate[-AFFINE]).tanh()
        total, count = _sums(value, bias)
        total = total.repeat_interleave(heads // key.shape[2], 2)
        return alpha * attend(query, key, value, bias) + (level - alpha) / count * total


def _sums(
    value: Float[Tensor, "row token head dim"], bias: Float[Tensor, "row 1 place token"] | None
) -> tuple[Float[Tensor, "row place head dim"], Float[Tensor, "row place 1 1"]]:
    """Returns sums of values over the tokens that each place may read, and their number."""
    if bias is None:
        return value.sum(1, keepdim=True), value.new_full((1, 1, 1, 1), value.shape[1])
    seen = (bias[:, 0] > -torch.inf).to(value.dtype)
    return torch.einsum("rpt,rthd->rphd", seen, value), seen.sum(-1)[..., None, None]
