"""Training data of subjects: scenes of two to four drawings, each shown alone and placed by words of the caption."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from weftwork.attention_processors.core.regions import opened
from weftwork.datasets.drawings.dataset import DrawingScenes
from weftwork.datasets.drawings.placed import PlacedSubjects, placed
from weftwork.datasets.drawings.scenes import visible_regions
from weftwork.training.data.drawings import SceneImages
from weftwork.training.data.image_cache import CachedLatents, Latents

MASK_SIZE: Final = 32


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
