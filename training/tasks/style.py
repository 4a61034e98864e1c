"""The training task of styles: the frozen denoiser predicts pictures of a style better with the style than without."""

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
    """Captions, empty where both are dropped, and which designs get the null condition."""
    draws = torch.rand(2, len(captions), generator=generator)
    both = draws[1] < config.joint_dropout
    kept = [("",) if none else row for none, row in zip(both.tolist(), captions, strict=True)]
    return kept, both | (draws[0] < config.style_dropout)


class StyleTask(AdapterTask):
    """Latents of styled pictures, with captions of what they show.

    Args:
        validation: prompts; every style is drawn for each of them, one row per prompt.
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
        """All styles of the validation prompts as PNGs, one per prompt."""
        styles = self.module.config["styles"]
        for i, prompt in enumerate(self.validation):
            self.sheet(folder / f"{step:06d}-{i}.png", [prompt] * len(styles), [[Style(name)] for name in styles])
        return {}
