"""The smallest use of regional prompts."""

from typing import Any

from torch import nn

from weftwork.attention_processors.core.example import Example
from weftwork.attention_processors.regional.adapter import RegionalAdapter
from weftwork.attention_processors.regional.conditions import RegionalPrompt


def example(denoiser: nn.Module) -> Example:
    """Returns an adapter, and conditions of one token of the prompt, which no weight turns into the stock model."""

    def conditions(seed: int, **options: Any) -> list[RegionalPrompt]:
        return [RegionalPrompt(tokens=(seed % 3, seed % 3 + 1), **{"weight": 0.5, **options})]

    return Example(RegionalAdapter.for_denoiser(denoiser), conditions, neutral=None)
