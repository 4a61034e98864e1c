"""Training data of styles: latents, style names, and captions of the content."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from diffusers import ModelMixin
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from weftwork.datasets.readers.captioned_images import CaptionedImages
from weftwork.datasets.readers.captioned_stream import CaptionedStream
from weftwork.datasets.synthetic.outfits import caption
from weftwork.training.core.batches import Stream
from weftwork.training.data.image_cache import CachedLatents, Latents, OutfitImages
from weftwork.training.data.image_latents import Sizes, encoded, encoded_once

CAPTION_DETAILS = ("full", "full", "partial")
ENCODED_AT_ONCE = 8


@dataclass(frozen=True)
class StyledRecord:
    """One training image, with captions to draw from, of the content and not the style."""

    latents: Float[Tensor, "channel height width"]
    style: str
    captions: tuple[str, ...]


class StyledOutfits(CachedLatents[StyledRecord]):
    """Styled outfits of `OutfitImages`, with the latents of these images."""

    def __init__(self, images: OutfitImages, latents: Latents) -> None:
        super().__init__(latents)
        self.images = images

    def __getitem__(self, index: int) -> StyledRecord:
        rng = np.random.default_rng([17, index])
        captions = tuple(caption(self.images.garments[index], rng, detail) for detail in CAPTION_DETAILS)
        return StyledRecord(self.latent(index), self.images.style_of(index), captions)


class StyledImages(Dataset[StyledRecord]):
    """User images; latents are cached in `cache_dir`.

    `buckets` are the shapes of latents, by image.

    Args:
        dry: see `encoded_once`.
    """

    def __init__(
        self, samples: CaptionedImages, vae: ModelMixin, cache_dir: Path, sizes: Sizes, *, dry: bool = False
    ) -> None:
        self.samples, self.styles = samples, tuple(samples.styles)
        images = (samples[index].image for index in range(len(samples)))
        self.latents: Sequence[Tensor] = encoded_once(images, len(samples), vae, cache_dir, sizes, dry=dry)
        self.buckets = [tuple(one.shape) for one in self.latents]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> StyledRecord:
        drawn = self.samples[index]
        return StyledRecord(self.latents[index], drawn.style, (drawn.caption,))


class StyledStream(Stream[StyledRecord]):
    """Images of a stream, squeezed to squares and encoded on the fly, without a cache."""

    def __init__(self, samples: CaptionedStream, vae: ModelMixin, sizes: Sizes) -> None:
        self.samples, self.styles, self.vae, self.sizes = samples, samples.styles, vae, sizes

    def place(self, epoch: int, process: int, processes: int) -> None:
        self.samples.place(epoch, process, processes)

    def __iter__(self) -> Iterator[StyledRecord]:
        samples = iter(self.samples)
        while group := list(islice(samples, ENCODED_AT_ONCE)):
            images = [np.array(one.image.resize(self.sizes.nearest(*one.image.size))) for one in group]
            latents = encoded(np.stack(images), self.vae)
            yield from (StyledRecord(row, one.style, (one.caption,)) for row, one in zip(latents, group, strict=True))
