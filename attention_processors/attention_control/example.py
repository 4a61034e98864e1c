"""The smallest use of attention control."""

from typing import Any

from torch import nn

from weftwork.attention_processors.attention_control.adapter import AttentionControlAdapter
from weftwork.attention_processors.attention_control.conditions import Attend
from weftwork.attention_processors.core.example import Example


def example(denoiser: nn.Module) -> Example:
    """Returns an adapter, and conditions of one token of the prompt."""

    def conditions(seed: int, **options: Any) -> list[Attend]:
        return [Attend(tokens=(seed % 3, seed % 3 + 1), **{"end": 1.0, **options})]

    return Example(AttentionControlAdapter.for_denoiser(denoiser), conditions)
