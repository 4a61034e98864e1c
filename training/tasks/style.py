"""The training task of styles: style names condition a frozen denoiser."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from weftwork.attention_processors.style.adapter import Style, StyleBatch, StyleReader
from weftwork.training.data.styles import StyledRecord
from weftwork.training.tasks.adapter import AdapterTask, TrainingBatch
from weftwork.training.tasks.options import StyleConfig


def dropped(
    config: StyleConfig, captions: Sequence[tuple[str, ...]], generator: torch.Generator
) -> tuple[list[tuple[str, ...]], Bool[Tensor, " design"]]:
    """Drops captions and conditions; returns the captions, and a mask of the images with the null condition."""
    draws = torch.rand(2, len(captions), generator=generator)
    both = draws[1] < config.joint_dropout
    kept = [("",) if none else row for none, row in zip(both.tolist(), captions, strict=True)]
    return kept, both | (draws[0] < config.style_dropout)


class StyleTask(AdapterTask):
    """Trains latents of styled images with captions of their content.

    Args:
        validation: prompts; validation generates every style for each of them.
    """

    module: StyleReader

    def __init__(self, module: StyleReader, pipe: Any, config: StyleConfig, validation: Sequence[str] = ()) -> None:
        super().__init__(module, pipe, "style", config)
        self.config, self.validation = config, validation

    def collate(self, samples: list[StyledRecord]) -> TrainingBatch[StyleBatch]:
        return TrainingBatch.of(samples, conditions=self.module.collate([[Style(one.style)] for one in samples]))

    def loss(
        self, module: nn.Module, batch: TrainingBatch[StyleBatch], generator: torch.Generator, micro: int
    ) -> Float[Tensor, ""]:
        captions, null = dropped(self.config, batch.captions, generator)
        features = self.module.features(replace(batch.conditions, null=null), self.encoders)
        return self.denoising_loss(self.denoiser(module(features)), batch.latents, captions, generator)

    def validate(self, module: Any, step: int, folder: Path) -> Mapping[str, float]:
        """Writes images of all styles, one PNG per validation prompt."""
        styles = self.module.config["styles"]
        for i, prompt in enumerate(self.validation):
            self.sheet(folder / f"{step:06d}-{i}.png", [prompt] * len(styles), [[Style(name)] for name in styles])
        return {}
