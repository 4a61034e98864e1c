"""Evaluation of several methods on one image, each alone and all together.

The images are outfits. Pairs describe and place each garment; a style adapter sets the style; a ControlNet reads all
sketches as one image. Garments and style are read from the image alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar, Final, Self

import numpy as np
from diffusers import ControlNetModel
from torch import nn

from weftwork.attention_processors.core.condition import Condition
from weftwork.attention_processors.paired.samples import composed, pairs
from weftwork.attention_processors.style.adapter import Style
from weftwork.datasets.synthetic.outfits import PROMPT, STYLES, sample
from weftwork.evaluation.core.images import as_tensor
from weftwork.evaluation.core.loading import load_adapters
from weftwork.evaluation.core.runner import Drawn, Evaluation, Images
from weftwork.evaluation.methods.paired import outfits_of
from weftwork.evaluation.oracles.outfits import Oracle, pretrained_oracle
from weftwork.evaluation.oracles.styles import StyleReader, fitted_reader
from weftwork.evaluation.scores.outfits import score_outfits
from weftwork.pipelines.core.mixin import ConditionedPipelineMixin, ConditionedStableDiffusionControlNetPipeline
from weftwork.pipelines.core.opening import open_controlnet

ROWS: Final[Mapping[str, tuple[str, ...]]] = {
    "no_condition": (),
    "pairs": ("pairs",),
    "style": ("style",),
    "controlnet": ("controlnet",),
    "pairs_style": ("pairs", "style"),
    "pairs_style_at_0.75": ("pairs", "style"),
    "pairs_style_at_0.5": ("pairs", "style"),
    "pairs_controlnet": ("pairs", "controlnet"),
    "together": ("pairs", "style", "controlnet"),
}
"""Active parts by row."""
WEIGHTS: Final[Mapping[str, float]] = {"pairs_style_at_0.75": 0.75, "pairs_style_at_0.5": 0.5}
"""Weight of the style by row, where it is not 1."""


@dataclass(frozen=True, kw_only=True)
class CompositionEvaluation(Evaluation[ConditionedPipelineMixin]):
    """Evaluation on outfits, each in one of the styles.

    Args:
        pipe: pipeline with the adapters `paired` and `style`.
        controlnet: a `ControlNetModel` that reads dark strokes on white; None skips its rows.
        oracle, style_reader: classifiers of garments and of styles.
    """

    name: ClassVar[str] = "composition"

    controlnet: ControlNetModel | None
    oracle: Oracle
    style_reader: StyleReader

    @classmethod
    def open(cls, pipe: ConditionedPipelineMixin, folders: Mapping[str, Sequence[Path]]) -> Self:
        files = {name: several[0] for name, several in folders.items()}
        load_adapters(pipe, files, ("paired", "style"))
        return cls(
            pipe=pipe,
            controlnet=open_controlnet(files["controlnet"], pipe) if "controlnet" in files else None,
            oracle=pretrained_oracle(styled=True),
            style_reader=fitted_reader(),
        )

    def rows(self) -> dict[str, Callable[[], Drawn]]:
        shown = {name: some for name, some in ROWS.items() if self.controlnet is not None or "controlnet" not in some}
        bounds = self.bounds(self._renders, self._scored)
        return bounds | {name: partial(self._generated, name, parts) for name, parts in shown.items()}

    @cached_property
    def styles(self) -> list[str]:
        """The style of each outfit."""
        return [STYLES[i % len(STYLES)] for i in range(self.count)]

    def _renders(self) -> Images:
        """Returns the ground-truth renders."""
        drawn = [sample(self.split, i, seed=self.seed, style=style) for i, style in enumerate(self.styles)]
        return as_tensor([one.image for one in drawn])

    def _generated(self, name: str, parts: Sequence[str]) -> Drawn:
        drawn = outfits_of(self.split, self.seed, self.count)
        conditions: dict[str, Sequence[Sequence[Condition]]] = {}
        if "pairs" in parts:
            conditions["paired"] = [pairs(one) for one in drawn]
        if "style" in parts:
            conditions["style"] = [[Style(style, weight=WEIGHTS.get(name, 1.0))] for style in self.styles]
        pipe, images = self.pipe, None
        if "controlnet" in parts:
            pipe = ConditionedStableDiffusionControlNetPipeline.from_pipe(pipe, controlnet=self.controlnet)
            assert isinstance(pipe, ConditionedPipelineMixin)
            images = [composed(one).convert("RGB") for one in drawn]
        return self._scored(self.generated(name, [PROMPT] * self.count, conditions, pipe, images))

    def _scored(self, images: Images) -> Drawn:
        drawn = outfits_of(self.split, self.seed, self.count)
        seen = self.style_reader.read(images)
        return images, {
            **asdict(score_outfits(drawn, self.oracle.read(images))),
            "style_accuracy": float(np.mean([s == t for s, t in zip(seen, self.styles, strict=True)])),
        }


def validate(pipe: ConditionedPipelineMixin, module: nn.Module) -> CompositionEvaluation:
    """Returns the evaluation of the attached adapter of styles on validation cases."""
    oracle, reader = pretrained_oracle(styled=True), fitted_reader()
    return CompositionEvaluation(pipe=pipe, controlnet=None, oracle=oracle, style_reader=reader, split="validation")
