"""The smallest use of subjects."""

from typing import Any

import torch
from torch import nn

from weftwork.attention_processors.core.example import Example
from weftwork.attention_processors.subjects.adapter import SubjectAdapter
from weftwork.attention_processors.subjects.conditions import Subject

IMAGE_DIM = 8


def example(denoiser: nn.Module) -> Example:
    """Returns an adapter, and conditions of subjects at the first two tokens of the prompt."""

    def conditions(seed: int, **options: Any) -> list[Subject]:
        embeds = torch.randn(2, IMAGE_DIM, generator=torch.Generator().manual_seed(seed))
        return [Subject(embeds=one, token=token, **options) for token, one in enumerate(embeds)]

    return Example(SubjectAdapter.for_denoiser(denoiser, image_dim=IMAGE_DIM), conditions)
