"""Training of the paired method: pairs of sketch and text condition a frozen denoiser."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from weftwork.attention_processors.encoders import SketchEncoder, TextEncoders
from weftwork.attention_processors.paired.adapter import PairedAdapter
from weftwork.attention_processors.paired.batch import PairedBatch
from weftwork.attention_processors.paired.conditions import GlobalSketch, PreparedSketch, SketchTextPair
from weftwork.attention_processors.paired.samples import merged, pairs
from weftwork.datasets.drawings.captions import setting
from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.readers.images import compose_sketches
from weftwork.datasets.readers.pair_folder import PairFolder, report, validate
from weftwork.datasets.readers.sketchy import Sketchy
from weftwork.datasets.synthetic.outfits import PROMPT, sample
from weftwork.pipelines.core.mixin import ConditionedPipelineMixin
from weftwork.training.core.denoisers import denoiser_of
from weftwork.training.core.trainer import DRAWINGS, Prepared
from weftwork.training.data.drawings import SceneImages, ScenePairs, held_out_scenes
from weftwork.training.data.image_cache import OutfitImages, cached_latents
from weftwork.training.data.image_latents import Sizes
from weftwork.training.data.pairs import OutfitPairs, PairRecord, SamplePairs
from weftwork.training.data.prompts import PromptTokens, with_prompts
from weftwork.training.tasks.adapter import AdapterTask, TrainingBatch
from weftwork.training.trainers.paired import PairedConfig, PairedModel, PairedTrainer

Validation = Sequence[tuple[str, Sequence[SketchTextPair]]]
"""Prompts and pairs of the images that validation generates."""
Targets = Sequence[Image.Image]
"""True images of the validation designs."""


def prepare(trainer: PairedTrainer, pipe: ConditionedPipelineMixin) -> Prepared:
    """Returns the task and the data of a trainer's options."""
    arguments = trainer.arguments
    adapter = _adapter(trainer, pipe)
    if trainer.synthetic is None:
        data, validation, targets = _own(trainer, adapter, pipe)
    elif trainer.synthetic == DRAWINGS:
        data, validation, targets = _drawings(trainer, adapter, pipe)
    else:
        data, validation, targets = _outfits(trainer, pipe)
    if arguments.validation_prompt:
        validation = with_prompts(arguments.validation_prompt, validation)
        targets = [targets[index % len(targets)] for index in range(len(validation))]
    provenance = {"data": trainer.data_name, "merged": arguments.merged, "unnamed_share": arguments.unnamed_share}
    return Prepared(PairedTask(adapter, pipe, trainer.read(PairedConfig), validation, targets), data, provenance)


def _adapter(trainer: PairedTrainer, pipe: ConditionedPipelineMixin) -> PairedAdapter:
    if trainer.arguments.init_from:
        return PairedAdapter.from_pretrained(trainer.arguments.init_from)
    model = trainer.read(PairedModel)
    if model.sketch_encoder == "strokes":
        anchored = 0.09 * model.sketch_patch / 16  # reaches about as far as a token's neighbours
        options: dict[str, Any] = {"image_dim": 128, "sketch_size": 128, "masking": "pair", "anchored": anchored}
    else:
        encoder = SketchEncoder.from_pretrained(model.sketch_encoder)
        pipe.set_encoders(sketch=encoder)
        options = {"image_dim": encoder.model.config.hidden_size, "num_heads": 8}
    text_dim = TextEncoders.of(pipe).width(model.text_states)
    return PairedAdapter.for_denoiser(
        denoiser_of(pipe), **{"num_heads": 4, **asdict(model), **options}, text_dim=text_dim
    )


def _outfits(trainer: PairedTrainer, pipe: ConditionedPipelineMixin) -> tuple[OutfitPairs, Validation, Targets]:
    arguments, cache = trainer.arguments, trainer.arguments.cache_dir
    images = OutfitImages(cache, "train", arguments.samples)
    data = OutfitPairs(cache, images, cached_latents(cache, pipe.vae, images), **_options(trainer))
    drawn = [sample("validation", index, count=3 + index % 2) for index in range(8)]
    shown = [(PROMPT, merged(one) if arguments.merged else pairs(one)) for one in drawn]
    return data, shown, [Image.fromarray(one.image) for one in drawn]


def _drawings(
    trainer: PairedTrainer, adapter: PairedAdapter, pipe: ConditionedPipelineMixin
) -> tuple[ScenePairs, Validation, Targets]:
    cache, drawings = trainer.arguments.cache_dir, trainer.rendered()
    images = SceneImages(cache, drawings, "train", trainer.arguments.samples)
    text = TextEncoders.of(pipe)
    shorten = partial(text.shortened, length=min(adapter.config["text_states"] or 999, text.longest))
    data = ScenePairs(cache, images, cached_latents(cache, pipe.vae, images), shorten, **_options(trainer))
    make = merged if trainer.arguments.merged else pairs
    scenes = held_out_scenes(drawings, 4)
    return data, [(setting(shown), make(drawn)) for shown, drawn in scenes], [drawn.image for _, drawn in scenes]


