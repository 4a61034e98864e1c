"""Attention of training in bfloat16 on a CPU, where the backward pass of torch's fused kernel is slow.

For each new shape that kernel compiles matrix products, which takes longer than most of them. Explicit attention takes
less time, and the memory of its probabilities: sequences that are too long for that keep the fused kernel.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

MOST: Final = 2**25
"""Probabilities of a call, 64 MiB."""


class _Explicit(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        given = kwargs or {}
        if func is scaled_dot_product_attention and _probabilities(*args, **given) <= MOST:
            with sdpa_kernel(SDPBackend.MATH):
                return func(*args, **given)
        return func(*args, **given)


def _probabilities(query: object, key: object, *_: object, **__: object) -> int:
    assert isinstance(query, Tensor) and isinstance(key, Tensor)
    return query[..., 0].numel() * key.shape[-2]


@contextmanager
def explicit_attention(*, wanted: bool) -> Iterator[None]:
    """Computes attention explicitly, in the dtype of its queries, where its probabilities need little memory."""
    if not wanted:
        yield
        return
    reduced = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)  # of all devices, in spite of its place
    try:
        with _Explicit():
            yield
    finally:
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(reduced)
