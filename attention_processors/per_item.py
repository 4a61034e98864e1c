"""Layers whose results for one item of a batch do not depend on the others, to the last bit.

On paper no layer of a transformer mixes the items of a batch. In numbers most do: kernels are picked, and work is cut
into pieces, by the size of the whole batch, so the last bits of one item follow the number of its neighbours.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn


def is_exact(tokens: Tensor) -> bool:
    """Where items are kept apart to the last bit: float32 on the CPU."""
    return tokens.device.type == "cpu" and tokens.dtype == torch.float32


class PerItemLinear(nn.Linear):
    """A `Linear` whose items get the same bits in any batch, in float32 on the CPU.

    A matrix product picks its kernel, and so the order of its sums, by the number of rows; a batch of products picks it
    by the rows of one item. This is measured, not promised by the libraries: bit-equal with MKL's AVX-512, AVX2 and
    SSE4.2 kernels, on one and two threads, for widths to 256 (1 to 101 rows, to 32 items) and 2048 (to 293 rows, to 4
    items), where the plain product differs in a sixth to four fifths of the sizes. Other devices and dtypes run the
    plain product, and items agree up to rounding. The price is one weight gradient per item before they are summed.
    """

    def forward(self, input: Float[Tensor, "item token dim"]) -> Float[Tensor, "item token out"]:
        if not is_exact(input):
            return super().forward(input)
        weight = self.weight.T.expand(input.shape[0], -1, -1)
        return torch.bmm(input, weight) if self.bias is None else torch.baddbmm(self.bias, input, weight)


def gelu(tokens: Float[Tensor, "item token dim"]) -> Float[Tensor, "item token dim"]:
    """The exact GELU, item by item where bits count: threads cut a whole batch at places that depend on its size."""
    if not is_exact(tokens) or len(tokens) < 2:
        return F.gelu(tokens)
    return torch.stack([F.gelu(item) for item in tokens])


class MultiHeadAttention(nn.Module):
    """softmax(Q K^T / sqrt(d)) V over a context; `bias` is that of queries, keys and values."""

    def __init__(self, dim: int, num_heads: int, *, bias: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = PerItemLinear(dim, dim, bias=bias)
        self.key = PerItemLinear(dim, dim, bias=bias)
        self.value = PerItemLinear(dim, dim, bias=bias)
        self.output = PerItemLinear(dim, dim)

    def forward(
        self,
        tokens: Float[Tensor, "item token dim"],
        context: Float[Tensor, "item context_token dim"],
        mask: Bool[Tensor, "item 1 place context_token"] | None = None,
    ) -> Float[Tensor, "item token dim"]:
        projected = self.query(tokens), self.key(context), self.value(context)
        query, key, value = (x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in projected)
        return self.output(F.scaled_dot_product_attention(query, key, value, mask).transpose(1, 2).flatten(2))
