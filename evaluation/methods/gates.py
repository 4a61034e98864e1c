"""Evaluation of gates: style adapters whose fusions differ, on the cases of `weftwork evaluate drawings`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar, Final, Self

from weftwork.evaluation.core.loading import Trained, load_trained, of_seed
from weftwork.evaluation.core.runner import Drawn
from weftwork.evaluation.measurements.gates import FUSIONS
from weftwork.evaluation.methods.drawings import DrawingsEvaluation, guidance_rescale, style_by_name, unstyled
from weftwork.evaluation.scores.scenes import Judge
from weftwork.pipelines.core.mixin import ConditionedPipelineMixin

BOUNDS: Final = ("real", "reconstruction", "text_unstyled")


@dataclass(frozen=True, kw_only=True)
class GatesEvaluation(DrawingsEvaluation):
    """Evaluation of style adapters by fusion."""

    name: ClassVar[str] = "gates"

    trained: Trained = field(default_factory=dict)

    @classmethod
    def open(cls, pipe: ConditionedPipelineMixin, folders: Mapping[str, Sequence[Path]]) -> Self:
        judge, trained = Judge.open(folders), load_trained(pipe, folders, FUSIONS)
        return cls(pipe=pipe, judge=judge, trained=trained, guidance_rescale=guidance_rescale(pipe))

    def rows(self) -> dict[str, Callable[[], Drawn]]:
        rows = {name: row for name, row in super().rows().items() if name in BOUNDS}
        return rows | {
            fusion: partial(self._generated, fusion, {name: style_by_name}, unstyled)
            for fusion, name in of_seed(self.trained, self.seed).items()
        }
