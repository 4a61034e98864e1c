"""Batch-invariant layers: results for one item of a batch are bit-equal whatever the other items.

Libraries choose kernels, and split work among threads, by the size of the whole batch, so the last bits of one item's
result depend on the number of items. These layers avoid that in float32 on the CPU while no gradients are recorded. In
training, on other devices and in other dtypes they are the plain ones, and items agree up to rounding.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn


class BatchInvariantLinear(nn.Linear):
    """Batch-invariant `nn.Linear`.

    A matrix product chooses its kernel, and so its order of summation, by the number of all rows; a batched product by
    the rows of one item. On one thread that is measured, not guaranteed by the library: bit-equal with MKL's AVX-512,
    AVX2 and SSE4.2 kernels for widths to 256 (1 to 101 rows, to 32 items) and 2048 (to 293 rows, to 4 items), where the
    plain product differs for up to four fifths of the sizes. On several threads, which split one product when items are
    few, each item is a call of its own.
    """

    def forward(self, input: Float[Tensor, "item token dim"]) -> Float[Tensor, "item token out"]:
        if not is_exact(input):
            return super().forward(input)
        if torch.get_num_threads() > 1:
            return item_by_item(super().forward, input)
        weight = self.weight.T.expand(input.shape[0], -1, -1)
        return torch.bmm(input, weight) if self.bias is None else torch.baddbmm(self.bias, input, weight)


class MultiHeadAttention(nn.Module):
    """Multi-head attention to a context; `bias` is that of the query, key and value projections."""

    def __init__(self, dim: int, num_heads: int, *, bias: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = BatchInvariantLinear(dim, dim, bias=bias)
        self.key = BatchInvariantLinear(dim, dim, bias=bias)
        self.value = BatchInvariantLinear(dim, dim, bias=bias)
        self.output = BatchInvariantLinear(dim, dim)

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
    """Computes the exact GELU, batch-invariant: threads split a batch by its size, which changes bits at the splits."""
    return item_by_item(F.gelu, tokens) if is_exact(tokens) else F.gelu(tokens)


def is_exact(tokens: Tensor) -> bool:
    """Whether results are batch-invariant to the last bit: in float32 on the CPU, without gradients."""
    return tokens.device.type == "cpu" and tokens.dtype == torch.float32 and not torch.is_grad_enabled()


def item_by_item(
    function: Callable[[Tensor], Tensor], items: Float[Tensor, "item token dim"]
) -> Float[Tensor, "item token out"]:
    """Computes `function(items)` by one call per item."""
    return torch.stack([function(item) for item in items]) if len(items) > 1 else function(items)
