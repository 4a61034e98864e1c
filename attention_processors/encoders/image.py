"""Frozen vision models of `transformers` as encoders of reference images and of sketches."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from weftwork.pretrained import located

if TYPE_CHECKING:
    from transformers import CLIPVisionModelWithProjection, PreTrainedModel, SiglipVisionModel

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def unit_tensor(image: Image.Image) -> Float[Tensor, "3 height width"]:
    """Returns an image as RGB in [0, 1]."""
    return torch.from_numpy(np.array(image.convert("RGB"), np.float32) / 255).permute(2, 0, 1)


def normalized(
    images: Float[Tensor, "image 3 size size"], mean: Sequence[float], std: Sequence[float]
) -> Float[Tensor, "image 3 size size"]:
    """Normalises images in [0, 1] per channel."""
    centre, scale = (images.new_tensor(values).view(3, 1, 1) for values in (mean, std))
    return (images - centre) / scale


def clip_normalized(images: Float[Tensor, "image 3 size size"]) -> Float[Tensor, "image 3 size size"]:
    """Normalises images in [0, 1] as CLIP's vision models do."""
    return normalized(images, CLIP_MEAN, CLIP_STD)


class VisionEncoder:
    """A frozen vision model, with mean and deviation of its inputs per channel."""

    def __init__(self, model: "PreTrainedModel", mean: Sequence[float], std: Sequence[float]) -> None:
        self.model = model.eval().requires_grad_(False)
        self.mean, self.std = mean, std

    def normalized(self, images: Float[Tensor, "image 3 size size"]) -> Float[Tensor, "image 3 size size"]:
        """Returns images in [0, 1] as the model takes them."""
        parameter = next(self.model.parameters())
        return normalized(images, self.mean, self.std).to(parameter.device, parameter.dtype)


class ImageEncoder(VisionEncoder):
    """A frozen CLIP or SigLIP vision model as encoder of reference images, as in IP-Adapter (arXiv 2308.06721)."""

    def __init__(
        self,
        model: "CLIPVisionModelWithProjection | SiglipVisionModel",
        mean: Sequence[float] = CLIP_MEAN,
        std: Sequence[float] = CLIP_STD,
    ) -> None:
        super().__init__(model, mean, std)
        self._null: Tensor | None = None

    @classmethod
    def from_pretrained(cls, name: str, revision: str | None = None) -> Self:
        """Load a folder (also of a training run), the name of a shipped model, "owner/repository" or
        "owner/repository/folder/in/it" on the Hub; safetensors only."""
        from transformers import AutoConfig, CLIPVisionModelWithProjection, SiglipVisionModel

        name = str(located(name))
        parts = [name, ""] if Path(name).is_dir() else ["/".join(name.split("/")[:2]), "/".join(name.split("/")[2:])]
        place: dict[str, Any] = {"subfolder": parts[1], "revision": revision or "main"}
        siglip = AutoConfig.from_pretrained(parts[0], **place).model_type.startswith("siglip")
        kind = SiglipVisionModel if siglip else CLIPVisionModelWithProjection
        model = kind.from_pretrained(parts[0], use_safetensors=True, **place)
        return cls(model, *[(0.5, 0.5, 0.5)] * 2) if siglip else cls(model)

    @torch.no_grad()
    def pooled(self, images: Float[Tensor, "image 3 size size"]) -> Float[Tensor, "image dim"]:
        """Returns one vector per image in [0, 1]: projected by CLIP, pooled by SigLIP."""
        out = self.model(self.normalized(images))
        return out.image_embeds if hasattr(out, "image_embeds") else out.pooler_output

    @torch.no_grad()
    def states(self, images: Float[Tensor, "image 3 size size"]) -> Float[Tensor, "image token dim"]:
        """Returns the penultimate states of images in [0, 1]."""
        return self.model(self.normalized(images), output_hidden_states=True).hidden_states[-2]

    @torch.no_grad()
    def null_states(self) -> Float[Tensor, "token dim"]:
        """Returns the penultimate states of an image of zeros (after normalisation), encoded once."""
        parameter = next(self.model.parameters())
        null, size = self._null, self.model.config.image_size
        if null is None:
            zeros = parameter.new_zeros(1, 3, size, size)
            self._null = null = self.model(zeros, output_hidden_states=True).hidden_states[-2][0]
        return null.to(parameter.device, parameter.dtype)


class SketchEncoder(VisionEncoder):
    """A frozen vision transformer (DINOv2 in LOTS) as encoder of sketches.

    Args:
        model: returns `last_hidden_state` for normalised images [image, 3, size, size].
    """

    def __init__(
        self, model: "PreTrainedModel", mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
    ) -> None:
        super().__init__(model, mean, std)

    @classmethod
    def from_pretrained(cls, name: str, revision: str | None = None) -> Self:
        """Load for example "facebook/dinov2-small" from the Hub or a folder; safetensors only."""
        from transformers import AutoModel

        return cls(AutoModel.from_pretrained(str(located(name)), revision=revision, use_safetensors=True))

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "image 3 size size"]) -> Float[Tensor, "image token dim"]:
        """Returns all final states of images in [0, 1]."""
        return self.model(self.normalized(images)).last_hidden_state
