"""Evaluation of sketch-text pairs on unseen outfits, read by the oracle, with upper bounds and baselines.

Rows of pairs share one constant prompt, so only the pairs carry attributes. All outfits are from the test split, whose
triples of kind, colour and pattern are not in the training split.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

import torch

from weftwork.attention_processors.paired.conditions import SketchTextPair
from weftwork.attention_processors.paired.samples import merged, pair, pairs
from weftwork.datasets.synthetic.outfits import PROMPT, OutfitSample, sample
from weftwork.datasets.synthetic.outfits import texts as outfit_texts
from weftwork.evaluation.core.images import as_tensor, reconstructed
from weftwork.evaluation.core.runner import Drawn, Evaluation
from weftwork.evaluation.oracles.outfits import Oracle, pretrained_oracle
from weftwork.evaluation.scores.outfits import score_outfits

Designs = list[list[SketchTextPair]] | None


@dataclass(frozen=True, kw_only=True)
class PairedEvaluation(Evaluation):
    """Evaluation on outfits of a pipeline with the adapter `paired`, and optionally the baseline `global_sketch`."""

    name: ClassVar[str] = "paired"

    oracle: Oracle

    def rows(self) -> dict[str, Callable[[], Drawn]]:
        rows: dict[str, Callable[[], Drawn]] = {
            "real": lambda: self._given(lambda images: images),
            "reconstruction": lambda: self._given(lambda images: reconstructed(self.pipe, images)),
            "no_condition": lambda: self._generated("no_condition", lambda _: None),
            "text_only": lambda: self._generated("text_only", lambda _: None, prompts=lambda s: s.caption),
        }
        if "global_sketch" in (self.pipe.adapters or ()):
            for name, make in (("global_sketch", merged), ("global_sketch_unnamed", lambda s: merged(unnamed(s)))):
                rows[name] = lambda name=name, make=make: self._generated(name, make, adapter="global_sketch")
        rows |= {
            "pairs_without_regions": lambda: self._generated("pairs_without_regions", lambda s: pairs(s, region=None)),
            "pairs": lambda: self._generated("pairs", pairs),
            "pairs_unnamed": lambda: self._generated("pairs_unnamed", lambda s: pairs(unnamed(s))),
            "pairs_wild": lambda: self._generated("pairs_wild", pairs, style="wild"),
            "texts_swapped": lambda: self._generated("texts_swapped", _texts_swapped),
            "sketches_swapped": lambda: self._generated("sketches_swapped", _sketches_swapped),
        }
        for number in (1, 2, 3, 4):
            name = f"pairs_{number}"
            rows[name] = lambda name=name, number=number: self._generated(name, pairs, number=number)
        return rows

    def _given(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Drawn:
        samples = outfits_of(self.split, self.seed, self.count)
        return self._scored(samples, change(as_tensor([s.image for s in samples])))

    def _scored(self, samples: Sequence[OutfitSample], images: torch.Tensor) -> Drawn:
        return images, asdict(score_outfits(samples, self.oracle.read(images)))

    def _generated(
        self,
        name: str,
        design: Callable[[OutfitSample], list[SketchTextPair] | None],
        *,
        prompts: Callable[[OutfitSample], str] = lambda _: PROMPT,
        adapter: str = "paired",
        number: int | None = None,
        style: str = "professional",
    ) -> Drawn:
        samples = outfits_of(self.split, self.seed, self.count, number, style)
        conditions = {adapter: [design(s) for s in samples]}
        return self._scored(samples, self.generated(name, [prompts(s) for s in samples], conditions))


def validate(pipe: Any, module: Any, count: int) -> tuple[PairedEvaluation, str]:
    """Returns the evaluation of the attached adapter on validation cases, and its row."""
    return PairedEvaluation(pipe=pipe, oracle=pretrained_oracle(), split="validation", count=count), "pairs"


@lru_cache(maxsize=3)
def outfits_of(
    split: str, seed: int, count: int, number: int | None = None, sketch_style: str = "professional"
) -> tuple[OutfitSample, ...]:
    """Returns the first outfits of a split; cached for up to three seeds."""
    return tuple(sample(split, i, seed=seed, count=number, sketch_style=sketch_style) for i in range(count))


def _texts_swapped(drawn: OutfitSample) -> list[SketchTextPair]:
    texts = [*drawn.texts[1:], drawn.texts[0]]
    return [pair(s, t) for s, t in zip(drawn.sketches, texts, strict=True)]


def _sketches_swapped(drawn: OutfitSample) -> list[SketchTextPair]:
    sketches = [*drawn.sketches[1:], drawn.sketches[0]]
    return [pair(s, t) for s, t in zip(sketches, drawn.texts, strict=True)]


def unnamed(drawn: OutfitSample) -> OutfitSample:
    """Returns the outfit with texts of colours and patterns only; sketches and regions assign them to garments.

    Garments are sorted by their texts, so that their order does not reveal their kinds.
    """
    order, texts = zip(*outfit_texts.unnamed(drawn.garments), strict=True)
    chosen = list(order)
    garments = tuple(drawn.garments[i] for i in chosen)
    return replace(drawn, garments=garments, masks=drawn.masks[chosen], sketches=drawn.sketches[chosen], texts=texts)
