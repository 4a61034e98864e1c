"""The training task of reference images: every image is its own reference (IP-Adapter, arXiv 2308.06721)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from weftwork.attention_processors.encoders import ImageEncoder
from weftwork.attention_processors.reference.adapter import Reference, ReferenceAdapter, ReferenceBatch
from weftwork.training.data.feature_cache import FeatureCache
from weftwork.training.tasks.adapter import AdapterTask, TrainingBatch
from weftwork.training.tasks.options import StyleConfig
from weftwork.training.tasks.style import dropped

READ_AT_ONCE = 32


@dataclass(frozen=True)
class ReferencedRecord:
    """One training image with its embedding: a vector, or states for "plus" and "full"."""

    latents: Float[Tensor, "channel height width"]
    embeds: Float[Tensor, "*token dim"]
    captions: tuple[str, ...]


class ReferencedImages(Dataset[ReferencedRecord]):
    """Images, each its own reference, with cached embeddings.

    `buckets` are those of `records`.

    Args:
        records: dataset of records with latents and captions.
        images: their images, in the same order.
        adapter: adapter that reads the embeddings.
        cache: cache of embeddings.
    """

    def __init__(
        self,
        records: Any,
        images: Iterable[Image.Image],
        adapter: ReferenceAdapter,
        encoder: ImageEncoder,
        cache: FeatureCache,
    ) -> None:
        self.records, self.buckets = records, getattr(records, "buckets", None)
        read = encoder.pooled if adapter.config["projection"] == "basic" else encoder.states
        seen = iter(tqdm(images, total=len(records), desc="reading references", mininterval=1.0))
        self.embeds: list[Tensor] = []
        while some := [adapter.pixels(image) for image in islice(seen, READ_AT_ONCE)]:
            pixels, contents = torch.stack(some), [one.numpy().tobytes() for one in some]
            rows = cache.rows(contents, lambda places, pixels=pixels: {"embeds": read(pixels[places])})
            self.embeds += rows["embeds"]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> ReferencedRecord:
        record = self.records[index]
        return ReferencedRecord(record.latents, self.embeds[index], record.captions)


class ReferenceTask(AdapterTask):
    """Trains image latents with captions and with the images as references.

    Args:
        validation: prompts with their reference images.
    """

    module: ReferenceAdapter

    def __init__(
        self,
        module: ReferenceAdapter,
        pipe: Any,
        config: StyleConfig,
        validation: Sequence[tuple[str, Image.Image]] = (),
    ) -> None:
        super().__init__(module, pipe, "reference", config)
        self.config, self.validation = config, validation

    def collate(self, samples: list[ReferencedRecord]) -> TrainingBatch[ReferenceBatch]:
        conditions = self.module.collate([[Reference(embeds=record.embeds)] for record in samples])
        return TrainingBatch.of(samples, conditions=conditions)

    def loss(
        self, module: nn.Module, batch: TrainingBatch[ReferenceBatch], generator: torch.Generator, micro: int
    ) -> Float[Tensor, ""]:
        captions, null = dropped(self.config, batch.captions, generator)
        features = self.module.features(batch.conditions, self.encoders).without(null)
        return self.denoising_loss(self.denoiser(module(features)), batch.latents, captions, generator)

    def validate(self, module: Any, step: int, folder: Path) -> Mapping[str, float]:
        """Writes images of the validation prompts, each below its reference, as one PNG."""
        if self.validation:
            prompts, images = zip(*self.validation, strict=True)
            self.sheet(folder / f"{step:06d}.png", prompts, [[Reference(image)] for image in images], images)
        return {}
