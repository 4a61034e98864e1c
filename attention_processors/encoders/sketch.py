"""A frozen vision transformer of `transformers` as encoder of sketches."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from weftwork.attention_processors.encoders.image import normalized


class SketchEncoder:
    """A frozen vision transformer of `transformers` (DINOv2 in LOTS) as encoder of sketches.

    Args:
        model: returns `last_hidden_state` for normalised images [image, 3, size, size].
        mean, std: per channel normalisation.
    """

    def __init__(
        self,
        model: Any,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.mean, self.std = mean, std

    @classmethod
    def from_pretrained(cls, name: str, revision: str | None = None) -> "SketchEncoder":
        """Load for example "facebook/dinov2-small" from the Hub or a folder; safetensors only."""
        from transformers import AutoModel

        return cls(AutoModel.from_pretrained(name, revision=revision, use_safetensors=True))

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "image 3 size size"]) -> Float[Tensor, "image token dim"]:
        """Returns all final states of images in [0, 1]."""
        parameter = next(self.model.parameters())
        normal = normalized(images, self.mean, self.std)
        return self.model(normal.to(parameter.device, parameter.dtype)).last_hidden_state
