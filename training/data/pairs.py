"""Training data of the paired method, synthetic outfits or user images: latents, prepared pairs and captions."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import ModelMixin
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from weftwork.attention_processors.core.regions import REGION_SIZE
from weftwork.attention_processors.paired.adapter import PairedAdapter
from weftwork.attention_processors.paired.conditions import (
    GlobalSketch,
    PreparedPair,
    PreparedSketch,
    SketchTextPair,
    stroke_pixels,
)
from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.readers.images import resized_sketch
from weftwork.datasets.readers.pair_folder import PairSample
from weftwork.datasets.synthetic.outfits import PROMPT, SLOTS, caption, sample
from weftwork.datasets.synthetic.outfits.texts import reworded, unnamed
from weftwork.training.core.batches import Samples
from weftwork.training.data.image_cache import CachedLatents, DrawnImages, JobT, Latents, OutfitImages, Pixels, Truth
from weftwork.training.data.image_latents import Sizes, encoded_once
from weftwork.training.data.prompts import Tokens, check_lengths

ConditionT = TypeVar("ConditionT", SketchTextPair, GlobalSketch)

WILD_SHARE = 0.3
"""Share of training samples with unpractised sketches."""
REWORDED_SHARE = 0.25
"""Share of outfits whose texts give the pattern first, or no article."""


@dataclass(frozen=True)
class PairRecord:
    """One training image with its pairs.

    Args:
        captions: prompts to draw from; training replaces some by the empty prompt.
        whole: global sketch; by default the pairs' sketches are composed.
    """

    latents: Float[Tensor, "channel height width"]
    pairs: tuple[PreparedPair, ...]
    captions: tuple[str, ...]
    whole: PreparedSketch | None = None


class DrawnPairs(DrawnImages[Truth], CachedLatents[PairRecord]):
    """Synthetic images with their sketches and texts, drawn once into `folder`.

    `images[i]` are strokes and hulls of image i by pair; `truth[i]` has its `texts` and `captions`.

    Args:
        draw, jobs: see `DrawnImages`.
        latents: the cached latents of the images, [index, channel, height, width].
        merged: one pair per image, all sketches on one canvas with all texts: the `global_sketch` baseline.
        unnamed_share: share of images whose texts give colours and patterns without naming the object.
        by_count: batches of images with equally many pairs, so that none is padded.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        draw: Callable[[JobT], tuple[Pixels, Truth]],
        jobs: Sequence[JobT],
        latents: Latents,
        *,
        merged: bool = False,
        unnamed_share: float = 0.0,
        by_count: bool = False,
    ) -> None:
        if not 0 <= unnamed_share <= 1:
            raise UserError(f"unnamed_share: got {unnamed_share}, expected a share in [0, 1]")
        DrawnImages.__init__(self, folder, name, draw, jobs)
        CachedLatents.__init__(self, latents)
        self.merged, self.unnamed_share = merged, unnamed_share
        self.buckets = [len(row["texts"]) for row in self.truth] if by_count else None

    def texts(self, index: int) -> list[str]:
        """Returns the text of each pair."""
        return self.truth[index]["texts"]

    def unnamed(self, index: int) -> Sequence[tuple[int, str]]:
        """Returns the pairs in random order, with texts that name no object."""
        raise NotImplementedError

    def __getitem__(self, index: int) -> PairRecord:
        texts = self.texts(index)
        pixels = torch.from_numpy(self.images[index, : len(texts)].astype(np.float32) / 255)
        if np.random.default_rng([11, index]).random() < self.unnamed_share:
            order, texts = map(list, zip(*self.unnamed(index), strict=True))
            pixels = pixels[order]
        if self.merged:
            pixels, texts = pixels.amax(0, keepdim=True), [", ".join(texts)]
        pairs = [
            PreparedPair(p, t, region=_region(p[1]), region_aspect=1.0) for p, t in zip(pixels, texts, strict=True)
        ]
        return PairRecord(self.latent(index), tuple(pairs), tuple(self.truth[index]["captions"]))


class OutfitPairs(DrawnPairs):
    """Outfits of the first images of the training split; latents and options are those of `DrawnPairs`."""

    def __init__(
        self, folder: Path, images: OutfitImages, latents: Latents, *, size: int = 128, **options: Any
    ) -> None:
        jobs = [(index, size) for index in range(len(images))]
        super().__init__(folder, f"pairs-train-{len(images)}-{size}", _draw_one, jobs, latents, **options)
        self.garments = images.garments

    def texts(self, index: int) -> list[str]:
        rng = np.random.default_rng([13, index])
        if rng.random() < REWORDED_SHARE:
            return [reworded(garment, rng) for garment in self.garments[index]]
        return super().texts(index)

    def unnamed(self, index: int) -> Sequence[tuple[int, str]]:
        return unnamed(self.garments[index])


