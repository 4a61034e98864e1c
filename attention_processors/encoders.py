"""Frozen encoders that adapters read through: a pipeline's own text encoders, and vision models by name."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def normalized(
    pictures: Float[Tensor, "picture 3 size size"], mean: Sequence[float], std: Sequence[float]
) -> Float[Tensor, "picture 3 size size"]:
    """Pictures in [0, 1] as a vision model was trained on them, channel by channel."""
    centre, scale = (pictures.new_tensor(values).view(3, 1, 1) for values in (mean, std))
    return (pictures - centre) / scale


def clip_normalized(pictures: Float[Tensor, "picture 3 size size"]) -> Float[Tensor, "picture 3 size size"]:
    """As the vision models of CLIP read them."""
    return normalized(pictures, CLIP_MEAN, CLIP_STD)


class TextEncoders:
    """The text encoders of a pipeline, one or two of them, as encoders of short descriptions.

    Vectors and token states of several encoders are concatenated along the last dimension, as SDXL does it.
    """

    def __init__(self, tokenizers: Sequence[Any], models: Sequence[Any], device: torch.device | str = "cpu") -> None:
        self.tokenizers, self.models, self.device = list(tokenizers), list(models), device

    @classmethod
    def of(cls, pipe: Any) -> "TextEncoders":
        """Those of a diffusers pipeline."""
        suffixes = [s for s in ("", "_2") if getattr(pipe, f"text_encoder{s}", None) is not None]
        return cls(
            [getattr(pipe, f"tokenizer{s}") for s in suffixes],
            [getattr(pipe, f"text_encoder{s}") for s in suffixes],
            pipe._execution_device,
        )

    @torch.no_grad()
    def pooled(self, texts: Sequence[str]) -> Float[Tensor, "text dim"]:
        """One vector per text: the final state at the end token, projected where the encoder does (as LOTS's code)."""
        vectors = []
        for tokenizer, model in zip(self.tokenizers, self.models, strict=True):
            output = model(self._ids(tokenizer, texts))
            projected = getattr(output, "text_embeds", None)
            vectors.append(output.pooler_output if projected is None else projected)
        return torch.cat(vectors, -1)

    @torch.no_grad()
    def tokens(
        self, texts: Sequence[str], length: int
    ) -> tuple[Float[Tensor, "text token dim"], Bool[Tensor, "text token"]]:
        """Final states of the first `length` tokens, and which of them belong to the text.

        Raises:
            ValueError: a text that has more.
        """
        states, mask = [], None
        for tokenizer, model in zip(self.tokenizers, self.models, strict=True):
            ids = self._ids(tokenizer, texts, length)
            states.append(model(ids).last_hidden_state)
            if mask is None:
                ends = (ids == tokenizer.eos_token_id).int().argmax(1)
                mask = torch.arange(length, device=ids.device)[None] <= ends[:, None]
        assert mask is not None
        return torch.cat(states, -1), mask

    @property
    def longest(self) -> int:
        """How many tokens a prompt may have, its beginning and end among them."""
        return min(tokenizer.model_max_length for tokenizer in self.tokenizers)

    def count(self, text: str) -> int:
        """How many tokens a text is, its beginning and end among them; the most of all encoders."""
        return max(len(tokenizer(text).input_ids) for tokenizer in self.tokenizers)

    def _ids(self, tokenizer: Any, texts: Sequence[str], length: int | None = None) -> Tensor:
        length = int(length or tokenizer.model_max_length)
        for text, ids in zip(texts, tokenizer(list(texts)).input_ids, strict=True):
            if len(ids) > length:
                raise ValueError(
                    f"text: {text[:60]!r} has {len(ids) - 2} tokens, expected at most {length - 2}; shorten it"
                )
        padded = tokenizer(list(texts), padding="max_length", max_length=length, return_tensors="pt")
        return padded.input_ids.to(self.device)


class SketchEncoder:
    """A frozen vision transformer of `transformers` (DINOv2, as LOTS uses it) on sketches.

    Args:
        model: gives `last_hidden_state` for normalised pictures [picture, 3, size, size].
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
    def __call__(self, pictures: Float[Tensor, "picture 3 size size"]) -> Float[Tensor, "picture token dim"]:
        """All final states; `pictures` are in [0, 1]."""
        parameter = next(self.model.parameters())
        normal = normalized(pictures, self.mean, self.std)
        return self.model(normal.to(parameter.device, parameter.dtype)).last_hidden_state


class ImageEncoder:
    """A frozen CLIP vision model of `transformers` on reference pictures, as IP-Adapter (arXiv 2308.06721) reads them.

    Args:
        model: a `CLIPVisionModelWithProjection`.
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
        from transformers import CLIPVisionModelWithProjection

        parts = [name, ""] if Path(name).is_dir() else ["/".join(name.split("/")[:2]), "/".join(name.split("/")[2:])]
        return cls(
            CLIPVisionModelWithProjection.from_pretrained(
                parts[0], subfolder=parts[1], revision=revision or "main", use_safetensors=True
            )
        )

    @torch.no_grad()
    def pooled(self, pictures: Float[Tensor, "picture 3 size size"]) -> Float[Tensor, "picture dim"]:
        """One projected vector per picture; `pictures` are in [0, 1]."""
        return self.model(self._normal(pictures)).image_embeds

    @torch.no_grad()
    def states(self, pictures: Float[Tensor, "picture 3 size size"]) -> Float[Tensor, "picture token dim"]:
        """The states before the last block; `pictures` are in [0, 1]."""
        return self.model(self._normal(pictures), output_hidden_states=True).hidden_states[-2]

    @torch.no_grad()
    def null_states(self) -> Float[Tensor, "token dim"]:
        """The states of a picture of zeros after normalisation, encoded once."""
        parameter = next(self.model.parameters())
        null, size = self._null, self.model.config.image_size
        if null is None:
            zeros = parameter.new_zeros(1, 3, size, size)
            self._null = null = self.model(zeros, output_hidden_states=True).hidden_states[-2][0]
        return null.to(parameter.device, parameter.dtype)

    def _normal(self, pictures: Tensor) -> Tensor:
        parameter = next(self.model.parameters())
        normal = normalized(pictures, self.mean, self.std)
        return normal.to(parameter.device, parameter.dtype)
