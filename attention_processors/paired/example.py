"""The smallest use of pairs of sketch and text."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor, nn

from weftwork.attention_processors.core.example import Example
from weftwork.attention_processors.core.families import family_of
from weftwork.attention_processors.paired.adapter import PairedAdapter
from weftwork.attention_processors.paired.conditions import SketchTextPair

TEXT_DIM = 26


class LetterCounts:
    """Text encoder that counts letters, in place of a trained one."""

    models = ("letters",)

    def pooled(self, texts: Sequence[str]) -> Float[Tensor, "text dim"]:
        return torch.tensor([[float(text.count(chr(97 + letter))) for letter in range(TEXT_DIM)] for text in texts])


def example(denoiser: nn.Module) -> Example:
    """Returns an adapter, and conditions of two pairs; for audio, which has no canvas, without sketches."""
    drawn = family_of(denoiser).modality != "audio"
    sizes = {"token_dim": 16, "image_dim": 8, "text_dim": TEXT_DIM, "text_tokens": 2, "num_readout_tokens": 4}
    model = {"num_layers": 1, "num_heads": 2, "norm_groups": 4, "sketch_encoder": "strokes", "sketch_size": 32}
    adapter = PairedAdapter.for_denoiser(denoiser, **sizes, **model)

    def conditions(seed: int, **options: Any) -> list[SketchTextPair]:
        texts = ("a red jacket", "a blue skirt", "a green hat")
        return [SketchTextPair(_sketch(i) if drawn else None, texts[i % 3], **options) for i in (seed, seed + 1)]

    return Example(adapter, conditions, {"text": LetterCounts()})


def _sketch(seed: int) -> Image.Image:
    image = Image.new("L", (32, 32), 255)
    ImageDraw.Draw(image).rectangle((4 + seed % 8, 6, 20 + seed % 8, 24), outline=0, width=2)
    return image
