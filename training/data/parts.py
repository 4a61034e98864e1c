"""Training data of parts: an image and its control image, whole and cropped to the part, with both latents."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from weftwork.datasets.readers.part_views import local_view, part_box
from weftwork.datasets.synthetic.hands import sample
from weftwork.training.data.image_cache import CachedLatents, DrawnImages, Latents, Pixels

Job = tuple[str, int, int, int]
"""Split, index, seed and side of the views in pixels."""


def views(image: Image.Image, control: Image.Image, size: int) -> UInt8[np.ndarray, "4 size size 3"]:
    """Returns the image and its crop to the part, then both views of the control image.

    Crops are taken at the image's own resolution. `ValueError` as `part_box`.
    """
    box = part_box(np.asarray(control))
    whole = [one.resize((size, size), Image.Resampling.BOX) for one in (image, control)]
    crops = [local_view(one, box, size) for one in (image, control)]
    return np.stack([np.asarray(one) for pair in zip(whole, crops, strict=True) for one in pair])


class HandViews(DrawnImages[str]):
    """Views of the first `count` hands of a split, drawn once; `truth[i]` is the caption.

    Args:
        size: side of each view.
    """

    def __init__(self, cache_dir: Path, split: str, count: int, size: int, seed: int = 0) -> None:
        jobs: list[Job] = [(split, index, seed, size) for index in range(count)]
        super().__init__(cache_dir, f"hands-{size}-{split}-{seed}-{count}", _draw_views, jobs)

    def pixels(self, rows: slice) -> Pixels:
        """Reads images and their crops, two rows per hand."""
        return np.array(self.images[rows, :2]).reshape(-1, *self.images.shape[2:])


def _draw_views(job: Job) -> tuple[Pixels, str]:
    split, index, seed, size = job
    drawn = sample(split, index, seed)
    return views(Image.fromarray(drawn.image), Image.fromarray(drawn.control), size), drawn.caption


@dataclass(frozen=True)
class PartRecord:
    """Latents and control images, in [0, 1], of the whole image and of the part."""

    latents: Float[Tensor, "channel height width"]
    local_latents: Float[Tensor, "channel height width"]
    control: Float[Tensor, "3 size size"]
    local_control: Float[Tensor, "3 size size"]
    captions: tuple[str, ...]


class PartRecords(CachedLatents[PartRecord]):
    """Hands of `HandViews`, with the latents of both views."""

    def __init__(self, images: HandViews, latents: Latents) -> None:
        super().__init__(latents)
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> PartRecord:
        shown = torch.from_numpy(np.array(self.images.images[index, 2:])).permute(0, 3, 1, 2).float() / 255
        own, local = self.latent(2 * index), self.latent(2 * index + 1)
        return PartRecord(own, local, shown[0], shown[1], (self.images.truth[index],))
