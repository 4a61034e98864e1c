"""Layers whose results for one item of a batch do not depend on the others, to the last bit.

On paper no layer of a transformer mixes the items of a batch. In numbers most do: kernels are picked, and work is cut
into pieces, by the size of the whole batch, so the last bits of one item follow the number of its neighbours.
The layers here avoid that in float32 on the CPU while no gradients are recorded. In training, on other devices and in
other dtypes they are the plain ones, and items agree up to rounding.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn


class PerItemLinear(nn.Linear):
    """A `Linear` whose items get the same bits in any batch.

    A matrix product picks its kernel, and so the order of its sums, by the number of all rows; a batch of products by
    the rows of one item. On one thread that is measured, not promised by the library: bit-equal with MKL's
    AVX-512, AVX2 and SSE4.2 kernels for widths to 256 (1 to 101 rows, to 32 items) and 2048 (to 293 rows, to 4 items),
    where the plain product differs in up to four fifths of the sizes. On several threads, which share one product when
    items are few, each item is a call of its own.
    """

    def forward(self, input: Float[Tensor, "item token dim"]) -> Float[Tensor, "item token out"]:
        if not is_exact(input):
            return super().forward(input)
        if torch.get_num_threads() > 1:
            return item_by_item(super().forward, input)
        weight = self.weight.T.expand(input.shape[0], -1, -1)
        return torch.bmm(input, weight) if self.bias is None else torch.baddbmm(self.bias, input, weight)


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


def gelu(tokens: Float[Tensor, "item token dim"]) -> Float[Tensor, "item token dim"]:
    """The exact GELU; threads cut a batch where its size says, and the ends of the pieces get other bits."""
    return item_by_item(F.gelu, tokens) if is_exact(tokens) else F.gelu(tokens)


def is_exact(tokens: Tensor) -> bool:
    """Whether results are batch-invariant to the last bit: in float32 on the CPU, without gradients."""
    return tokens.device.type == "cpu" and tokens.dtype == torch.float32 and not torch.is_grad_enabled()


def item_by_item(
    function: Callable[[Tensor], Tensor], items: Float[Tensor, "item token dim"]
) -> Float[Tensor, "item token out"]:
    """The same as `function(items)`, one call per item."""
    return torch.stack([function(item) for item in items]) if len(items) > 1 else function(items)
