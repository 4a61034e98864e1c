"""Evaluation of several subjects per image, each shown alone and placed by words of the prompt."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import count as numbers
from pathlib import Path
from typing import ClassVar, Final, Self

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from weftwork.attention_processors.encoders import ImageEncoder
from weftwork.attention_processors.reference.conditions import Reference
from weftwork.attention_processors.subjects.conditions import Subject
from weftwork.datasets.drawings.dataset import DrawingScenes, Scene
from weftwork.datasets.drawings.placed import PlacedSubjects, placed
from weftwork.datasets.drawings.rendered import RenderedDrawings, open_rendered
from weftwork.datasets.drawings.scenes import SIZE, Canvas, compose
from weftwork.datasets.drawings.splits import Split
from weftwork.datasets.readers.errors import UserError
from weftwork.evaluation.core.images import ConditionRows, as_tensor
from weftwork.evaluation.core.loading import ENCODER, Trained, load_trained, of_seed
from weftwork.evaluation.core.report import Row
from weftwork.evaluation.core.runner import Drawn, Evaluation, Images
from weftwork.evaluation.oracles.instruments import Instruments, installed_instruments
from weftwork.evaluation.scores.scenes import WHITE, WHOLE
from weftwork.evaluation.scores.subjects import score_subjects, windows
from weftwork.pipelines.core.mixin import ConditionedPipelineMixin

ROWS: Final = ("subjects", "no_localization")
CURVE: Final = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7)
"""Values of `start`, whose scores `curve` gives."""
SEARCHED: Final = 100
"""Scenes per case among which those of several subjects are searched."""


@dataclass(frozen=True, kw_only=True)
class SubjectEvaluation(Evaluation[ConditionedPipelineMixin]):
    """Evaluation on scenes of two subjects or more.

    Args:
        galleries: vectors of the drawings of a set, encoded once for all seeds.
    """

    name: ClassVar[str] = "subjects"

    split: Split = "subjects"
    drawings: RenderedDrawings
    instruments: Instruments
    trained: Trained = field(default_factory=dict)
    galleries: dict[str, tuple[list[int], Tensor]] = field(default_factory=dict)

    @classmethod
    def open(cls, pipe: ConditionedPipelineMixin, folders: Mapping[str, Sequence[Path]]) -> Self:
        if ENCODER not in folders and {*ROWS, "reference"} & set(folders):
            raise UserError(f"{ENCODER}: got none, needed by images of subjects; pass the one of the training")
        instruments, trained = installed_instruments(), load_trained(pipe, folders, ROWS)
        if "reference" in folders:
            pipe.load_adapter(folders["reference"][0], "reference")
        if ENCODER in folders:
            pipe.set_encoders(image=ImageEncoder.from_pretrained(str(folders[ENCODER][0])))
        drawings = open_rendered(folders["drawings"][0], folders["cache_dir"][0])
        return cls(pipe=pipe, drawings=drawings, instruments=instruments, trained=trained)

    @cached_property
    def cases(self) -> list[tuple[Scene, PlacedSubjects]]:
        """The first scenes whose subjects have words of their own."""
        scenes = DrawingScenes(self.drawings, self.split, SEARCHED * self.count, self.seed)
        found: list[tuple[Scene, PlacedSubjects]] = []
        for index in numbers():
            if len(found) == self.count or index == len(scenes):
                return found
            scene = scenes.scene(index)
            own = placed(scene, scenes.depicted(scene).drawings, np.random.default_rng([self.seed, index, 29]))
            if own is not None and len(own.rows) > 1:
                found.append((scene, own))
        return found

    def rows(self) -> dict[str, Callable[[], Drawn]]:
        rows = self.bounds(self._real, self._scored)
        rows |= {
            "other_scene": lambda: self._scored(self._real().roll(1, 0)),
            "text_only": partial(self._row, "text_only", {}),
        }
        rows |= {row: partial(self._subjects, name) for row, name in of_seed(self.trained, self.seed).items()}
        if "reference" in (self.pipe.adapters or ()):
            rows["reference"] = partial(self._references, regions=False)
            rows["reference_regions"] = partial(self._references, regions=True)
        return rows

    def curve(self) -> list[Row]:
        """Returns subjects and change of the layout over the first step with subjects, from a quarter of the images."""
        if "subjects" not in self.trained:
            raise UserError("curve: got no adapter of subjects, whose start it changes; pass --subjects")
        few = replace(self, count=max(2, self.count // 4))
        alone, adapter = few._row("text_only", {})[0], of_seed(few.trained, few.seed)["subjects"]
        rows = []
        for start in CURVE:
            images, scores = few._subjects(adapter, start)
            change = float(few.instruments.distance(images, alone).mean())
            rows.append(Row(f"subjects_{start:g}", {**scores, "layout_change": change}))
        return rows

    def _real(self) -> Images:
        images = self.drawings.images
        scenes = [scene for scene, _ in self.cases]
        return as_tensor([compose([images[row] for row in one.rows], one.places, one.ground) for one in scenes])

    def _alone(self, row: int) -> Canvas:
        return compose([self.drawings.images[row]], [WHOLE], WHITE)

    def _subjects(self, adapter: str, start: float = 0.0) -> Drawn:
        given = [
            [Subject(self._alone(row), text=words, start=start) for row, words in zip(own.rows, own.words, strict=True)]
            for _, own in self.cases
        ]
        return self._row(adapter, {adapter: given})

    def _references(self, *, regions: bool) -> Drawn:
        """Generates from references of the subjects, with the true boxes as their regions, or without regions."""
        given: list[list[Reference]] = []
        for scene, own in self.cases:
            boxes = {
                row: (at.left / SIZE, at.top / SIZE, (at.left + at.side) / SIZE, (at.top + at.side) / SIZE)
                for row, at in zip(scene.rows, scene.places, strict=True)
            }
            given.append([Reference(self._alone(row), region=boxes[row] if regions else None) for row in own.rows])
        return self._row("reference", {"reference": given})

    def _row(self, name: str, conditions: ConditionRows) -> Drawn:
        return self._scored(self.generated(name, [own.caption for _, own in self.cases], conditions))

    def _scored(self, images: Images) -> Drawn:
        seen = self.instruments.encode(windows(images))
        seen = F.normalize(seen - seen.mean(0), dim=1).unflatten(0, (len(images), -1))
        cosines, truth = [], []
        for vectors, (scene, own) in zip(seen, self.cases, strict=True):
            rows, gallery = self._gallery(scene.key)
            cosines.append(vectors @ gallery.T)
            truth.append([rows.index(row) for row in own.rows])
        return images, score_subjects(cosines, truth)

    def _gallery(self, key: str) -> tuple[list[int], Float[Tensor, "subject dim"]]:
        """Returns the drawings of a set in the split, and their vectors without their mean."""
        if key not in self.galleries:
            rows = DrawingScenes(self.drawings, self.split, 1).rows_by_set[key]
            vectors = self.instruments.encode(as_tensor([self._alone(row) for row in rows]))
            self.galleries[key] = rows, F.normalize(vectors - vectors.mean(0), dim=1)
        return self.galleries[key]
