"""Training data of styles: latents with the name of their style and captions of what they show."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from weft.datasets.captioned_images import CaptionedImages
from weft.datasets.creatures import STYLES, caption, style_caption
from weft.training.picture_cache import CreaturePictures, encoded_once
from weft.training.style import StyledRecord

CAPTION_DETAILS = ("full", "full", "partial")


class StyledCreatures(Dataset[StyledRecord]):
    """Styled creatures of `CreaturePictures`.

    Args:
        latents: the cached latents of these pictures, [index, channel, height, width].
        named: captions name the style in words, for baselines that have no other way to know it.
    """

    styles: tuple[str, ...] = STYLES

    def __init__(self, pictures: CreaturePictures, latents: "np.ndarray[Any, Any]", *, named: bool = False) -> None:
        self.pictures, self.latents, self.named = pictures, latents, named

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> StyledRecord:
        creature, style = self.pictures.creatures[index], self.pictures.styles[index]
        rng = np.random.default_rng([13, index])
        if self.named:
            captions = tuple(style_caption(creature, style, rng, detail) for detail in CAPTION_DETAILS)
        else:
            captions = tuple(caption(creature, rng, detail) for detail in CAPTION_DETAILS)
        return StyledRecord(torch.from_numpy(self.latents[index].astype(np.float32)), style, captions)


class StyledImages(Dataset[StyledRecord]):
    """People's own pictures; latents are encoded once into `cache_dir`.

    Args:
        resolution: side in pixels that pictures are brought to, squeezed.
    """

    def __init__(self, samples: CaptionedImages, vae: Any, cache_dir: Path, resolution: int) -> None:
        self.samples, self.styles = samples, tuple(samples.styles)
        pictures = (samples[index].image for index in range(len(samples)))
        self.latents: Sequence[Tensor] = encoded_once(pictures, len(samples), vae, cache_dir, resolution)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> StyledRecord:
        drawn = self.samples[index]
        return StyledRecord(self.latents[index], drawn.style, (drawn.caption,))
