"""The training task of the paired method: pairs of sketch and text condition a frozen denoiser."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor, nn

from weftwork.attention_processors.paired.adapter import PairedAdapter
from weftwork.attention_processors.paired.batch import PairedBatch
from weftwork.attention_processors.paired.conditions import GlobalSketch, PreparedSketch, SketchTextPair
from weftwork.datasets.readers.images import compose_sketches
from weftwork.training.data.pairs import PairRecord
from weftwork.training.tasks.adapter import AdapterTask, TrainingBatch
from weftwork.training.tasks.options import PairedConfig


class PairedTask(AdapterTask):
    """Trains image latents with pairs of sketch and text as conditions.

    Args:
        validation: prompts and pairs of the images that validation generates.
    """

    module: PairedAdapter

    def __init__(
        self,
        module: PairedAdapter,
        pipe: Any,
        config: PairedConfig,
        validation: Sequence[tuple[str, Sequence[SketchTextPair]]] = (),
    ) -> None:
        super().__init__(module, pipe, "paired", config)
        self.config, self.validation = config, validation

    def collate(self, samples: list[PairRecord]) -> TrainingBatch[PairedBatch]:
        conditions = self.module.collate([self._conditions(record) for record in samples])
        return TrainingBatch.of(samples, conditions=conditions)

    def _conditions(self, record: PairRecord) -> list[PreparedSketch]:
        """Returns the pairs and, if the adapter reads it, the global sketch, by default composed of theirs."""
        if self.module.whole is None:
            return [*record.pairs]
        whole = record.whole or self.module.composed(record.pairs)
        return [*record.pairs, *([] if whole is None else [whole])]

    def loss(
        self, module: nn.Module, batch: TrainingBatch[PairedBatch], generator: torch.Generator, micro: int
    ) -> Float[Tensor, ""]:
        features = self.module.features(self._dropped(batch.conditions, generator), self.encoders)
        return self.denoising_loss(self.denoiser(module(features)), batch.latents, batch.captions, generator)

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

    def validate(self, module: Any, step: int, folder: Path) -> Mapping[str, float]:
        """Writes images of the validation designs, each below its composed sketch, as one PNG."""
        if self.validation:
            prompts, designs = zip(*self.validation, strict=True)
            above = [_composed(design) for design in designs]
            if self.module.whole is not None:
                designs = [[*design, GlobalSketch(one)] for design, one in zip(designs, above, strict=True)]
            self.sheet(folder / f"{step:06d}.png", prompts, designs, above)
        return {}


def _composed(design: Sequence[SketchTextPair]) -> Image.Image:
    """Draws all sketches of a design on one canvas."""
    sketches = [pair.sketch for pair in design if isinstance(pair.sketch, Image.Image)]
    return compose_sketches([s.resize(sketches[0].size) for s in sketches]) if sketches else Image.new("L", (8, 8), 255)
