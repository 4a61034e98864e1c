"""Training data of subjects: scenes of two to four drawings, each shown alone and placed by words of the caption."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from weftwork.attention_processors.core.regions import opened
from weftwork.datasets.drawings.captions import Depicted, color_list, with_article
from weftwork.datasets.drawings.dataset import DrawingScenes, Scene
from weftwork.datasets.drawings.scenes import Place, visible_regions
from weftwork.training.data.drawings import SceneImages
from weftwork.training.data.image_cache import CachedLatents, Latents

COLOR_SHARE: Final = 0.5
"""Share of subjects that are named with a colour."""
BESIDE_SHARE: Final = 0.3
MASK_SIZE: Final = 32


@dataclass(frozen=True)
class PlacedSubjects:
    """Rows of the drawings of a scene from left to right, with the words that stand for each in the caption."""

    rows: tuple[int, ...]
    words: tuple[str, ...]
    caption: str


def placed(scene: Scene, depicted: Sequence[Depicted], rng: np.random.Generator) -> PlacedSubjects | None:
    """Returns the subjects of a scene with a caption that places each beside the one before, "a fox above a red car".

    None if words would stand for two subjects.
    """
    order = sorted(range(len(depicted)), key=lambda i: scene.places[i].left + scene.places[i].side / 2)
    words = [_words(depicted[i], rng) for i in order]
    caption = with_article(words[0])
    for before, i, own in zip(order, order[1:], words[1:], strict=False):
        caption = f"{caption} {_relation(scene.places[before], scene.places[i], rng)} {with_article(own)}"
    found = [len(re.findall(rf"(?<!\w){re.escape(one)}(?!\w)", caption, re.IGNORECASE)) for one in words]
    if any(count != 1 for count in found):
        return None
    return PlacedSubjects(tuple(scene.rows[i] for i in order), tuple(words), caption)


def _words(one: Depicted, rng: np.random.Generator) -> str:
    colored = one.colors and rng.random() < COLOR_SHARE
    return f"{color_list(one.colors[:1])} {one.name}" if colored else one.name


def _relation(one: Place, other: Place, rng: np.random.Generator) -> str:
    """Returns words for the place of one beside another."""
    if rng.random() < BESIDE_SHARE:
        return "beside"
    right, down = (
        (getattr(other, side) + other.side / 2) - (getattr(one, side) + one.side / 2) for side in ("left", "top")
    )
    if abs(right) >= abs(down):
        return "left of" if right >= 0 else "right of"
    return "above" if down > 0 else "below"


@dataclass(frozen=True)
class SubjectRecord:
    """One scene with its subjects.

    Args:
        embeds: features of each subject alone.
        masks: where each is seen, in [0, 1].
        words: that stand for each in the caption.
    """

    latents: Float[Tensor, "channel height width"]
    embeds: Float[Tensor, "part dim"]
    masks: Float[Tensor, "part side side"]
    words: tuple[str, ...]
    captions: tuple[str, ...]


class SubjectScenes(CachedLatents[SubjectRecord]):
    """The scenes with two or more subjects, each under words of its own.

    Args:
        fits: whether a caption is not too long.
        encode: function of subjects' images that returns their features.
    """

    def __init__(
        self,
        images: SceneImages,
        latents: Latents,
        fits: Callable[[str], bool],
        encode: Callable[[Sequence[Image.Image]], Sequence[Tensor]],
    ) -> None:
        super().__init__(latents)
        self.scenes = DrawingScenes(images.drawings, images.jobs[0][1], len(images.jobs), images.jobs[0][3])
        self.subjects: dict[int, PlacedSubjects] = {}
        for index, shown in enumerate(images.depicted):
            found = placed(self.scenes.scene(index), shown.drawings, np.random.default_rng([29, index]))
            if found is not None and len(found.rows) > 1 and fits(found.caption):
                self.subjects[index] = found
        self.indices = list(self.subjects)
        rows = sorted({row for one in self.subjects.values() for row in one.rows})
        self.embeds = dict(zip(rows, encode([self.alone(row) for row in rows]), strict=True))

    def __len__(self) -> int:
        return len(self.indices)

    def alone(self, row: int) -> Image.Image:
        """Returns a subject on white."""
        return opened(Image.fromarray(self.scenes.drawings.images[row]))

    def __getitem__(self, index: int) -> SubjectRecord:
        index = self.indices[index]
        own, scene = self.subjects[index], self.scenes.scene(index)
        visible = dict(
            zip(
                scene.rows,
                visible_regions([self.scenes.drawings.images[row] for row in scene.rows], scene.places),
                strict=True,
            )
        )
        masks = torch.from_numpy(np.stack([visible[row] for row in own.rows])).float()
        parts = masks.shape[-1] // MASK_SIZE
        return SubjectRecord(
            self.latent(index),
            torch.stack([self.embeds[row] for row in own.rows]),
            torch.nn.functional.avg_pool2d(masks, parts),
            own.words,
            (own.caption,),
        )
