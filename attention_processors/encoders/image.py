"""A frozen CLIP or SigLIP vision model as encoder of reference images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def normalized(
    images: Float[Tensor, "image 3 size size"], mean: Sequence[float], std: Sequence[float]
) -> Float[Tensor, "image 3 size size"]:
    """Normalises images in [0, 1] per channel."""
    centre, scale = (images.new_tensor(values).view(3, 1, 1) for values in (mean, std))
    return (images - centre) / scale


def clip_normalized(images: Float[Tensor, "image 3 size size"]) -> Float[Tensor, "image 3 size size"]:
    """Normalises images in [0, 1] as CLIP's vision models do."""
    return normalized(images, CLIP_MEAN, CLIP_STD)


class ImageEncoder:
    """A frozen vision model of `transformers` as encoder of reference images, as in IP-Adapter (arXiv 2308.06721).

    Args:
        model: a `CLIPVisionModelWithProjection` or `SiglipVisionModel`.
        mean, std: per channel normalisation; CLIP's by default.
    """

    def __init__(
        self,
        model: Any,
        mean: Sequence[float] = CLIP_MEAN,
        std: Sequence[float] = CLIP_STD,
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.mean, self.std = mean, std
        self._null: Tensor | None = None

    @classmethod
    def from_pretrained(cls, name: str, revision: str | None = None) -> "ImageEncoder":
        """Load a folder, "owner/repository", or "owner/repository/folder/in/it" on the Hub; safetensors only."""
        from transformers import AutoConfig, CLIPVisionModelWithProjection, SiglipVisionModel

        parts = [name, ""] if Path(name).is_dir() else ["/".join(name.split("/")[:2]), "/".join(name.split("/")[2:])]
        place: dict[str, Any] = {"subfolder": parts[1], "revision": revision or "main"}
        siglip = AutoConfig.from_pretrained(parts[0], **place).model_type.startswith("siglip")
        kind = SiglipVisionModel if siglip else CLIPVisionModelWithProjection
        model = kind.from_pretrained(parts[0], use_safetensors=True, **place)
        return cls(model, *[(0.5, 0.5, 0.5)] * 2) if siglip else cls(model)

    @torch.no_grad()
    def pooled(self, images: Float[Tensor, "image 3 size size"]) -> Float[Tensor, "image dim"]:
        """Returns one vector per image in [0, 1]: projected by CLIP, pooled by SigLIP."""
        out = self.model(self._normal(images))
        return out.image_embeds if hasattr(out, "image_embeds") else out.pooler_output

    @torch.no_grad()
    def states(self, images: Float[Tensor, "image 3 size size"]) -> Float[Tensor, "image token dim"]:
        """Returns the penultimate states of images in [0, 1]."""
        return self.model(self._normal(images), output_hidden_states=True).hidden_states[-2]

    @torch.no_grad()
    def null_states(self) -> Float[Tensor, "token dim"]:
        """Returns the penultimate states of an image of zeros (after normalisation), encoded once."""
        parameter = next(self.model.parameters())
        null, size = self._null, self.model.config.image_size
        if null is None:
            zeros = parameter.new_zeros(1, 3, size, size)
            self._null = null = self.model(zeros, output_hidden_states=True).hidden_states[-2][0]
        return null.to(parameter.device, parameter.dtype)

    def _normal(self, images: Tensor) -> Tensor:
        parameter = next(self.model.parameters())
        normal = normalized(images, self.mean, self.std)
        return normal.to(parameter.device, parameter.dtype)
