"""The training task of the paired method: the frozen denoiser predicts better with the pairs than without."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from weftwork.attention_processors.paired.adapter import PairedAdapter
from weftwork.attention_processors.paired.conditions import SketchTextPair, stack_pairs
from weftwork.datasets.readers.images import compose_sketches
from weftwork.training.data.pairs import PairRecord
from weftwork.training.tasks.adapter import AdapterTask
from weftwork.training.tasks.options import PairedConfig


class PairedTask(AdapterTask):
    """Pairs of one design and their picture's latents.

    Args:
        validation: prompts and designs whose pictures are drawn at every validation.
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

    def collate(self, samples: list[PairRecord]) -> dict[str, Any]:
        blank = self.module.pixels(None)
        batch = stack_pairs([record.pairs for record in samples], blank)
        latents = torch.stack([record.latents for record in samples])
        return {**batch, "latents": latents, "captions": [record.captions for record in samples]}

    def loss(
        self, module: nn.Module, batch: dict[str, Any], generator: torch.Generator, micro: int
    ) -> Float[Tensor, ""]:
        with torch.no_grad():
            features = self.module.features(self._dropped(batch, generator), self.encoders)
        return self.denoising_loss(self.denoiser(module(features)), batch["latents"], batch["captions"], generator)

    def _dropped(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Any]:
        """Independent dropout of pairs, sketches, texts, whole designs (to the null condition) and regions."""
        config, shape = self.config, batch["pair_mask"].shape

        def kept(share: float, *size: int) -> Tensor:
            return (torch.rand(size, generator=generator) >= share).to(batch["pair_mask"].device)

        null = kept(config.null_dropout, shape[0], 1)
        here = kept(config.pair_dropout, *shape)
        with_region = bool(kept(1 - config.region_share, 1))
        return {
            **batch,
            "pair_mask": batch["pair_mask"] & here,
            "weight": batch["weight"] * here,
            "has_sketch": batch["has_sketch"] & kept(config.sketch_dropout, *shape) & null,
            "has_text": batch["has_text"] & kept(config.text_dropout, *shape) & null,
            "region": batch["region"] if with_region else None,
        }

    def validate(self, module: Any, step: int, folder: Path) -> Mapping[str, float]:
        """Pictures of the validation designs, each under its composed sketch, as one PNG."""
        if self.validation:
            prompts, designs = zip(*self.validation, strict=True)
            self.sheet(folder / f"{step:06d}.png", prompts, designs, [_composed(design) for design in designs])
        return {}


def _composed(design: Sequence[SketchTextPair]) -> Image.Image:
    """All sketches of a design on one canvas."""
    sketches = [pair.sketch for pair in design if isinstance(pair.sketch, Image.Image)]
    return compose_sketches([s.resize(sketches[0].size) for s in sketches]) if sketches else Image.new("L", (8, 8), 255)
