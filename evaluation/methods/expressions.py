"""Evaluation of expressions on people of the test split, read by the oracle.

The prompt describes the looks of a person and leaves out the expression, except in `text_only`. In rows of images the
expression is that of another person's image, whose looks must not show.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar, Final, Self

from PIL import Image

from weftwork.attention_processors.expressions.adapter import ExpressionAdapter
from weftwork.attention_processors.expressions.conditions import Expression
from weftwork.datasets.people.dataset import PersonSample, caption, labels, sample
from weftwork.datasets.people.parts import EXPRESSIONS, Person, draw, open_parts
from weftwork.evaluation.core.images import ConditionRows, as_tensor
from weftwork.evaluation.core.loading import Trained, load_trained, of_seed
from weftwork.evaluation.core.runner import Drawn, Evaluation, Images
from weftwork.evaluation.oracles.people import PersonOracle
from weftwork.evaluation.scores.people import score_people
from weftwork.pipelines.core.mixin import ConditionedPipelineMixin

ADAPTERS: Final = ("expressions", "no_bank")
GUIDANCE: Final = 2.0
"""The authors': 6 of the expression and 3 of the rest."""
OTHERS: Final = 1_000_000
"""Index of the first sample whose person shows an expression to another."""


@dataclass(frozen=True, kw_only=True)
class ExpressionEvaluation(Evaluation[ConditionedPipelineMixin]):
    """Evaluation on people, one image each.

    Args:
        folder: of the tarball with the people's parts.
        oracle: classifier of people.
    """

    name: ClassVar[str] = "expressions"
    other_cases: ClassVar[Collection[str]] = ("mixed",)

    folder: Path
    oracle: PersonOracle
    trained: Trained = field(default_factory=dict)

    @classmethod
    def open(cls, pipe: ConditionedPipelineMixin, folders: Mapping[str, Sequence[Path]]) -> Self:
        oracle = PersonOracle.from_pretrained(folders["oracle"][0], use_safetensors=True).eval()
        return cls(pipe=pipe, folder=folders["people"][0], oracle=oracle, trained=load_trained(pipe, folders, ADAPTERS))

    @cached_property
    def samples(self) -> list[PersonSample]:
        """People with their expressions."""
        return [sample(self.folder, self.split, index, self.seed) for index in range(self.count)]

    @cached_property
    def others(self) -> list[Person]:
        """People of other looks, one per sample, whose images give the expression in rows of images."""
        return [labels(self.split, OTHERS + index, self.seed)[0] for index in range(self.count)]

    def rows(self) -> dict[str, Callable[[], Drawn]]:
        adapters = of_seed(self.trained, self.seed)
        rows = self.bounds(lambda: as_tensor([one.image for one in self.samples]), self._scored)
        rows |= {
            "no_condition": lambda: self._row("no_condition", {}),
            "text_only": lambda: self._row("text_only", {}, named=True),
        }
        for name, before in zip(ADAPTERS, ("", "no_bank_"), strict=True):
            if name in adapters:
                rows[f"{before}names"] = partial(self._named, adapters[name], 1.0)
                rows[f"{before}images"] = partial(self._shown, adapters[name])
        if "expressions" in adapters:
            rows["guided"] = partial(self._named, adapters["expressions"], GUIDANCE)
            rows["mixed"] = partial(self._mixed, adapters["expressions"])
        return rows

    def _named(self, name: str, guidance: float) -> Drawn:
        given = [[Expression(one.expression, guidance=guidance)] for one in self.samples]
        return self._row(name, {name: given})

    def _shown(self, name: str) -> Drawn:
        assert self.pipe.adapters is not None
        adapter, parts = self.pipe.adapters[name], open_parts(self.folder)
        assert isinstance(adapter, ExpressionAdapter)
        shown = [
            Image.fromarray(draw(parts, other, one.expression, self.side))
            for other, one in zip(self.others, self.samples, strict=True)
        ]
        return self._row(name, {name: [[Expression(prior=adapter.prior(image))] for image in shown]})

    def _mixed(self, name: str) -> Drawn:
        names = list(EXPRESSIONS)
        steps = [1 + index % (len(names) - 1) for index in range(self.count)]
        pairs = [
            (one.expression, names[(names.index(one.expression) + step) % len(names)])
            for one, step in zip(self.samples, steps, strict=True)
        ]
        given = [[Expression(dict.fromkeys(pair, 0.5))] for pair in pairs]
        images = self._images("mixed", {name: given})
        return images, self._scores(images, pairs)

    def _row(self, name: str, conditions: ConditionRows, *, named: bool = False) -> Drawn:
        return self._scored(self._images(name, conditions, named=named))

    def _images(self, name: str, conditions: ConditionRows, *, named: bool = False) -> Images:
        prompts = [caption(one.person, one.expression if named else None) for one in self.samples]
        return self.generated(name, prompts, conditions)

    def _scored(self, images: Images) -> Drawn:
        return images, self._scores(images, [(one.expression,) for one in self.samples])

    def _scores(self, images: Images, wanted: Sequence[tuple[str, ...]]) -> dict[str, float]:
        people = [one.person for one in self.samples]
        scores = score_people(self.oracle.read_people(images), people, wanted, self.others)
        if all(len(one) < 2 for one in wanted):
            del scores["expressions_mixed"]
        return scores
