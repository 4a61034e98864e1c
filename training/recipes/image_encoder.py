"""A small CLIP vision model of drawings, the image encoder of the IP-Adapter baseline of styles.

Its embeddings are trained to classify style and content, by linear heads that are dropped afterwards.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from weftwork.attention_processors.encoders import clip_normalized
from weftwork.datasets.drawings.colors import PALETTE
from weftwork.datasets.drawings.sets import SETS
from weftwork.training.core.task import Task
from weftwork.training.data.drawings import SceneImages
from weftwork.training.data.image_cache import DrawnImages

Heads = Mapping[str, Sequence[str]]
"""Values by attribute."""
NONE = -100
"""Class index that the loss ignores."""


class LabelledEncoder(nn.Module):
    """The vision model with a linear head per attribute; saved without the heads."""

    def __init__(self, heads: Heads, width: int = 96, dim: int = 128) -> None:
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
        self.heads = nn.ModuleDict({name: nn.Linear(dim, len(values)) for name, values in heads.items()})

    def forward(self, images: Float[Tensor, "image 3 height width"]) -> dict[str, Float[Tensor, "image value"]]:
        vectors = self.encoder(images).image_embeds
        return {name: head(vectors) for name, head in self.heads.items()}

    def save_pretrained(self, folder: Path, safe_serialization: bool = True) -> None:
        self.encoder.save_pretrained(folder)


Sample = tuple[UInt8[np.ndarray, "height width 3"], list[int]]
Batch = tuple[Float[Tensor, "image 3 height width"], Int[Tensor, "image attribute"]]


class LabelledImages(Dataset[Sample]):
    """uint8 images with the class index of every attribute.

    Args:
        heads: values by attribute.
        rows: values of each image; None for an attribute that it does not have.
    """

    def __init__(self, images: DrawnImages, heads: Heads, rows: Sequence[Mapping[str, str | None]]) -> None:
        self.images, self.heads, self.rows = images, heads, rows

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        values = [(known, self.rows[index][name]) for name, known in self.heads.items()]
        return np.array(self.images.images[index]), [NONE if one is None else known.index(one) for known, one in values]


def labelled_scenes(images: SceneImages) -> LabelledImages:
    """Scenes of drawings with their set; those of one drawing with its category and its main colour."""
    categories = sorted({cell.depicted.category for cell in images.drawings.cells})
    rows: list[dict[str, str | None]] = []
    for key, shown in zip(images.keys, images.depicted, strict=True):
        first, alone = shown.drawings[0], len(shown.drawings) == 1
        color = first.colors[0] if alone and first.colors else None
        rows.append({"style": key, "category": first.category if alone else None, "color": color})
    return LabelledImages(images, {"style": [*SETS], "category": categories, "color": [*PALETTE]}, rows)


class ImageEncoderTask(Task[LabelledEncoder, Sample, Batch]):
    """Trains with the cross entropy of every head; images are normalised as by `ImageEncoder`."""

    def __init__(self, module: LabelledEncoder, held_out: LabelledImages) -> None:
        self.module, self.held_out = module, held_out

    def collate(self, samples: list[Sample]) -> Batch:
        pixels = torch.from_numpy(np.stack([image for image, _ in samples]))
        return pixels.permute(0, 3, 1, 2).float() / 255, torch.tensor([values for _, values in samples])

    def loss(self, batch: Batch, generator: torch.Generator, micro: int) -> Float[Tensor, ""]:
        images, values = batch
        shift = torch.randint(-6, 7, (2,), generator=generator).tolist()
        logits = self.module(clip_normalized(images.roll(shift, (2, 3))))
        losses = [F.cross_entropy(logits[name], values[:, i], reduction="sum") for i, name in enumerate(logits)]
        counts = (values != NONE).sum(0).clamp(min=1)
        return (torch.stack(losses) / counts).sum()

    def validate(self, step: int, folder: Path) -> Mapping[str, float]:
        """Returns the accuracy of every head on held-out images."""
        images, values = self.collate([self.held_out[i] for i in range(min(256, len(self.held_out)))])
        logits, found = self.module(clip_normalized(images)), {}
        for i, name in enumerate(logits):
            known = values[:, i] != NONE
            found[name] = (logits[name].argmax(1) == values[:, i])[known].float().mean().item()
        return found