def _options(trainer: PairedTrainer) -> dict[str, Any]:
    given = trainer.arguments
    return {"merged": given.merged, "unnamed_share": given.unnamed_share, "by_count": given.pair_buckets}


def _own(
    trainer: PairedTrainer, adapter: PairedAdapter, pipe: ConditionedPipelineMixin
) -> tuple[SamplePairs, Validation, Targets]:
    arguments, folder = trainer.arguments, trainer.arguments.train_data_dir
    ink = arguments.ink or "auto"
    if (folder / "train_sketchy.json").is_file():
        if arguments.ink:
            raise UserError("ink: has no effect with Sketchy, whose strokes are dark; leave it out")
        samples = Sketchy(folder, "train")
    else:
        if problems := validate(folder, ink=ink):
            raise UserError(f"{folder}:\n{report(problems)}")
        samples = PairFolder(folder, ink=ink)
    sizes = Sizes.of(pipe, arguments.resolution, aspects=arguments.aspect_buckets)
    tokens = TextEncoders.of(pipe), PromptTokens.of(pipe, arguments.max_sequence_length)
    options = {"by_count": arguments.pair_buckets, "tokens": tokens, "dry": arguments.dry_run}
    data = SamplePairs(samples, adapter, pipe.vae, arguments.cache_dir / "latents", sizes, **options)
    shown = trainer.shown(data, 4)
    return data, [data.design(index) for index in shown], [data.samples[index].image for index in shown]


class PairedTask(AdapterTask[PairedAdapter, PairRecord, TrainingBatch[PairedBatch]]):
    """Trains image latents with pairs of sketch and text as conditions.

    Args:
        validation: prompts and pairs of the images that validation generates.
        targets: the true images, shown above the generated ones.
    """

    def __init__(
        self,
        module: PairedAdapter,
        pipe: ConditionedPipelineMixin,
        config: PairedConfig,
        validation: Validation = (),
        targets: Targets = (),
    ) -> None:
        super().__init__(module, pipe, "paired", config)
        self.config, self.validation, self.targets = config, validation, targets

    def collate(self, samples: list[PairRecord]) -> TrainingBatch[PairedBatch]:
        conditions = self.module.collate([self._conditions(record) for record in samples])
        return TrainingBatch.of(samples, conditions=conditions)

    def _conditions(self, record: PairRecord) -> list[PreparedSketch]:
        """Returns the pairs and, if the adapter reads it, the global sketch, by default composed of theirs."""
        if self.module.whole is None:
            return [*record.pairs]
        whole = record.whole or self.module.composed(record.pairs)
        return [*record.pairs, *([] if whole is None else [whole])]

    def loss(self, batch: TrainingBatch[PairedBatch], generator: torch.Generator, micro: int) -> Float[Tensor, ""]:
        features = self.module.features(self._dropped(batch.conditions, generator), self.encoders)
        return self.denoising_loss(self.denoiser(self.module(features)), batch.latents, batch.captions, generator)

    def _dropped(self, batch: PairedBatch, generator: torch.Generator) -> PairedBatch:
        """Randomly drops pairs, sketches, texts, global sketches, whole designs (to the null condition) and regions."""
        config, shape, device = self.config, batch.pair_mask.shape, batch.pair_mask.device

        def drawn(share: float, *size: int) -> Bool[Tensor, "..."]:
            return (torch.rand(size, generator=generator) < share).to(device)

        null, pairs = drawn(config.null_dropout, shape[0], 1), drawn(config.pair_dropout, *shape)
        everywhere = bool(drawn(1 - config.region_share, 1))
        sketches, texts = drawn(config.sketch_dropout, *shape), drawn(config.text_dropout, *shape)
        wholes = None if batch.whole is None else drawn(config.global_sketch_dropout, shape[0])
        kept = batch.without(pairs=pairs, sketches=sketches, texts=texts, null=null, wholes=wholes)
        return replace(kept, region=None) if everywhere else kept

    def validate(self, step: int, folder: Path) -> Mapping[str, float]:
        """Writes images of the validation designs, each below its composed sketch and its target, as one PNG."""
        if self.validation:
            prompts, designs = zip(*self.validation, strict=True)
            above = [_composed(design) for design in designs]
            if self.module.whole is not None:
                designs = [[*design, GlobalSketch(one)] for design, one in zip(designs, above, strict=True)]
            self.sheet(folder / f"{step:06d}.png", prompts, designs, above, self.targets)
        return {}


def _composed(design: Sequence[SketchTextPair]) -> Image.Image:
    """Draws all sketches of a design on one canvas."""
    sketches = [pair.sketch for pair in design if isinstance(pair.sketch, Image.Image)]
    return compose_sketches([s.resize(sketches[0].size) for s in sketches]) if sketches else Image.new("L", (8, 8), 255)
