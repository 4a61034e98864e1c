"""Judge of drawings: scores images of scenes by pretrained instruments and by a classifier of designers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Self

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from weftwork.datasets.drawings.captions import DepictedScene, full_description
from weftwork.datasets.drawings.dataset import DrawingScenes, Scene
from weftwork.datasets.drawings.rendered import RenderedDrawings, open_rendered
from weftwork.datasets.drawings.rendering import Gray
from weftwork.datasets.drawings.scenes import SIZE, Canvas, Ground, Mask, Place, compose
from weftwork.datasets.drawings.sets import SETS
from weftwork.datasets.drawings.splits import Split
from weftwork.evaluation.core.images import Images, as_bytes, as_tensor
from weftwork.evaluation.oracles.designers import DesignerOracle
from weftwork.evaluation.oracles.instruments import Instruments, installed_instruments
from weftwork.evaluation.scores.drawings import color_error, edge_scores, retrieval, visible_lines

WHITE: Final = Ground("white", (255, 255, 255), (255, 255, 255))
WHOLE: Final = Place(0, 0, SIZE)


@dataclass(frozen=True, eq=False)
class Case:
    """A scene with its image, and one sketch, text and visible region per drawing; texts say all colours."""

    scene: Scene
    shown: DepictedScene
    image: Canvas
    sketches: tuple[Gray, ...]
    texts: tuple[str, ...]
    regions: tuple[Mask, ...]

    @classmethod
    def of(cls, scenes: DrawingScenes, index: int) -> "Case":
        """Returns a scene of a dataset."""
        scene, drawn = scenes.scene(index), scenes[index]
        shown = scenes.depicted(scene)
        return cls(
            scene,
            shown,
            np.asarray(drawn.image),
            tuple(np.asarray(one) for one in drawn.sketches),
            tuple(map(full_description, shown.drawings)),
            tuple(np.asarray(one) > 0 for one in drawn.regions),
        )

    @property
    def lines(self) -> Mask:
        """Lines of the sketches that can be seen."""
        return visible_lines(self.sketches, self.regions)


@dataclass(frozen=True, eq=False)
class Gallery:
    """Subjects of a split, as one designer draws them on white."""

    places: dict[str, int]
    vectors: Float[Tensor, "subject dim"]


@dataclass(frozen=True, eq=False)
class Judge:
    """Scores images of cases; `designers` classifies their sets."""

    drawings: RenderedDrawings
    instruments: Instruments
    designers: DesignerOracle

    @classmethod
    def open(cls, folders: Mapping[str, Sequence[Path]]) -> Self:
        """Opens the folders of the options `oracle`, `drawings` and `cache_dir`.

        Raises:
            ValueError: packages that are not installed, or no drawings.
        """
        (oracle,), (drawings,), (cache_dir,) = (folders[name] for name in ("oracle", "drawings", "cache_dir"))
        instruments = installed_instruments()
        designers = DesignerOracle.from_pretrained(oracle, use_safetensors=True).eval()
        return cls(open_rendered(drawings, cache_dir), instruments, designers)

    def scores(self, cases: Sequence[Case], images: Images) -> dict[str, float]:
        """Means over images, and over drawings for `color_error` and subjects; NaN where nothing could be scored."""
        real, shown = as_tensor([case.image for case in cases]), as_bytes(images)
        edges = [edge_scores(image, case.lines) for image, case in zip(shown, cases, strict=True)]
        colors = [
            color_error(image, region, case.image, region)
            for image, case in zip(shown, cases, strict=True)
            for region in case.regions
        ]
        seen = self.designers.read(images)
        first, top = self._retrieved(cases, images)
        return {
            "edge_recall": mean([recall for recall, _ in edges]),
            "edge_precision": mean([precision for _, precision in edges]),
            "color_error": mean(colors),
            "stlpips": float(self.instruments.distance(images, real).mean()),
            "designer_accuracy": mean([name == case.scene.key for name, case in zip(seen, cases, strict=True)]),
            "subject_top1": first,
            "subject_top5": top,
        }

    def _retrieved(self, cases: Sequence[Case], images: Images) -> tuple[float, float]:
        """Top-1 and top-5 accuracy of subjects, each looked up in the gallery of another designer."""
        galleries = _galleries(self, self.drawings.cells[cases[0].scene.rows[0]].split)
        found: dict[str, tuple[list[Tensor], list[int]]] = {key: ([], []) for key in galleries}
        for image, case in zip(images, cases, strict=True):
            key = next(key for key in galleries if SETS[key].designer != SETS[case.scene.key].designer)
            crops, truth = found[key]
            for row, place in zip(case.scene.rows, case.scene.places, strict=True):
                own = galleries[key].places.get(self.drawings.cells[row].code)
                if own is not None:
                    crops.append(F.interpolate(image[None, :, *place.area], (SIZE, SIZE), mode="bicubic"))
                    truth.append(own)
        rows, counts = [], []
        for key, (crops, truth) in found.items():
            if crops:
                vectors = self.instruments.encode(torch.cat(crops).clamp(0, 1))
                rows.append(retrieval(vectors, galleries[key].vectors, truth))
                counts.append(len(truth))
        if not rows:
            return float("nan"), float("nan")
        first, top = np.average(rows, axis=0, weights=counts)
        return float(first), float(top)


@cache
def _galleries(judge: Judge, split: Split) -> dict[str, Gallery]:
    """The subjects of a split by the two sets of different designers that have most drawings in colour.

    There are two, since a subject is looked up among those that another designer drew.
    """
    drawings, instruments = judge.drawings, judge.instruments
    codes = {cell.code for cell in drawings.cells if cell.split == split}
    rows: dict[str, dict[str, int]] = {}
    for row, cell in enumerate(drawings.cells):
        if cell.code in codes and SETS[cell.key].has_color:
            rows.setdefault(cell.key, {})[cell.code] = row
    keys = sorted(rows, key=lambda key: -len(rows[key]))
    chosen = keys[:1] + [key for key in keys[1:] if SETS[key].designer != SETS[keys[0]].designer][:1]
    found = {}
    for key in chosen:
        images = [compose([drawings.images[row]], [WHOLE], WHITE) for row in rows[key].values()]
        parts = [as_tensor(images[first : first + 64]) for first in range(0, len(images), 64)]
        vectors = torch.cat([instruments.encode(part) for part in tqdm(parts, desc=f"reading {key}")])
        found[key] = Gallery({code: place for place, code in enumerate(rows[key])}, vectors)
    return found


def mean(values: Sequence[float]) -> float:
    """Mean of the numbers among the values; NaN without any."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
