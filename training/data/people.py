"""Training data of expressions: people with their latents, and the image of another person with the same expression."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from weftwork.datasets.people.dataset import caption, sample
from weftwork.datasets.people.parts import Person
from weftwork.training.data.image_cache import CachedLatents, DrawnImages, Latents, Pixels

Job = tuple[Path, str, int, int]
"""Folder of the tarball, split, index and seed."""


class PeopleImages(DrawnImages[dict[str, Any]]):
    """Images of the first `count` people of a split, drawn once; `people[i]` with `expressions[i]`.

    Args:
        folder: of the tarball with their parts.
    """

    def __init__(self, cache_dir: Path, folder: Path, split: str, count: int, seed: int = 0) -> None:
        jobs: list[Job] = [(folder, split, index, seed) for index in range(count)]
        super().__init__(cache_dir, f"people-{split}-{seed}-{count}", _draw_person, jobs)
        self.people = [Person(**row["person"]) for row in self.truth]
        self.expressions: list[str] = [row["expression"] for row in self.truth]


def _draw_person(job: Job) -> tuple[Pixels, dict[str, Any]]:
    drawn = sample(*job)
    return drawn.image, {"person": asdict(drawn.person), "expression": drawn.expression}


@dataclass(frozen=True)
class ExpressionRecord:
    """A person, and the image of another one with the same expression, in [0, 1]."""

    latents: Float[Tensor, "channel height width"]
    expression: str
    other: Float[Tensor, "3 height width"]
    captions: tuple[str, ...]


class ExpressivePeople(CachedLatents[ExpressionRecord]):
    """People of `PeopleImages`, with the latents of these images."""

    def __init__(self, images: PeopleImages, latents: Latents) -> None:
        super().__init__(latents)
        self.images = images
        self.alike = {
            name: [i for i, one in enumerate(images.expressions) if one == name] for name in set(images.expressions)
        }

    def __getitem__(self, index: int) -> ExpressionRecord:
        images, expression = self.images, self.images.expressions[index]
        rng = np.random.default_rng([31, index])
        alike = self.alike[expression]
        start = int(rng.integers(len(alike)))
        found = (one for one in (*alike[start:], *alike[:start]) if images.people[one] != images.people[index])
        other = torch.from_numpy(np.array(images.images[next(found, index)]))
        captions = (caption(images.people[index]),)
        return ExpressionRecord(self.latent(index), expression, other.permute(2, 0, 1).float() / 255, captions)
