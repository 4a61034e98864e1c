"""A ControlNet on sketches of whole outfits, to compose and compare with weftwork's conditions."""

from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from weftwork.pipelines.core.mixin import ConditionedPipelineMixin
from weftwork.training.core.config import ObjectiveConfig
from weftwork.training.data.pairs import PairRecord
from weftwork.training.tasks.adapter import ImageBatch
from weftwork.training.tasks.controlnet import ControlNetTask, new_controlnet

EMBEDDING_CHANNELS: Final = (16, 32, 64, 96)
"""Channels of the layers that encode the control image."""


@dataclass(frozen=True, eq=False)
class SketchedBatch(ImageBatch):
    """Latents and captions of images, with their control images."""

    sketches: Float[Tensor, "design 3 height width"]


class SketchControlNetTask(ControlNetTask[PairRecord, SketchedBatch]):
    """Trains on designs of one merged pair; the control image is the sketch, dark strokes on white."""

    def __init__(self, pipe: ConditionedPipelineMixin, objective: ObjectiveConfig) -> None:
        super().__init__(new_controlnet(pipe, 1.0, EMBEDDING_CHANNELS), pipe, "controlnet", objective)

    def collate(self, samples: list[PairRecord]) -> SketchedBatch:
        return SketchedBatch.of(samples, sketches=torch.stack([self._drawn(record) for record in samples]))

    @staticmethod
    def _drawn(record: PairRecord) -> Float[Tensor, "3 size size"]:
        (pair,) = record.pairs
        assert pair.pixels is not None
        return (1 - pair.pixels[:1]).expand(3, -1, -1)

    def loss(self, batch: SketchedBatch, generator: torch.Generator, micro: int) -> Float[Tensor, ""]:
        return self.denoising_loss(self.controlled(batch.sketches), batch.latents, batch.captions, generator)
