"""Evaluation of ControlNets on hands of the test split, whose joints are known."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar, Final, Self

import numpy as np
from diffusers import ControlNetModel
from PIL import Image

from weftwork.datasets.synthetic.hands import HandSample, sample
from weftwork.evaluation.core.images import as_bytes, as_tensor
from weftwork.evaluation.core.loading import of_seed
from weftwork.evaluation.core.runner import Drawn, Evaluation, Images
from weftwork.evaluation.scores.hands import score_hands
from weftwork.pipelines.core.mixin import ConditionedPipelineMixin, ConditionedStableDiffusionControlNetPipeline
from weftwork.pipelines.core.opening import open_controlnet

OTHERS: Final = 1_000_000
"""Index of the first of the other hands."""


@dataclass(frozen=True, kw_only=True)
class PartEvaluation(Evaluation[ConditionedPipelineMixin]):
    """Evaluation on hands, one image each.

    Args:
        controlnets: `ControlNetModel`s by row; of several, trained with different seeds, the evaluation's seed chooses
            one.
    """

    name: ClassVar[str] = "parts"
    other_cases: ClassVar[Collection[str]] = ("other_hand",)

    controlnets: Mapping[str, Sequence[ControlNetModel]]

    @classmethod
    def open(cls, pipe: ConditionedPipelineMixin, folders: Mapping[str, Sequence[Path]]) -> Self:
        return cls(
            pipe=pipe,
            controlnets={name: [open_controlnet(one, pipe) for one in some] for name, some in folders.items()},
        )

    @cached_property
    def hands(self) -> list[HandSample]:
        """Hands of the split."""
        return [sample(self.split, index, self.seed) for index in range(self.count)]

    def rows(self) -> dict[str, Callable[[], Drawn]]:
        rows = self.bounds(lambda: self._resized(self.hands), self._scored)
        rows |= {"other_hand": self._others, "no_condition": partial(self._generated, "no_condition")}
        return rows | {
            name: partial(self._generated, name, one) for name, one in of_seed(self.controlnets, self.seed).items()
        }

    def _resized(self, hands: Sequence[HandSample]) -> Images:
        size = (self.side, self.side)
        return as_tensor([np.asarray(Image.fromarray(one.image).resize(size, Image.Resampling.BOX)) for one in hands])

    def _others(self) -> Drawn:
        """Scores true images of other hands."""
        return self._scored(self._resized([sample(self.split, OTHERS + i, self.seed) for i in range(self.count)]))

    def _generated(self, name: str, controlnet: ControlNetModel | None = None) -> Drawn:
        pipe, control = self.pipe, None
        if controlnet is not None:
            pipe = ConditionedStableDiffusionControlNetPipeline.from_pipe(pipe, controlnet=controlnet)
            assert isinstance(pipe, ConditionedPipelineMixin)
            size = (pipe.unet.config["sample_size"] * pipe.vae_scale_factor,) * 2
            control = [Image.fromarray(one.control).resize(size, Image.Resampling.BOX) for one in self.hands]
        return self._scored(self.generated(name, [one.caption for one in self.hands], {}, pipe, control))

    def _scored(self, images: Images) -> Drawn:
        return images, score_hands(as_bytes(images), self.hands)
