"""Evaluation of gates: style adapters whose fusions differ, on the cases of `weftwork evaluate drawings`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar, Final, Self

from weftwork.evaluation.core.loading import load_adapters
from weftwork.evaluation.core.runner import Drawn
from weftwork.evaluation.measurements.gates import FUSIONS
from weftwork.evaluation.methods.drawings import DrawingsEvaluation, guidance_rescale, style_by_name, unstyled
from weftwork.evaluation.scores.scenes import Judge
from weftwork.pipelines.core.mixin import ConditionedPipelineMixin

BOUNDS: Final = ("real", "reconstruction", "text_unstyled")


@dataclass(frozen=True, kw_only=True)
class GatesEvaluation(DrawingsEvaluation):
    """Evaluation of style adapters by fusion.

    Args:
        trained: names of the attached adapters by fusion; of several, trained with different seeds, the evaluation's
            seed chooses one.
    """

    name: ClassVar[str] = "gates"

    trained: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @classmethod
    def open(cls, pipe: ConditionedPipelineMixin, folders: Mapping[str, Sequence[Path]]) -> Self:
        judge = Judge.open(folders)
        found = {fusion: folders[fusion] for fusion in FUSIONS if fusion in folders}
        files = {f"{fusion}_{index}": one for fusion, some in found.items() for index, one in enumerate(some)}
        load_adapters(pipe, files, list(files))
        trained = {fusion: [f"{fusion}_{index}" for index in range(len(some))] for fusion, some in found.items()}
        return cls(pipe=pipe, judge=judge, trained=trained, guidance_rescale=guidance_rescale(pipe))

    def rows(self) -> dict[str, Callable[[], Drawn]]:
        rows = {name: row for name, row in super().rows().items() if name in BOUNDS}
        chosen = {fusion: some[self.seed % len(some)] for fusion, some in self.trained.items()}
        return rows | {
            fusion: partial(self._generated, fusion, {name: style_by_name}, unstyled) for fusion, name in chosen.items()
        }
