"""Evaluation of gates: style adapters whose fusions differ, on the cases of `weftwork evaluate style`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar, Self

from weftwork.evaluation.core.loading import load_adapters
from weftwork.evaluation.core.runner import Drawn
from weftwork.evaluation.methods.style import StyleEvaluation
from weftwork.evaluation.oracles.creatures import pretrained_creature_oracle
from weftwork.pipelines.core.mixin import ConditionedPipelineMixin

BOUNDS = ("real", "reconstruction", "no_condition")


@dataclass(frozen=True, kw_only=True)
class GatesEvaluation(StyleEvaluation):
    """Evaluation of style adapters by fusion.

    Args:
        trained: names of the attached adapters by fusion; of several, trained with different seeds, the evaluation's
            seed chooses one.
    """

    name: ClassVar[str] = "gates"

    trained: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @classmethod
    def open(cls, pipe: ConditionedPipelineMixin, folders: Mapping[str, Sequence[Path]]) -> Self:
        trained = {fusion: [f"{fusion}_{index}" for index in range(len(some))] for fusion, some in folders.items()}
        files = {f"{fusion}_{index}": one for fusion, some in folders.items() for index, one in enumerate(some)}
        load_adapters(pipe, files, list(files))
        return cls(pipe=pipe, files=files, trained=trained, oracle=pretrained_creature_oracle())

    @property
    def by_name(self) -> Sequence[str]:
        return [name for some in self.trained.values() for name in some]

    def rows(self) -> dict[str, Callable[[], Drawn]]:
        rows = {name: row for name, row in super().rows().items() if name in BOUNDS}
        chosen = {fusion: some[self.seed % len(some)] for fusion, some in self.trained.items()}
        return rows | {fusion: partial(self._by_name, name) for fusion, name in chosen.items()}
