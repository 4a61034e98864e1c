"""A small CLIP vision model of creatures, for the IP-Adapter that styles are compared with.

It stands for the vision encoder that an IP-Adapter finds ready. Its vectors are trained to tell style, species, colour
and pose apart, by linear heads that are dropped afterwards.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from weftwork.attention_processors.encoders import clip_normalized
from weftwork.datasets.synthetic.creatures import COLORS, POSES, SPECIES, STYLES
from weftwork.training.data.image_cache import CreaturePictures

HEADS: Mapping[str, tuple[str, ...]] = {"style": STYLES, "species": SPECIES, "color": COLORS, "pose": POSES}


class LabelledEncoder(nn.Module):
    """The vision model with a linear head per attribute; saved without the heads."""

    def __init__(self, width: int = 96, dim: int = 128) -> None:
        super().__init__()
        self.encoder = CLIPVisionModelWithProjection(
            CLIPVisionConfig(
                hidden_size=width,
                intermediate_size=4 * width,
                num_hidden_layers=4,
                num_attention_heads=4,
                image_size=128,
                patch_size=16,
                projection_dim=dim,
            )
        )
        self.heads = nn.ModuleDict({name: nn.Linear(dim, len(values)) for name, values in HEADS.items()})

    def forward(self, pictures: Float[Tensor, "picture 3 height width"]) -> dict[str, Float[Tensor, "picture value"]]:
        vectors = self.encoder(pictures).image_embeds
        return {name: head(vectors) for name, head in self.heads.items()}

    def save_pretrained(self, folder: Path, safe_serialization: bool = True) -> None:
        self.encoder.save_pretrained(folder)


class LabelledCreatures(Dataset[tuple[Any, list[int]]]):
    """Pictures of bytes with the index of every attribute."""

    def __init__(self, pictures: CreaturePictures) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> "tuple[np.ndarray[Any, Any], list[int]]":
        creature, style = self.pictures.creatures[index], self.pictures.styles[index]
        values = {"style": style, "species": creature.species, "color": creature.color, "pose": creature.pose}
        return np.array(self.pictures.images[index]), [HEADS[name].index(values[name]) for name in HEADS]


class ImageEncoderTask:
    """Cross entropy of every head; images are normalised as `ImageEncoder` does it."""

    def __init__(self, module: LabelledEncoder, held_out: LabelledCreatures) -> None:
        self.module, self.held_out = module, held_out

    def collate(self, samples: list[Any]) -> tuple[Tensor, Int[Tensor, "picture attribute"]]:
        pixels = torch.from_numpy(np.stack([picture for picture, _ in samples]))
        return pixels.permute(0, 3, 1, 2).float() / 255, torch.tensor([values for _, values in samples])

    def loss(self, module: Any, batch: Any, generator: torch.Generator, micro: int) -> Float[Tensor, ""]:
        pictures, values = batch
        shift = torch.randint(-6, 7, (2,), generator=generator).tolist()
        logits = module(clip_normalized(pictures.roll(shift, (2, 3))))
        losses = [F.cross_entropy(logits[name], values[:, i]) for i, name in enumerate(HEADS)]
        return torch.stack(losses).sum()

    def validate(self, module: Any, step: int, folder: Path) -> Mapping[str, float]:
        """Accuracy of every head on held-out images."""
        pictures, values = self.collate([self.held_out[i] for i in range(min(256, len(self.held_out)))])
        logits = module(clip_normalized(pictures))
        return {name: (logits[name].argmax(1) == values[:, i]).float().mean().item() for i, name in enumerate(HEADS)}