def _region(hull: Float[Tensor, "size size"]) -> Float[Tensor, "region_size region_size"]:
    if hull.shape[-1] == REGION_SIZE:
        return hull
    return F.interpolate(hull[None, None], (REGION_SIZE, REGION_SIZE), mode="bilinear", antialias=True)[0, 0]


def _draw_one(arguments: tuple[int, int]) -> tuple[Pixels, Truth]:
    index, size = arguments
    rng = np.random.default_rng([7, index])
    style = "wild" if rng.random() < WILD_SHARE else "professional"
    drawn = sample("train", index, sketch_style=style)
    pixels = np.zeros((len(SLOTS), 2, size, size), np.uint8)
    for slot, sketch in enumerate(drawn.sketches):
        if (sketch < 128).any():
            pixels[slot] = (stroke_pixels(Image.fromarray(sketch), size).numpy() * 255).round()
    captions = [PROMPT, PROMPT, *(caption(drawn.garments, rng, d) for d in ("generic", "full", "partial"))]
    return pixels, {"texts": drawn.texts, "captions": captions}


class SamplePairs(Dataset[PairRecord]):
    """User pairs (`PairFolder`, `Sketchy`); latents are cached in `cache_dir`.

    `buckets` are the shapes of latents, by image.

    Args:
        tokens: what counts and limits the tokens of texts, and of captions.
        by_count: add the number of pairs to the buckets, so that no batch is padded.
        sizes: sizes that images are squeezed to, with their sketches and regions; LOTS squeezes to squares.
        dry: see `encoded_once`.

    Raises:
        ValueError: texts that are too long, all of them listed; a pair that is none, by the name of its sample.
    """

    def __init__(
        self,
        samples: Samples[PairSample],
        adapter: PairedAdapter,
        vae: ModelMixin,
        cache_dir: Path,
        sizes: Sizes,
        *,
        by_count: bool = False,
        tokens: tuple[Tokens, Tokens] | None = None,
        dry: bool = False,
    ) -> None:
        self.samples, self.adapter, self.sizes = samples, adapter, sizes
        counts: list[int] = []
        texts: list[tuple[str, str, Tokens, int]] = []

        def images() -> Iterator[Image.Image]:
            for index in range(len(self)):
                drawn = samples[index]
                _pairs_of(drawn)
                counts.append(len(drawn.texts) if by_count else 0)
                if tokens is not None:
                    text, prompt = tokens
                    texts.append((f"sample {index + 1}", drawn.caption, prompt, prompt.longest))
                    most = adapter.config["text_states"] or text.longest
                    texts.extend((f"sample {index + 1}", one, text, most) for one in drawn.texts if one)
                yield drawn.image

        self.latents = encoded_once(images(), len(self), vae, cache_dir, sizes, dry=dry)
        check_lengths(texts)
        self.buckets = [(*one.shape, count) for one, count in zip(self.latents, counts, strict=True)]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> PairRecord:
        caption, pairs = self.design(index)
        whole = None
        if self.adapter.whole is not None and (drawn := self.samples[index]).global_sketch is not None:
            sketch = GlobalSketch(drawn.global_sketch, ink="dark")
            whole = self.adapter.prepare_whole(_squeezed(sketch, self.sizes.nearest(*drawn.image.size)))
        return PairRecord(self.latents[index], tuple(map(self.adapter.prepare, pairs)), (caption,), whole)

    def design(self, index: int) -> tuple[str, list[SketchTextPair]]:
        """Returns caption and pairs of an image, squeezed to its size."""
        drawn = self.samples[index]
        size = self.sizes.nearest(*drawn.image.size)
        return drawn.caption, [_squeezed(pair, size) for pair in _pairs_of(drawn)]


def _pairs_of(drawn: PairSample) -> list[SketchTextPair]:
    """Returns the pairs of a sample, whose sketches readers have normalised."""
    rows = zip(drawn.sketches, drawn.texts, drawn.regions, strict=True)
    try:
        return [SketchTextPair(sketch, text, region=region, ink="dark") for sketch, text, region in rows]
    except ValueError as error:
        raise UserError(f"{drawn.name}: {error}") from error


def _squeezed(condition: ConditionT, size: tuple[int, int]) -> ConditionT:
    """Returns a condition on a canvas of another width and height; what was checked is not checked again."""
    made = copy.copy(condition)
    sketch, region = (getattr(condition, name, None) for name in ("sketch", "region"))
    if isinstance(sketch, Image.Image):
        object.__setattr__(made, "sketch", resized_sketch(sketch, size))
    if isinstance(region, Image.Image):
        object.__setattr__(made, "region", region.resize(size))
    return made
