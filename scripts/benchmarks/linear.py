"""Benchmark of linear attention over the softmax of PyTorch, by queries and keys of a branch.

Linear attention is Hedgehog's (arXiv 2402.04347): with features f(x) = [softmax(x W), softmax(-x W)] of twice the width
of a head, out = f(Q) (f(K)^T V) / (f(Q) sum f(K)). Its weights are random here: only its time is measured. The features
of keys are computed anew, as for attention to the image itself.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from weftwork.scripts.benchmarks.timing import interleaved, ratios

HEADS, DIM = 8, 64
"""Of Stable Diffusion XL's layers: heads of 64."""
QUERIES = (1024, 4096)
KEYS = (16, 77, 256, 512, 1024, 4096)


def features(x: Float[Tensor, "row head token dim"], weight: Float[Tensor, "head dim dim"]) -> Tensor:
    """Returns Hedgehog's features, positive and of twice the width."""
    x = x @ weight
    return torch.cat([x.softmax(-1), (-x).softmax(-1)], -1)


def linear_attention(query: Tensor, key: Tensor, value: Tensor, weight: Tensor) -> Float[Tensor, "row head token dim"]:
    query, key = features(query, weight), features(key, weight)
    return (query @ (key.transpose(-1, -2) @ value)) / (query @ key.sum(-2).unsqueeze(-1))


@torch.inference_mode()
def measure(size: str, rounds: int) -> dict[str, dict[str, float]]:
    """Returns times of linear attention by numbers of queries and keys, as ratios to softmax attention."""
    rows: dict[str, dict[str, float]] = {}
    weight = torch.randn(HEADS, DIM, DIM) * DIM**-0.5
    for queries in QUERIES[: 1 if size == "tiny" else None]:
        for keys in KEYS[: 2 if size == "tiny" else None]:
            query, key, value = (torch.randn(1, HEADS, count, DIM) for count in (queries, keys, keys))
            tasks: dict[str, Callable[[], object]] = {
                "softmax": partial(F.scaled_dot_product_attention, query, key, value),
                "linear": partial(linear_attention, query, key, value, weight),
            }
            rows[f"queries_{queries}_keys_{keys}"] = ratios(interleaved(rounds, **tasks), "softmax")["linear"]
    return rows
