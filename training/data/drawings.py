"""Training data of drawings: scenes with their latents, sketches, texts, styles and captions, drawn once."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from weftwork.attention_processors.paired.conditions import stroke_pixels
from weftwork.datasets.drawings.captions import Depicted, DepictedScene, caption, color_list, setting
from weftwork.datasets.drawings.dataset import DrawingScenes
from weftwork.datasets.drawings.rendered import RenderedDrawings
from weftwork.datasets.drawings.scenes import COUNT_SHARES, SIZE
from weftwork.datasets.drawings.sets import SETS
from weftwork.datasets.drawings.splits import VALIDATION_SEED, Split
from weftwork.training.data.image_cache import CachedLatents, DrawnImages, Latents, Pixels, Truth
from weftwork.training.data.pairs import WILD_SHARE, DrawnPairs, PairRecord
from weftwork.training.data.styles import StyledRecord

Job = tuple[Path, Split, int, int, int]
"""Folder of rendered drawings, split, number of scenes, seed, and index of a scene."""
CAPTIONS: Final = 3
"""Captions to draw from, per scene."""


class SceneImages(DrawnImages[Truth]):
    """Images of the first `count` scenes of a split, drawn once; `depicted[i]` is what captions say of image i."""

    def __init__(self, cache_dir: Path, drawings: RenderedDrawings, split: Split, count: int, seed: int = 0) -> None:
        self.drawings = drawings
        self.jobs: list[Job] = [(drawings.folder, split, count, seed, index) for index in range(count)]
        super().__init__(cache_dir, f"{drawings.folder.name}-{split}-{seed}-{count}", _draw_scene, self.jobs)
        self.depicted = [_depicted(row) for row in self.truth]

    @property
    def keys(self) -> list[str]:
        """The set of each scene's drawings."""
        known = {one.words: key for key, one in SETS.items()}
        return [known[one.style] for one in self.depicted]


class SingleDrawings:
    """The scenes of one drawing, downscaled to `size` pixels.

    `depicted[i]` is what captions say of image i.
    """

    def __init__(self, scenes: SceneImages, size: int) -> None:
        self.rows = np.array([i for i, one in enumerate(scenes.depicted) if len(one.drawings) == 1])
        self.scenes, self.size, self.name = scenes.images, size, f"{scenes.name}-single-{size}"
        self.depicted = [scenes.depicted[i] for i in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def pixels(self, rows: slice) -> Pixels:
        full = self.scenes[self.rows[rows]]
        parts = full.shape[-2] // self.size
        return full.reshape(len(full), self.size, parts, self.size, parts, 3).mean((2, 4)).round().astype(np.uint8)


class ScenePairs(DrawnPairs):
    """Scenes with a sketch and a text per drawing; some sketches are shaky.

    Args:
        images, latents, options: as for `OutfitPairs`; the scenes are those of `images`.
        shorten: cuts texts and captions to what the text encoder reads.
    """

    def __init__(
        self,
        folder: Path,
        images: SceneImages,
        latents: Latents,
        shorten: Callable[[str], str] = str,
        **options: Any,
    ) -> None:
        super().__init__(folder, f"pairs-{images.name}", _draw_pairs, images.jobs, latents, **options)
        self.shorten = shorten

    def __getitem__(self, index: int) -> PairRecord:
        record, shorten = super().__getitem__(index), self.shorten
        pairs = tuple(replace(pair, text=shorten(pair.text or "")) for pair in record.pairs)
        return replace(record, pairs=pairs, captions=tuple(map(shorten, record.captions)))

    def unnamed(self, index: int) -> list[tuple[int, str]]:
        return list(enumerate(self.truth[index]["unnamed"]))


class StyledScenes(CachedLatents[StyledRecord]):
    """Scenes with the set of their drawings as style, and the latents of these images.

    Args:
        shorten: cuts captions to what the text encoder reads.
        named: captions name the style, for baselines that are conditioned by the prompt only.
    """

    def __init__(
        self, images: SceneImages, latents: Latents, shorten: Callable[[str], str] = str, *, named: bool = False
    ) -> None:
        super().__init__(latents)
        self.images, self.shorten, self.named = images, shorten, named
        self.keys = images.keys
        self.styles = tuple(key for key in SETS if key in set(self.keys))

    def __getitem__(self, index: int) -> StyledRecord:
        rng, share = np.random.default_rng([19, index]), float(self.named)
        captions = tuple(self.shorten(caption(self.images.depicted[index], rng, share)) for _ in range(CAPTIONS))
        return StyledRecord(self.latent(index), self.keys[index], captions)


def held_out_scenes(drawings: RenderedDrawings, count: int) -> list[tuple[DepictedScene, Any]]:
    """Scenes for validation images, `count` of held-out cells and of unseen subjects each: content and sample."""
    found = []
    for split in ("cells", "subjects"):
        scenes = DrawingScenes(drawings, split, count, VALIDATION_SEED)
        if scenes.rows_by_set:  # a small sample may hold out nothing
            found += [(scenes.depicted(scenes.scene(index)), scenes[index]) for index in range(count)]
    return found


@cache
def _scenes(folder: Path, split: Split, count: int, seed: int, sketch_style: Any = "steady") -> DrawingScenes:
    return DrawingScenes(RenderedDrawings(folder), split, count, seed, sketch_style)


def _draw_scene(job: Job) -> tuple[Pixels, Truth]:
    *place, index = job
    scenes = _scenes(*place)
    return scenes.image(index), asdict(scenes.depicted(scenes.scene(index)))


def _draw_pairs(job: Job) -> tuple[Pixels, Truth]:
    *place, index = job
    rng = np.random.default_rng([23, job[3], index])
    scenes = _scenes(*place, "wild" if rng.random() < WILD_SHARE else "steady")
    drawn, depicted = scenes[index], scenes.depicted(scenes.scene(index))
    pixels = np.zeros((len(COUNT_SHARES), 2, SIZE, SIZE), np.uint8)
    for slot, sketch in enumerate(drawn.sketches):
        assert isinstance(sketch, Image.Image)
        pixels[slot] = (stroke_pixels(sketch, SIZE).numpy() * 255).round()
    return pixels, {
        "texts": drawn.texts,
        "unnamed": [color_list(one.colors) or one.name for one in depicted.drawings],
        "captions": [
            setting(depicted),
            setting(depicted, styled=False),
            caption(depicted, rng),
            caption(depicted, rng),
        ],
    }


def _depicted(row: Truth) -> DepictedScene:
    drawings: Sequence[Depicted] = [
        Depicted(d["name"], tuple(d["tags"]), d["category"], tuple(d["colors"])) for d in row["drawings"]
    ]
    return DepictedScene(tuple(drawings), row["style"], row["ground"])
