"""Evaluation of sketch-text pairs on unseen outfits, read by the oracle, with upper bounds and baselines.

Rows of pairs share one constant prompt, so only the pairs carry attributes. All outfits are from the test split, whose
triples of kind, colour and pattern are not in the training split.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import ClassVar, Final, Self

import numpy as np
from torch import nn

from weftwork.attention_processors.paired.conditions import SketchTextPair
from weftwork.attention_processors.paired.samples import merged, pair, pairs
from weftwork.datasets.synthetic.outfits import PROMPT, OutfitSample, sample
from weftwork.datasets.synthetic.outfits import texts as outfit_texts
from weftwork.evaluation.core.images import as_tensor
from weftwork.evaluation.core.runner import Drawn, Evaluation, Images
from weftwork.evaluation.oracles.outfits import Oracle, pretrained_oracle
from weftwork.evaluation.scores.outfits import score_outfits
from weftwork.pipelines.core.mixin import ConditionedPipelineMixin


@dataclass(frozen=True)
class PairedRow:
    """Prompt, adapter and conditions of a generated row.

    Args:
        design: conditions of an outfit; None for none.
        caption: whether the prompt is the outfit's caption instead of the constant one.
        adapter: name of the adapter that reads the conditions.
        number: garments per outfit; None for one to four.
        style: style of the sketches.
    """

    design: Callable[[OutfitSample], list[SketchTextPair]] | None = None
    caption: bool = False
    adapter: str = "paired"
    number: int | None = None
    style: str = "professional"


@dataclass(frozen=True, kw_only=True)
class PairedEvaluation(Evaluation[ConditionedPipelineMixin]):
    """Evaluation on outfits of a pipeline with the adapter `paired`, and optionally the baseline `global_sketch`."""

    name: ClassVar[str] = "paired"
    other_cases: ClassVar[Collection[str]] = ("texts_swapped", "sketches_swapped", *(f"pairs_{n}" for n in range(1, 5)))

    oracle: Oracle

    @classmethod
    def open(cls, pipe: ConditionedPipelineMixin, folders: Mapping[str, Sequence[Path]]) -> Self:
        pipe.load_adapter(folders["adapter"][0], "paired")
        if "baseline" in folders:
            pipe.load_adapter(folders["baseline"][0], "global_sketch")
        return cls(pipe=pipe, oracle=pretrained_oracle())

    def rows(self) -> dict[str, Callable[[], Drawn]]:
        attached = {"paired", *(self.pipe.adapters or ())}
        bounds = self.bounds(
            lambda: as_tensor([s.image for s in self._outfits()]),
            lambda images: self._scored(self._outfits(), images),
        )
        return bounds | {
            name: partial(self._generated, name, row) for name, row in ROWS.items() if row.adapter in attached
        }

    def _outfits(self, number: int | None = None, style: str = "professional") -> tuple[OutfitSample, ...]:
        return outfits_of(self.split, self.seed, self.count, number, style)

    def _scored(self, samples: Sequence[OutfitSample], images: Images) -> Drawn:
        return images, asdict(score_outfits(samples, self.oracle.read(images)))

    def _generated(self, name: str, row: PairedRow) -> Drawn:
        samples = self._outfits(row.number, row.style)
        prompts = [s.caption if row.caption else PROMPT for s in samples]
        conditions = {row.adapter: [row.design and row.design(s) for s in samples]}
        return self._scored(samples, self.generated(name, prompts, conditions))


def validate(pipe: ConditionedPipelineMixin, module: nn.Module) -> PairedEvaluation:
    """Returns the evaluation of the attached adapter on validation cases."""
    return PairedEvaluation(pipe=pipe, oracle=pretrained_oracle(), split="validation")


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


def reworded(drawn: OutfitSample) -> OutfitSample:
    """Returns the outfit with texts in other words: the pattern before the colour, or no article."""
    rng = np.random.default_rng(list(" ".join(drawn.texts).encode()))
    return replace(drawn, texts=tuple(outfit_texts.reworded(garment, rng) for garment in drawn.garments))


ROWS: Final[Mapping[str, PairedRow]] = {
    "no_condition": PairedRow(),
    "text_only": PairedRow(caption=True),
    "global_sketch": PairedRow(merged, adapter="global_sketch"),
    "global_sketch_unnamed": PairedRow(lambda s: merged(unnamed(s)), adapter="global_sketch"),
    "pairs_without_regions": PairedRow(partial(pairs, region=None)),
    "pairs": PairedRow(pairs),
    "pairs_reworded": PairedRow(lambda s: pairs(reworded(s))),
    "pairs_unnamed": PairedRow(lambda s: pairs(unnamed(s))),
    "pairs_wild": PairedRow(pairs, style="wild"),
    "texts_swapped": PairedRow(_texts_swapped),
    "sketches_swapped": PairedRow(_sketches_swapped),
    **{f"pairs_{number}": PairedRow(pairs, number=number) for number in (1, 2, 3, 4)},
}
"""Rows of generated images, in the order of the report."""
