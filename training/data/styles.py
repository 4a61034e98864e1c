"""Training data of styles: latents with the name of their style and captions of what they show."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from weftwork.datasets.readers.captioned_images import CaptionedImages
from weftwork.datasets.readers.captioned_stream import CaptionedStream
from weftwork.datasets.synthetic.creatures import STYLES, caption, style_caption
from weftwork.datasets.synthetic.outfits import caption as outfit_caption
from weftwork.training.data.image_cache import CreaturePictures, OutfitPictures
from weftwork.training.data.image_latents import Sizes, encoded, encoded_once

CAPTION_DETAILS = ("full", "full", "partial")
ENCODED_AT_ONCE = 8


@dataclass(frozen=True)
class StyledRecord:
    """One image for training.

    Args:
        captions: prompts to draw from, which say what is shown and not how.
    """

    latents: Float[Tensor, "channel height width"]
    style: str
    captions: tuple[str, ...]


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


class StyledOutfits(Dataset[StyledRecord]):
    """Styled outfits of `OutfitPictures`.

    Args:
        latents: the cached latents of these pictures, [index, channel, height, width].
    """

    styles: tuple[str, ...] = STYLES

    def __init__(self, pictures: OutfitPictures, latents: "np.ndarray[Any, Any]") -> None:
        self.pictures, self.latents = pictures, latents

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> StyledRecord:
        rng = np.random.default_rng([17, index])
        captions = tuple(outfit_caption(self.pictures.garments[index], rng, detail) for detail in CAPTION_DETAILS)
        latents = torch.from_numpy(self.latents[index].astype(np.float32))
        return StyledRecord(latents, self.pictures.style_of(index), captions)


class StyledImages(Dataset[StyledRecord]):
    """People's own pictures; latents are encoded once into `cache_dir`.

    `buckets` are the sizes of latents, by picture.

    Args:
        dry: as of `encoded_once`.
    """

    def __init__(self, samples: CaptionedImages, vae: Any, cache_dir: Path, sizes: Sizes, *, dry: bool = False) -> None:
        self.samples, self.styles = samples, tuple(samples.styles)
        pictures = (samples[index].image for index in range(len(samples)))
        self.latents: Sequence[Tensor] = encoded_once(pictures, len(samples), vae, cache_dir, sizes, dry=dry)
        self.buckets = [tuple(one.shape) for one in self.latents]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> StyledRecord:
        drawn = self.samples[index]
        return StyledRecord(self.latents[index], drawn.style, (drawn.caption,))


class StyledStream(IterableDataset[StyledRecord]):
    """Pictures of a stream, squeezed to squares and encoded as they come; nothing is kept."""

    def __init__(self, samples: CaptionedStream, vae: Any, sizes: Sizes) -> None:
        self.samples, self.styles, self.vae, self.sizes = samples, samples.styles, vae, sizes

    def place(self, epoch: int, process: int, processes: int) -> None:
        """Which epoch is read next, and which share of it."""
        self.samples.place(epoch, process, processes)

    def __iter__(self) -> Iterator[StyledRecord]:
        samples = iter(self.samples)
        while group := list(islice(samples, ENCODED_AT_ONCE)):
            pictures = [np.array(one.image.resize(self.sizes.nearest(*one.image.size))) for one in group]
            latents = encoded(np.stack(pictures), self.vae)
            yield from (StyledRecord(row, one.style, (one.caption,)) for row, one in zip(latents, group, strict=True))
