"""Point maps as images and features, scaled into the range of known points, and back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from weftwork.attention_processors.views.conditions import ReferenceView
from weftwork.attention_processors.views.warping import WarpedView
from weftwork.datasets.readers.cameras import Camera
from weftwork.datasets.readers.errors import UserError

MARGIN = 0.1
NEAREST = 1e-3
Points = Float[np.ndarray, "*point 3"]


@dataclass(frozen=True, eq=False)
class PointRange:
    """Bounding box of known points in a camera's frame, scaled to [-1, 1] along each axis.

    Args:
        camera: the target camera.
        low, high: corners of the box.
    """

    camera: Camera
    low: Float[np.ndarray, "3"]
    high: Float[np.ndarray, "3"]

    @classmethod
    def over(cls, references: Sequence[ReferenceView], camera: Camera, margin: float = MARGIN) -> Self:
        """Returns the range of the references' points, extended by a share on each side for unseen places.

        Raises:
            ValueError: points that are all in one plane across an axis, or none before the camera.
        """
        points = np.concatenate([_to(camera, one.points[one.known]) for one in references])
        if not (points[:, 2] > 0).any():
            raise UserError("camera: got one that has no point of the references in front of it; turn or move it")
        low, high = points.min(0), points.max(0)
        if (high - low).min() < 1e-6 * max(1.0, float(np.abs(points).max())):
            raise UserError(
                f"points: got an extent of {(high - low).tolist()}, expected some along every axis; check the depth"
            )
        return cls(camera, low - margin * (high - low), high + margin * (high - low))

    def scaled(self, points: Float[np.ndarray, "height width 3"]) -> Float[np.ndarray, "height width 3"]:
        """Scales world points to [-1, 1]; points beyond the range are clipped, unknown ones are 0."""
        inside = (_to(self.camera, np.nan_to_num(points)) - self.low) / (self.high - self.low) * 2 - 1
        return np.where(np.isfinite(points), np.clip(inside, -1, 1), 0)

    def restored(self, values: Float[np.ndarray, "height width 3"]) -> Float[np.ndarray, "height width 3"]:
        """Returns the world points of values in [-1, 1]."""
        local = (np.clip(values, -1, 1) + 1) / 2 * (self.high - self.low) + self.low
        matrix = self.camera.world_to_camera
        return (local - matrix[:3, 3]) @ matrix[:3, :3]

    def geometry(self, view: WarpedView) -> Float[Tensor, "8 height width"]:
        """Returns the input of `CorrespondenceEncoder`: points and normals in this frame, depth and mask of a view."""
        normals = view.normals @ self.camera.world_to_camera[:3, :3].T
        depth = view.depth / max(float(self.high[2]), 1e-6)
        parts = [self.scaled(view.points), normals, depth[..., None], view.seen[..., None]]
        return torch.from_numpy(np.moveaxis(np.concatenate(parts, -1), -1, 0).astype(np.float32))


def depth_along_rays(points: Float[np.ndarray, "height width 3"], camera: Camera) -> Float[np.ndarray, "height width"]:
    """Returns the depth of the nearest place to each point on its pixel's ray; at least a millimetre."""
    rays = camera.rays(*points.shape[:2])
    along = ((points - camera.position) * rays).sum(-1) / (rays * rays).sum(-1)
    return np.maximum(along, NEAREST)


def normals_of(points: Float[np.ndarray, "height width 3"], camera: Camera) -> Float[np.ndarray, "height width 3"]:
    """Computes normals of a point map, by differences of neighbours, towards the camera."""
    down, right = np.gradient(points, axis=0), np.gradient(points, axis=1)
    normals = np.cross(down, right)
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
    away = (normals * (points - camera.position)).sum(-1, keepdims=True) > 0
    return np.where(away, -normals, normals)


def _to(camera: Camera, points: Points) -> Points:
    return points @ camera.world_to_camera[:3, :3].T + camera.world_to_camera[:3, 3]


def depth_image(
    depth: Float[np.ndarray, "height width"], like: Float[np.ndarray, "height width"] | None = None
) -> Image.Image:
    """Renders depth as grey values, linear in 1 / depth: white the nearest 2 %, black the farthest 2 % and NaN.

    Args:
        like: depth that sets the range; its own when None.
    """
    near = 1 / np.maximum(depth, 1e-6)
    low, high = np.nanquantile(near if like is None else 1 / np.maximum(like, 1e-6), (0.02, 0.98))
    shown = np.clip((near - low) / max(high - low, 1e-9), 0, 1)
    return Image.fromarray((np.nan_to_num(shown) * 255).astype(np.uint8))
