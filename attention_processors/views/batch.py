"""Batches of new views: references warped to the target camera, their latents, and what all steps read of them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from weftwork.attention_processors.core.batch import Batch, Strengths, TensorFields
from weftwork.attention_processors.core.branch import Branch
from weftwork.attention_processors.core.conditioning import Encoded, check_layout
from weftwork.attention_processors.core.grids import Given
from weftwork.attention_processors.core.key_bias import KeyStrength, is_plain
from weftwork.attention_processors.core.strength import Half, Layout, Strength
from weftwork.attention_processors.views.conditions import ReferenceView
from weftwork.attention_processors.views.point_maps import PointRange
from weftwork.attention_processors.views.reference_attention import References
from weftwork.attention_processors.views.warping import WarpedView, warp_mesh, warp_points
from weftwork.datasets.readers.cameras import Camera

SIDE: Final = 64
"""Side in pixels of the canvas of designs without references."""


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
        """Warps references of one size to a camera, as meshes or points; `ValueError` if it sees none."""
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
    def of_nothing(cls, designs: int) -> Self:
        """Returns a batch of designs without references, in which nothing is seen."""
        none, seen = torch.zeros(designs, 0, 3, SIDE, SIDE), torch.full((designs, 3, SIDE, SIDE), 0.5)
        geometry, rows = torch.zeros(designs, 1, 8, SIDE, SIDE), [()] * designs
        return cls.of(rows, {"layers": ()}, images=none, points=none, geometry=geometry, warped=seen, scenes=())

    @classmethod
    def of_scenes(cls, scenes: Sequence[WarpedScene], layers: Sequence[str] = ()) -> Self:
        """Stacks scenes with equally many references of one size; weights have factors by `layers` that read them."""

        def stacked(rows: Sequence[Sequence[Float[np.ndarray, "height width 3"]]]) -> Tensor:
            return torch.from_numpy(np.stack([np.stack(row) for row in rows])).movedim(-1, 2).float()

        grey = [[np.where(one.warped.seen[..., None], one.warped.image, 0.5)] for one in scenes]
        return cls.of(
            [one.references for one in scenes],
            {"layers": layers},
            images=stacked([[view.image for view in one.references] for one in scenes]),
            points=stacked([[(one.span.scaled(view.points) + 1) / 2 for view in one.references] for one in scenes]),
            geometry=torch.stack([torch.stack([*map(one.span.geometry, (*one.known, one.warped))]) for one in scenes]),
            warped=stacked(grey)[:, 0],
            scenes=tuple(scenes),
        )

    def strengths_at(self, layers: Sequence[str]) -> Strengths | None:
        """Returns the strengths of the references at layers; None where all are 1."""
        given = self.strengths(layers if self.images.shape[1] else (), self.weight.device)
        return None if is_plain(given) and bool((self.guided == 1).all()) else given


@dataclass(frozen=True, eq=False, kw_only=True)
class ViewsFeatures(TensorFields):
    """Latents of references and of the references warped to the target, beside their geometry.

    Args:
        given: arguments of the denoiser's calls by name; under guidance those of both halves, in the order of its
            family. Latents and timestep are replaced, for references by their latents and no noise.
        strengths: of the references; None where all are 1.
    """

    images: Float[Tensor, "design part channel h w"]
    points: Float[Tensor, "design part channel h w"]
    geometry: Float[Tensor, "design view 8 height width"]
    warped: Float[Tensor, "design channel h w"]
    given: Given
    strengths: Strengths | None = None


@dataclass(frozen=True, eq=False)
class EncodedViews(Encoded):
    """References as both denoising roles read them at every step; the branches are those of the image role.

    Args:
        image, geometry: what was recorded in the layers of both reference roles.
        views: references per row.
        features: what is added to the embedded latents.
        given: as in `ViewsFeatures`.
        halves: halves of guidance among the rows, in order.
        strengths: of the references; None where all are 1.
    """

    image: References
    geometry: References
    views: int
    features: Float[Tensor, "row channel h w"]
    given: Given
    halves: tuple[Half, ...]
    strengths: Strengths | None = None

    def build(self, layout: Layout) -> tuple[dict[str, Branch], tuple[Strength, ...]]:
        given = self.strengths
        if not self.views:
            return {}, ()
        if given is None:
            return self.image.extend(1).build(layout)
        layout = replace(layout, halves=self.halves)
        layers = self.image.names(layout.levels, layout.presets)
        check_layout(layers, given["region"], given["region_aspect"], layout)
        strength = KeyStrength.of(given, layers, layout)
        gains = {layer: strength.gain(layout.grid(layer), layer) for layer in layers}
        return {layer: self.image.at_strength(layer, gain, layout) for layer, gain in gains.items()}, (strength,)

    def of_geometry(self, layers: Collection[str], gradient: str) -> Encoded:
        """Returns the references of the geometry role, after the image role has run.

        Args:
            layers: those whose queries and keys are the image role's.
            gradient: "live" or "detach", whether it reaches the image role.
        """
        return replace(self, image=self.geometry.with_keys_of(self.image, layers, gradient))
