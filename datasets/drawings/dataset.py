"""Dataset of scenes: images with a sketch, a region and a text per drawing, and a caption."""

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from weftwork.datasets.drawings.captions import DepictedScene, caption, describe
from weftwork.datasets.drawings.rendered import RenderedDrawings
from weftwork.datasets.drawings.rendering import Gray
from weftwork.datasets.drawings.scenes import (
    COUNT_SHARES,
    Canvas,
    Ground,
    Place,
    compose,
    random_ground,
    random_places,
    sketches_on_canvas,
    visible_regions,
)
from weftwork.datasets.drawings.sets import SETS
from weftwork.datasets.drawings.splits import SPLITS, Split
from weftwork.datasets.readers.images import compose_sketches
from weftwork.datasets.readers.pair_folder import PairSample
from weftwork.datasets.synthetic.outfits.sketches import draw_sketch

SketchStyle = Literal["steady", "wild"]
LINE_WEIGHT: Final = 0.35
"""Relative frequency of drawings of a set without colours."""


@dataclass(frozen=True)
class Scene:
    """Rows of drawings of one set, with their places, on a ground."""

    key: str
    rows: tuple[int, ...]
    places: tuple[Place, ...]
    ground: Ground


@dataclass(frozen=True)
class DrawingScenes(Dataset[PairSample]):
    """First `count` scenes of a split, each a function of split, seed and index; sketches are "steady" or "wild"."""

    drawings: RenderedDrawings
    split: Split
    count: int
    seed: int = 0
    sketch_style: SketchStyle = "steady"

    @cached_property
    def rows_by_set(self) -> dict[str, list[int]]:
        """Rows of the split's drawings."""
        rows: dict[str, list[int]] = defaultdict(list)
        for row, cell in enumerate(self.drawings.cells):
            if cell.split == self.split:
                rows[cell.key].append(row)
        return dict(rows)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> PairSample:
        scene, rng = self.scene(index), self._rng(index, 1)
        images = [self.drawings.images[row] for row in scene.rows]
        sketches = [self._sketch(row, rng) for row in scene.rows]
        placed = [Image.fromarray(sketch) for sketch in sketches_on_canvas(sketches, scene.places)]
        regions = [Image.fromarray(mask.astype(np.uint8) * 255) for mask in visible_regions(images, scene.places)]
        depicted = self.depicted(scene)
        return PairSample(
            Image.fromarray(compose(images, scene.places, scene.ground)),
            tuple(placed),
            tuple(describe(one, rng) for one in depicted.drawings),
            caption(depicted, rng),
            compose_sketches(placed),
            f"{self.split}-{self.seed}-{index}",
            tuple(regions),
        )

    def scene(self, index: int) -> Scene:
        """Layout of a scene."""
        rng = self._rng(index, 0)
        keys = list(self.rows_by_set)
        weights = np.array([len(self.rows_by_set[k]) * (1 if SETS[k].has_color else LINE_WEIGHT) for k in keys])
        key = keys[int(rng.choice(len(keys), p=weights / weights.sum()))]
        count = 1 + int(rng.choice(len(COUNT_SHARES), p=COUNT_SHARES))
        rows = tuple(int(row) for row in rng.choice(self.rows_by_set[key], count))
        return Scene(key, rows, tuple(random_places(count, rng)), random_ground(rng))

    def image(self, index: int) -> Canvas:
        """The image of a scene alone."""
        scene = self.scene(index)
        return compose([self.drawings.images[row] for row in scene.rows], scene.places, scene.ground)

    def depicted(self, scene: Scene) -> DepictedScene:
        """Returns what captions describe of a scene."""
        drawings = tuple(self.drawings.cells[row].depicted for row in scene.rows)
        return DepictedScene(drawings, SETS[scene.key].words, scene.ground.words)

    def _sketch(self, row: int, rng: np.random.Generator) -> Gray:
        if self.sketch_style == "steady":
            return self.drawings.sketches[row]
        coverage, paper = self.drawings.images[row, ..., 3], self.drawings.sketches[row]
        shares = [np.divide(part, 255, dtype=np.float32) for part in (coverage, 255 - paper)]
        return draw_sketch(shares[0], shares[1], "wild", rng)

    def _rng(self, index: int, stream: int) -> np.random.Generator:
        return np.random.default_rng([SPLITS.index(self.split), self.seed, index, stream])
