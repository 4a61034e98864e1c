"""The smallest use of styles."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from weftwork.attention_processors.core.example import Example
from weftwork.attention_processors.core.families import base_description
from weftwork.attention_processors.style.adapter import StyleAdapter
from weftwork.attention_processors.style.conditions import Style

STYLES = ("ink", "pastel", "neon")


def example(denoiser: nn.Module, layers: str | Sequence[str] = "all") -> Example:
    """Returns an adapter of three styles, and conditions of two."""
    width = base_description(denoiser)["context_dim"]
    sizes = {"style_dim": 8, "token_dim": width or 16, "num_tokens": 2}
    adapter = StyleAdapter.for_denoiser(denoiser, layers=layers, styles=STYLES, **sizes)

    def conditions(seed: int, **options: Any) -> list[Style]:
        first, second = STYLES[seed % 3], STYLES[(seed + 1) % 3]
        return [Style(first, **options), Style({first: 1, second: 3}, **options)]

    return Example(adapter, conditions)
