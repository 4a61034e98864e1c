"""Batches of new views: references warped to the target camera, their latents, and what all steps read of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from weftwork.attention_processors.core.batch import Batch, TensorFields
from weftwork.attention_processors.core.branch import Branch
from weftwork.attention_processors.core.conditioning import Encoded
from weftwork.attention_processors.core.strength import Layout, Strength
from weftwork.attention_processors.views.conditions import ReferenceView
from weftwork.attention_processors.views.point_maps import PointRange
from weftwork.attention_processors.views.reference_attention import References
from weftwork.attention_processors.views.warping import WarpedView, warp_mesh, warp_points
from weftwork.datasets.readers.cameras import Camera


@dataclass(frozen=True, eq=False)
class WarpedScene:
    """References of one design, as the target camera sees them.

    Args:
        span: range of the references' points in the target's frame.
        known: each reference warped to its own camera.
        warped: all references warped to the target camera.
    """

    references: Sequence[ReferenceView]
    span: PointRange
    known: Sequence[WarpedView]
    warped: WarpedView

    @classmethod
    def of(cls, references: Sequence[ReferenceView], camera: Camera, *, mesh: bool = True) -> Self:
        """Warps references of one size to a camera, as meshes or as points.

        Raises:
            ValueError: no reference, or a camera with no point in front of it.
        """
        warp, size = warp_mesh if mesh else warp_points, references[0].image.shape[:2]
        warped = warp(references, camera, size)
        span = PointRange.over(references, camera)
        return cls(references, span, [warp([one], one.camera, size) for one in references], warped)


@dataclass(frozen=True, eq=False, kw_only=True)
class ViewsBatch(Batch):
    """References and targets of designs, one part per reference; images and point maps are in [0, 1].

    Args:
        points: point maps of the references, in the target's frame.
        geometry: inputs of `CorrespondenceEncoder` of the references, then of the target.
        warped: the references warped to the target, mid-grey where nothing is seen.
    """

    images: Float[Tensor, "design part 3 height width"]
    points: Float[Tensor, "design part 3 height width"]
    geometry: Float[Tensor, "design view 8 height width"]
    warped: Float[Tensor, "design 3 height width"]
    scenes: tuple[WarpedScene, ...]

    @classmethod
    def of_scenes(cls, scenes: Sequence[WarpedScene]) -> Self:
        """Stacks scenes with equally many references of one size."""

        def stacked(rows: Sequence[Sequence[Float[np.ndarray, "height width 3"]]]) -> Tensor:
            return torch.from_numpy(np.stack([np.stack(row) for row in rows])).movedim(-1, 2).float()

        grey = [[np.where(one.warped.seen[..., None], one.warped.image, 0.5)] for one in scenes]
        return cls.of(
            [one.references for one in scenes],
            {"layers": ()},
            images=stacked([[view.image for view in one.references] for one in scenes]),
            points=stacked([[(one.span.scaled(view.points) + 1) / 2 for view in one.references] for one in scenes]),
            geometry=torch.stack([torch.stack([*map(one.span.geometry, (*one.known, one.warped))]) for one in scenes]),
            warped=stacked(grey)[:, 0],
            scenes=tuple(scenes),
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class ViewsFeatures(TensorFields):
    """Latents of references and of the references warped to the target, beside their geometry; without strengths.

    Args:
        context: prompt embeddings; under guidance those of both halves, the unconditional one first.
    """

    images: Float[Tensor, "design part channel h w"]
    points: Float[Tensor, "design part channel h w"]
    geometry: Float[Tensor, "design view 8 height width"]
    warped: Float[Tensor, "design channel h w"]
    context: Float[Tensor, "row token dim"]


@dataclass(frozen=True, eq=False)
class EncodedViews(Encoded):
    """References as both denoising roles read them at every step; the branches are those of the image role.

    Args:
        image, geometry: recorded inputs of the layers of both reference roles.
        views: references per row.
        features: what is added to the output of `conv_in`.
        context: prompt embeddings.
    """

    image: References
    geometry: References
    views: int
    features: Float[Tensor, "row channel h w"]
    context: Float[Tensor, "row token dim"]

    def build(self, layout: Layout) -> tuple[dict[str, Branch], tuple[Strength, ...]]:
        return self.image.extend(self.views).build(layout)
