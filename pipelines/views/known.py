"""Known pixels of a new view: surfaces that references show reliably, which a generated view keeps.

A pixel is known where a reference sees the warped surface at its own depth, not at a grazing angle, and where no
reference sees a place behind it through it. `KnownPixels` are blended in twice: their latents during denoising, at the
noise level of each step, and their colours and depth at the end, which undoes the autoencoder's blur.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from scipy.ndimage import map_coordinates
from scipy.sparse import coo_array, diags_array
from scipy.sparse.linalg import splu
from torch import Tensor

from weftwork.attention_processors.views.conditions import ReferenceView
from weftwork.attention_processors.views.warping import WarpedView

TOLERANCE: Final = 0.02
"""Largest difference of depths of one surface, as a share of the depth."""
GRAZING: Final = 0.15
"""Smallest cosine between the normal and the ray of the best reference, about 81 degrees."""
REACH: Final = 8.0
"""Pixels over which differences of colour at the border of known pixels decay outwards; those of depth do not."""
NEIGHBORS: Final = (np.s_[:-1, :], np.s_[1:, :]), (np.s_[:, :-1], np.s_[:, 1:])
"""Slices of pixels and of those below, and of pixels and of those to the right."""

Map = Float[np.ndarray, "height width"]
Mask = Bool[np.ndarray, "height width"]
Values = Float[np.ndarray, "height width channel"]


@dataclass(frozen=True, eq=False)
class KnownPixels:
    """Colours and depth that a view keeps; smoothly filled elsewhere.

    Args:
        image: in [0, 1].
        depth: along the target camera's axis.
        mask: pixels that are known.
    """

    image: Values
    depth: Map
    mask: Mask

    @classmethod
    def of(cls, references: Sequence[ReferenceView], warped: WarpedView) -> "KnownPixels":
        """Returns the known pixels of references that were warped to a camera.

        Where several references see a surface, colours are their mean, weighted by the solid angle of a pixel there.
        """
        mask, image = reliable(references, warped)
        some = mask if mask.any() else warped.seen
        near = np.where(some, 1 / np.where(some, warped.depth, 1), 0)
        values = filled(np.concatenate([image, near[..., None]], -1), some)
        return cls(values[..., :3].clip(0, 1), 1 / values[..., 3], mask)

    def cells(self, height: int, width: int) -> Float[Tensor, "1 1 height width"]:
        """Returns 1 for the latents all of whose pixels are known, else 0."""
        mask = torch.from_numpy(self.mask).float()[None, None]
        return 1 - F.adaptive_max_pool2d(1 - mask, (height, width))

    def kept(self, image: Values, depth: Map) -> tuple[Values, Map]:
        """Puts the known pixels into a generated view.

        Around them, colours and inverse depth are shifted by the difference at their border, so that no seam is left.
        """
        if not self.mask.any():
            return image, depth
        colors = image + filled(self.image - image, self.mask, reach=REACH)
        near = 1 / depth[..., None]
        moved = near + filled(1 / self.depth[..., None] - near, self.mask)
        return colors.clip(0, 1), 1 / np.maximum(moved[..., 0], min(near.min(), (1 / self.depth).min()) / 2)


@dataclass(frozen=True, eq=False)
class KnownLatents:
    """Latents that denoising keeps.

    Args:
        latents: without noise, of image and point map.
        cells: 1 where they are kept, else 0.
    """

    latents: Sequence[Float[Tensor, "1 channel h w"]]
    cells: Float[Tensor, "1 1 h w"]

    def blended(self, part: int, denoised: Tensor, noise: Tensor, scheduler: Any, step: int) -> Tensor:
        """Replaces kept latents after a step by the known ones, with the noise of the next step.

        Args:
            part: index in `latents`.
        """
        known, rest = self.latents[part], scheduler.timesteps[step + 1 : step + 2]
        if len(rest):
            known = scheduler.add_noise(known, noise, rest)
        return self.cells * known + (1 - self.cells) * denoised


def reliable(references: Sequence[ReferenceView], warped: WarpedView) -> tuple[Mask, Values]:
    """Returns the pixels whose surface a reference sees at its own depth and none sees through, and their colours."""
    shape = warped.seen.shape
    facing, through, total = np.zeros(shape), np.zeros(shape, bool), np.zeros(shape)
    colors = np.zeros((*shape, 3))
    for one in references:
        places, depth = one.camera.project(warped.points)
        size = np.array(one.image.shape[1::-1])
        column, row = np.moveaxis(np.floor(np.nan_to_num(places) * size).clip(-1, size).astype(np.int64), -1, 0)
        inside = (depth > 0) & (row >= 0) & (column >= 0) & (row < size[1]) & (column < size[0])
        seen = np.full(shape, np.nan)
        seen[inside] = one.camera.project(one.points)[1][row[inside], column[inside]]
        rays = one.camera.position - warped.points
        rays /= np.maximum(np.linalg.norm(rays, axis=-1, keepdims=True), 1e-12)
        same = np.abs(seen - depth) < TOLERANCE * depth
        cosine = np.where(same, np.abs((rays * warped.normals).sum(-1)), 0)
        weight = cosine / np.where(same, depth, 1) ** 2
        where = np.moveaxis(np.nan_to_num(places) * size - 0.5, -1, 0)[::-1]
        sampled = [map_coordinates(one.image[..., i], where, order=1, mode="nearest") for i in range(3)]
        colors, total = colors + weight[..., None] * np.stack(sampled, -1), total + weight
        facing = np.maximum(facing, cosine)
        through |= seen > (1 + TOLERANCE) * depth
    mask = warped.seen & (facing > GRAZING) & ~through
    return mask, np.where(mask[..., None], colors / np.where(mask, total, 1)[..., None], warped.image)


def filled(values: Values, mask: Mask, reach: float = np.inf) -> Values:
    """Continues values smoothly from a mask into the rest, by a screened Laplace equation.

    Args:
        reach: pixels over which values decay to 0; infinite for harmonic values.
    """
    unknown = ~mask
    if not unknown.any() or not mask.any():
        return values
    index = np.full(mask.shape, -1)
    index[unknown] = np.arange(count := int(unknown.sum()))
    degree, right = np.zeros(count), np.zeros((count, values.shape[-1]))
    rows, columns = [], []
    for here, there in NEIGHBORS:
        for mine, other in ((here, there), (there, here)):
            free = unknown[mine]
            i = index[mine][free]
            np.add.at(degree, i, 1)
            inner = unknown[other][free]
            rows.append(i[inner])
            columns.append(index[other][free][inner])
            np.add.at(right, i[~inner], values[other][free][~inner])
    row, column = np.concatenate(rows), np.concatenate(columns)
    links = coo_array((np.ones(len(row)), (row, column)), shape=(count, count))
    system = diags_array(degree + (0 if np.isinf(reach) else reach**-2)) - links
    result = values.copy()
    result[unknown] = splu(system.tocsc()).solve(right)
    return result
