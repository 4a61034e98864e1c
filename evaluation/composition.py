"""What conditions of several kinds do to one picture, each alone and all together.

The pictures are outfits. Pairs say what each garment is and where; a style, trained on creatures, says how all of it
looks; a LoRA says the same style in the words of the prompt; a ControlNet shows the sketches as one. The oracles see
the picture only.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np

from weft.attention_processors.style import Style
from weft.datasets.creature_texts import STYLE_WORDS
from weft.datasets.creatures import STYLES
from weft.datasets.outfits import PROMPT
from weft.evaluation.creature_oracle import CreatureOracle
from weft.evaluation.evaluation import Drawn, Evaluation
from weft.evaluation.oracle import Oracle
from weft.evaluation.outfit_scores import score_outfits
from weft.evaluation.paired import composed, outfits_of, pairs
from weft.pipelines.conditioned import ConditionedStableDiffusionControlNetPipeline

ROWS: Final[Mapping[str, tuple[str, ...]]] = {
    "no_condition": (),
    "pairs": ("pairs",),
    "style": ("style",),
    "lora": ("lora",),
    "controlnet": ("controlnet",),
    "pairs_style": ("pairs", "style"),
    "pairs_style_at_0.75": ("pairs", "style"),
    "pairs_style_at_0.5": ("pairs", "style"),
    "pairs_lora": ("pairs", "lora"),
    "pairs_controlnet": ("pairs", "controlnet"),
    "together": ("pairs", "style", "lora", "controlnet"),
}
"""By row the parts that act in it."""
WEIGHTS: Final[Mapping[str, float]] = {"pairs_style_at_0.75": 0.75, "pairs_style_at_0.5": 0.5}
"""Of the style, where it is not 1."""


@dataclass(frozen=True, kw_only=True)
class CompositionEvaluation(Evaluation):
    """Outfits, each in one of the styles.

    Args:
        pipe: with the adapters `paired` and `style`.
        lora: what `load_lora_weights` reads; None leaves its rows out.
        controlnet: a `ControlNetModel` that reads dark strokes on white; None leaves its rows out.
        oracle, style_oracle: read outfits, and styles.
    """

    name: ClassVar[str] = "composition"

    lora: Path | None
    controlnet: Any
    oracle: Oracle
    style_oracle: CreatureOracle

    def rows(self) -> dict[str, Callable[[], Drawn]]:
        missing = {name for name in ("lora", "controlnet") if getattr(self, name) is None}
        return {
            name: lambda name=name, parts=parts: self._row(name, parts)
            for name, parts in ROWS.items()
            if not missing & set(parts)
        }

    @cached_property
    def styles(self) -> list[str]:
        """The style of each outfit."""
        return [STYLES[i % len(STYLES)] for i in range(self.count)]

    def _row(self, name: str, parts: Sequence[str]) -> Drawn:
        drawn = outfits_of(self.split, self.seed, self.count)
        conditions: dict[str, Sequence[Any]] = {}
        if "pairs" in parts:
            conditions["paired"] = [pairs(one) for one in drawn]
        if "style" in parts:
            conditions["style"] = [[Style(style, weight=WEIGHTS.get(name, 1.0))] for style in self.styles]
        pipe: Any = self.pipe
        prompts, images = [PROMPT] * self.count, None
        if "controlnet" in parts:
            pipe = ConditionedStableDiffusionControlNetPipeline.from_pipe(pipe, controlnet=self.controlnet)
            images = [composed(one).convert("RGB") for one in drawn]
        if "lora" in parts:
            prompts = [f"{PROMPT}, {STYLE_WORDS[style][0]}" for style in self.styles]
        try:
            if "lora" in parts:
                pipe.load_lora_weights(self.lora, adapter_name="lora")
            pictures = self.generated(name, prompts, conditions, pipe, images)
        finally:
            if "lora" in parts:
                pipe.unload_lora_weights()
        scores = asdict(score_outfits(drawn, self.oracle.read(pictures)))
        seen = [reading.style for reading in self.style_oracle.read(pictures)]
        return pictures, {
            **scores,
            "style_accuracy": float(np.mean([s == t for s, t in zip(seen, self.styles, strict=True)])),
        }
