"""Training of reference images: every image is its own reference (IP-Adapter, arXiv 2308.06721)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from weftwork.attention_processors.core.families import base_description
from weftwork.attention_processors.encoders import ImageEncoder
from weftwork.attention_processors.reference.adapter import Reference, ReferenceAdapter, ReferenceBatch
from weftwork.pipelines.core.mixin import ConditionedPipelineMixin
from weftwork.pretrained import model_name
from weftwork.training.core.denoisers import denoiser_of
from weftwork.training.core.trainer import Prepared
from weftwork.training.data.drawings import StyledScenes
from weftwork.training.data.feature_cache import FeatureCache, encoder_key, feature_cache, tensor_bytes
from weftwork.training.data.prompts import with_prompts
from weftwork.training.data.styles import StyledImages
from weftwork.training.tasks.adapter import AdapterTask, TrainingBatch
from weftwork.training.tasks.captioned import captioned, drawn_scenes, dropped
from weftwork.training.trainers.captioned import StyleConfig
from weftwork.training.trainers.reference import ReferenceModel, ReferenceTrainer

Records = StyledScenes | StyledImages
READ_AT_ONCE = 32
SHOWN = 4
"""References of validation images."""


def prepare(trainer: ReferenceTrainer, pipe: ConditionedPipelineMixin) -> Prepared:
    """Returns the task and the data of a trainer's options."""
    arguments = trainer.arguments
    made = ReferenceAdapter.from_pretrained(arguments.init_from) if arguments.init_from else None
    name = str(arguments.image_encoder or (made and made.config["image_encoder"]))
    encoder = ImageEncoder.from_pretrained(name)
    nn.Module.to(encoder.model, pipe.device)
    pipe.set_encoders(image=encoder)
    adapter = made or _adapter(trainer, pipe, encoder, model_name(name))
    adapter.check_base(denoiser_of(pipe))
    records, images, shown = _data(trainer, pipe)
    if arguments.validation_prompt:
        shown = with_prompts(arguments.validation_prompt, shown)
    key = encoder_key(f"image {adapter.config['projection']}", encoder.model)
    cache = feature_cache(arguments.cache_dir / "features", key, dry=arguments.dry_run)
    data = ReferencedImages(records, images, adapter, encoder, cache)
    task = ReferenceTask(adapter, pipe, trainer.read(StyleConfig), shown)
    return Prepared(task, data, {"data": trainer.data_name})


def _adapter(
    trainer: ReferenceTrainer, pipe: ConditionedPipelineMixin, encoder: ImageEncoder, name: str
) -> ReferenceAdapter:
    model, config, denoiser = trainer.read(ReferenceModel), encoder.model.config, denoiser_of(pipe)
    return ReferenceAdapter.for_denoiser(
        denoiser,
        layers=model.layers,
        projection=model.projection,
        image_dim=config.projection_dim if model.projection == "basic" else config.hidden_size,
        token_dim=base_description(denoiser)["context_dim"],
        num_tokens=model.num_tokens,
        image_size=config.image_size,
        image_encoder=name,
    )


def _data(
    trainer: ReferenceTrainer, pipe: ConditionedPipelineMixin
) -> tuple[Records, Iterable[Image.Image], list[tuple[str, Image.Image]]]:
    """Returns records with latents and captions, their images, and validation prompts with references."""
    if not trainer.synthetic:
        own = captioned(trainer, pipe, styled=False)
        samples = own.samples
        shown = [(samples[index].caption, samples[index].image) for index in trainer.shown(own, SHOWN)]
        return own, (samples[index].image for index in range(len(samples))), shown
    records, captions = drawn_scenes(trainer, pipe, SHOWN // 2)
    images = records.images.images
    return records, map(Image.fromarray, images), [(one, Image.fromarray(images[i])) for i, one in enumerate(captions)]


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
        records: Records,
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
            rows = cache.rows(some, tensor_bytes, lambda missing: {"embeds": read(torch.stack(missing))})
            self.embeds += rows["embeds"]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> ReferencedRecord:
        record = self.records[index]
        return ReferencedRecord(record.latents, self.embeds[index], record.captions)


class ReferenceTask(AdapterTask[ReferenceAdapter, ReferencedRecord, TrainingBatch[ReferenceBatch]]):
    """Trains image latents with captions and with the images as references; `validation` has prompts with theirs."""

    def __init__(
        self,
        module: ReferenceAdapter,
        pipe: ConditionedPipelineMixin,
        config: StyleConfig,
        validation: Sequence[tuple[str, Image.Image]] = (),
    ) -> None:
        super().__init__(module, pipe, "reference", config)
        self.config, self.validation = config, validation

    def collate(self, samples: list[ReferencedRecord]) -> TrainingBatch[ReferenceBatch]:
        conditions = self.module.collate([[Reference(embeds=record.embeds)] for record in samples])
        return TrainingBatch.of(samples, conditions=conditions)

    def loss(self, batch: TrainingBatch[ReferenceBatch], generator: torch.Generator, micro: int) -> Float[Tensor, ""]:
        captions, null = dropped(self.config, batch.captions, generator)
        features = self.module.features(batch.conditions, self.encoders).without(null)
        return self.denoising_loss(self.denoiser(self.module(features)), batch.latents, captions, generator)

    def validate(self, step: int, folder: Path) -> Mapping[str, float]:
        """Writes images of the validation prompts, each below its reference, which is its target, as one PNG."""
        if self.validation:
            prompts, images = zip(*self.validation, strict=True)
            self.sheet(folder / f"{step:06d}.png", prompts, [[Reference(image)] for image in images], images)
        return {}
