"""Training of styles: style names condition a frozen denoiser."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from weftwork.attention_processors.core.families import base_description
from weftwork.attention_processors.style.adapter import Style, StyleAdapter, StyleBatch, StyleReader
from weftwork.datasets.readers.captioned_stream import CaptionedStream
from weftwork.datasets.synthetic import outfits
from weftwork.pipelines.core.mixin import ConditionedPipelineMixin
from weftwork.training.core.denoisers import denoiser_of
from weftwork.training.core.trainer import DRAWINGS, Prepared
from weftwork.training.data.image_cache import OutfitImages, cached_latents
from weftwork.training.data.image_latents import Sizes
from weftwork.training.data.styles import StyledOutfits, StyledRecord, StyledStream
from weftwork.training.tasks.adapter import AdapterTask, TrainingBatch
from weftwork.training.tasks.captioned import captioned, drawn_scenes, dropped
from weftwork.training.trainers.captioned import StyleConfig
from weftwork.training.trainers.style import StyleModel, StyleTrainer

Targets = Sequence[tuple[str, Image.Image]]
"""A style and the true image in it, by validation prompt."""
Data = tuple[Dataset[StyledRecord], Sequence[str], list[str], Targets]
"""Training data, names of their styles, validation prompts and targets."""


def prepare(trainer: StyleTrainer, pipe: ConditionedPipelineMixin) -> Prepared:
    """Returns the task and the data of a trainer's options."""
    data, styles, prompts, targets = _synthetic(trainer, pipe) if trainer.synthetic else _own(trainer, pipe)
    if trainer.arguments.validation_prompt:
        prompts, targets = trainer.arguments.validation_prompt, ()
    task = StyleTask(_adapter(trainer, pipe, styles), pipe, trainer.read(StyleConfig), prompts, targets)
    return Prepared(task, data, {"data": trainer.data_name})


def _adapter(trainer: StyleTrainer, pipe: ConditionedPipelineMixin, styles: Sequence[str]) -> StyleAdapter:
    denoiser = denoiser_of(pipe)
    if trainer.arguments.init_from:
        adapter = StyleAdapter.from_pretrained(trainer.arguments.init_from)
        adapter.check_base(denoiser)
        unknown = [style for style in styles if style not in adapter.config["styles"]]
        return adapter.extended(unknown) if unknown else adapter
    width = base_description(denoiser)["context_dim"]
    return StyleAdapter.for_denoiser(denoiser, styles=list(styles), token_dim=width, **asdict(trainer.read(StyleModel)))


def _own(trainer: StyleTrainer, pipe: ConditionedPipelineMixin) -> Data:
    arguments = trainer.arguments
    if not arguments.streaming:
        data = captioned(trainer, pipe, style=arguments.style)
        shown = [data.samples[index] for index in trainer.shown(data, 4)]
        return data, data.styles, [one.caption for one in shown], [(one.style, one.image) for one in shown]
    options = {**trainer.column_options(), "style": arguments.style, "seed": arguments.seed}
    stream = CaptionedStream.from_name(arguments.dataset_name, styles=arguments.styles, **options)
    return StyledStream(stream, pipe.vae, Sizes.of(pipe, arguments.resolution)), stream.styles, [], ()


def _synthetic(trainer: StyleTrainer, pipe: ConditionedPipelineMixin) -> Data:
    cache, count = trainer.arguments.cache_dir, trainer.arguments.samples
    if trainer.synthetic == DRAWINGS:
        scenes, prompts = drawn_scenes(trainer, pipe, 2)
        return scenes, scenes.styles, prompts, ()
    images = OutfitImages(cache, "train", count, styled=True)
    data = StyledOutfits(images, cached_latents(cache, pipe.vae, images))
    shown = {name: outfits.sample("validation", i, style=name) for i, name in enumerate(outfits.STYLES[:4])}
    targets = [(name, Image.fromarray(one.image)) for name, one in shown.items()]
    return data, outfits.STYLES, [one.caption for one in shown.values()], targets


class StyleTask(AdapterTask[StyleReader, StyledRecord, TrainingBatch[StyleBatch]]):
    """Trains latents of styled images with captions of their content.

    Args:
        validation: prompts; validation generates every style for each of them.
        targets: of the first prompts.
    """

    def __init__(
        self,
        module: StyleReader,
        pipe: ConditionedPipelineMixin,
        config: StyleConfig,
        validation: Sequence[str] = (),
        targets: Targets = (),
    ) -> None:
        super().__init__(module, pipe, "style", config)
        self.config, self.validation, self.targets = config, validation, targets

    def collate(self, samples: list[StyledRecord]) -> TrainingBatch[StyleBatch]:
        return TrainingBatch.of(samples, conditions=self.module.collate([[Style(one.style)] for one in samples]))

    def loss(self, batch: TrainingBatch[StyleBatch], generator: torch.Generator, micro: int) -> Float[Tensor, ""]:
        captions, null = dropped(self.config, batch.captions, generator)
        features = self.module.features(replace(batch.conditions, null=null), self.encoders)
        return self.denoising_loss(self.denoiser(self.module(features)), batch.latents, captions, generator)

    def validate(self, step: int, folder: Path) -> Mapping[str, float]:
        """Writes images of all styles, one PNG per validation prompt; the target is above its style."""
        styles = self.module.config["styles"]
        conditions = [[Style(name)] for name in styles]
        for i, prompt in enumerate(self.validation):
            target = dict(self.targets[i : i + 1])
            above = [target.get(name) for name in styles]
            self.sheet(folder / f"{step:06d}-{i}.png", [prompt] * len(styles), conditions, targets=above)
        return {}
