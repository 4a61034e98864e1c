"""The smallest use of expressions."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from weftwork.attention_processors.core.example import Example
from weftwork.attention_processors.core.families import base_description
from weftwork.attention_processors.expressions.adapter import ExpressionAdapter
from weftwork.attention_processors.expressions.conditions import Expression

NAMES = ("smile", "fear", "rage")


def example(denoiser: nn.Module, layers: str | Sequence[str] = "all") -> Example:
    """Returns an adapter of three expressions, and conditions of two."""
    width = base_description(denoiser)["context_dim"] or 16
    sizes = {"prior_dim": 8, "hidden_dim": 16, "num_tokens": 2, "num_codes": 4, "num_heads": 1, "token_dim": width}
    adapter = ExpressionAdapter.for_denoiser(denoiser, layers=layers, expressions=NAMES, **sizes)

    def conditions(seed: int, **options: Any) -> list[Expression]:
        first, second = NAMES[seed % 3], NAMES[(seed + 1) % 3]
        return [Expression(first, **options), Expression({first: 1, second: 3}, **options)]

    return Example(adapter, conditions)
