"""A small CLIP vision model of creatures, the image encoder of the IP-Adapter baseline of styles.

Its embeddings are trained to classify style, species, colour and pose, by linear heads that are dropped afterwards.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from weftwork.attention_processors.encoders import clip_normalized
from weftwork.datasets.synthetic.creatures import COLORS, POSES, SPECIES, STYLES
from weftwork.training.core.task import Task
from weftwork.training.data.image_cache import CreatureImages

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

    def forward(self, images: Float[Tensor, "image 3 height width"]) -> dict[str, Float[Tensor, "image value"]]:
        vectors = self.encoder(images).image_embeds
        return {name: head(vectors) for name, head in self.heads.items()}

    def save_pretrained(self, folder: Path, safe_serialization: bool = True) -> None:
        self.encoder.save_pretrained(folder)


Sample = tuple[UInt8[np.ndarray, "height width 3"], list[int]]
Batch = tuple[Float[Tensor, "image 3 height width"], Int[Tensor, "image attribute"]]


class LabelledCreatures(Dataset[Sample]):
    """uint8 images with the class index of every attribute."""

    def __init__(self, images: CreatureImages) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        creature, style = self.images.creatures[index], self.images.styles[index]
        values = {"style": style, "species": creature.species, "color": creature.color, "pose": creature.pose}
        return np.array(self.images.images[index]), [HEADS[name].index(values[name]) for name in HEADS]


class ImageEncoderTask(Task[LabelledEncoder, Sample, Batch]):
    """Trains with the cross entropy of every head; images are normalised as by `ImageEncoder`."""

    def __init__(self, module: LabelledEncoder, held_out: LabelledCreatures) -> None:
        self.module, self.held_out = module, held_out

    def collate(self, samples: list[Sample]) -> Batch:
        pixels = torch.from_numpy(np.stack([image for image, _ in samples]))
        return pixels.permute(0, 3, 1, 2).float() / 255, torch.tensor([values for _, values in samples])

    def loss(self, batch: Batch, generator: torch.Generator, micro: int) -> Float[Tensor, ""]:
        images, values = batch
        shift = torch.randint(-6, 7, (2,), generator=generator).tolist()
        logits = self.module(clip_normalized(images.roll(shift, (2, 3))))
        losses = [F.cross_entropy(logits[name], values[:, i]) for i, name in enumerate(HEADS)]
        return torch.stack(losses).sum()

    def validate(self, step: int, folder: Path) -> Mapping[str, float]:
        """Returns the accuracy of every head on held-out images."""
        images, values = self.collate([self.held_out[i] for i in range(min(256, len(self.held_out)))])
        logits = self.module(clip_normalized(images))
        return {name: (logits[name].argmax(1) == values[:, i]).float().mean().item() for i, name in enumerate(HEADS)}
