"""Evaluation of attention control on prompts of two and three garments, read by the oracle."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Final, Self

import numpy as np

from weftwork.attention_processors.attention_control.adapter import AttentionControlAdapter
from weftwork.attention_processors.attention_control.conditions import Attend
from weftwork.datasets.synthetic.outfits import OutfitSample
from weftwork.datasets.synthetic.outfits.texts import caption
from weftwork.evaluation.core.images import as_tensor
from weftwork.evaluation.core.runner import Drawn, Evaluation, Images
from weftwork.evaluation.methods.paired import outfits_of
from weftwork.evaluation.oracles.outfits import Oracle, pretrained_oracle
from weftwork.pipelines.core.mixin import ConditionedPipelineMixin

NAME: Final = "attention_control"
COUNTS: Final = (2, 3)
"""Garments per prompt."""


@dataclass(frozen=True, kw_only=True)
class AttentionControlEvaluation(Evaluation[ConditionedPipelineMixin]):
    """Evaluation of a pipeline with `AttentionControlAdapter`: prompts alone, and each garment attended to."""

    name: ClassVar[str] = "attention-control"
    other_cases: ClassVar[Collection[str]] = tuple(f"{row}_3" for row in ("real", "text_only", "attend"))

    oracle: Oracle

    @classmethod
    def open(cls, pipe: ConditionedPipelineMixin, folders: Mapping[str, Sequence[Path]]) -> Self:
        pipe.attach(**{NAME: AttentionControlAdapter.for_denoiser(pipe.unet)})
        return cls(pipe=pipe, oracle=pretrained_oracle())

    def rows(self) -> dict[str, Callable[[], Drawn]]:
        found: dict[str, Callable[[], Drawn]] = {}
        for count in COUNTS:
            found[f"real_{count}"] = partial(self._real, count)
            found[f"text_only_{count}"] = partial(self._generated, f"text_only_{count}", count, False)
            found[f"attend_{count}"] = partial(self._generated, f"attend_{count}", count, True)
        return found

    def _samples(self, count: int) -> tuple[OutfitSample, ...]:
        return outfits_of(self.split, self.seed, self.count, count)

    def _real(self, count: int) -> Drawn:
        samples = self._samples(count)
        return self._scored(samples, as_tensor([one.image for one in samples]))

    def _generated(self, name: str, count: int, attend: bool) -> Drawn:
        samples = self._samples(count)
        prompts = [caption(one.garments, np.random.default_rng([self.seed, i])) for i, one in enumerate(samples)]
        subjects = [[Attend(garment.kind) for garment in one.garments] for one in samples]
        begin = time.perf_counter()
        images = self.generated(name, prompts, {NAME: subjects} if attend else {})
        seconds = (time.perf_counter() - begin) / len(samples)
        images, scores = self._scored(samples, images)
        return images, {**scores, "seconds": seconds}

    def _scored(self, samples: Sequence[OutfitSample], images: Images) -> Drawn:
        """Scores images: shares of garments whose kind appears, and with colour and pattern; and of images with all."""
        kinds, whole = [], []
        for sample, reading in zip(samples, self.oracle.read(images), strict=True):
            seen = [(garment, reading.slots.get(garment.slot)) for garment in sample.garments]
            kinds.append([one is not None and one.kind == garment.kind for garment, one in seen])
            whole.append([
                one is not None and all(getattr(one, key) == getattr(garment, key) for key in LOOKS)
                for garment, one in seen
            ])  # fmt: skip
        return images, {
            "kinds": float(np.mean(kinds)),
            "subjects": float(np.mean(whole)),
            "all_kinds": float(np.mean([all(row) for row in kinds])),
            "all_subjects": float(np.mean([all(row) for row in whole])),
        }


LOOKS: Final = ("kind", "color", "pattern")
"""What the oracle has to read of a garment."""
