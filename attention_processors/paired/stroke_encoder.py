"""A small sketch encoder that is trained with the adapter."""

from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F


class StrokeEncoder(nn.Module):
    """A small trained encoder of sketches: strokes and hull to a grid of tokens, one per `patch` x `patch` pixels."""

    def __init__(self, dim: int, size: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        widths = (2, 24, 48, 96, dim)
        stages = [
            layer
            for stage, (before, after) in enumerate(pairwise(widths))
            for layer in (nn.Conv2d(before, after, 3, stride=2 if patch >> stage > 1 else 1, padding=1), nn.SiLU())
        ]
        self.stages = nn.Sequential(*stages, nn.Conv2d(dim, dim, 3, padding=1))
        self.position = nn.Parameter(torch.randn(1, (size // patch) ** 2, dim) * 0.02)

    def forward(self, sketches: Float[Tensor, "sketch 2 size size"]) -> Float[Tensor, "sketch token dim"]:
        return self.stages(sketches).flatten(2).transpose(1, 2) + self.position

    def drawn(self, sketches: Float[Tensor, "sketch 2 size size"]) -> Bool[Tensor, "sketch token"]:
        """Mask of tokens whose part of a sketch has strokes or their hull."""
        return F.max_pool2d(sketches.amax(1), self.patch).flatten(1) > 0
