"""The smallest use of reference images."""

from typing import Any

import torch
from torch import nn

from weftwork.attention_processors.core.example import Example
from weftwork.attention_processors.core.families import base_description
from weftwork.attention_processors.reference.adapter import ReferenceAdapter
from weftwork.attention_processors.reference.conditions import Reference

IMAGE_DIM = 8


def example(denoiser: nn.Module) -> Example:
    """Returns an adapter that reads pooled features, and conditions of two references."""
    width = base_description(denoiser)["context_dim"]
    adapter = ReferenceAdapter.for_denoiser(denoiser, image_dim=IMAGE_DIM, token_dim=width or 16, num_tokens=2)

    def conditions(seed: int, **options: Any) -> list[Reference]:
        embeds = torch.randn(2, IMAGE_DIM, generator=torch.Generator().manual_seed(seed))
        return [Reference(embeds=one, **options) for one in embeds]

    return Example(adapter, conditions)
