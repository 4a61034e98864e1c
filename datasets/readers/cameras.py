"""Pinhole cameras: rays of pixels, and projections of points.

Conventions, as OpenCV and RealEstate10K have them: a camera looks along its z axis, x is right, y is down; depth is z,
not distance. Intrinsics are fractions of the image's width and height, so that a camera fits every resolution. The
centre of pixel (row i, column j) is at ((j + 0.5) / width, (i + 0.5) / height).
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from weftwork.datasets.readers.errors import UserError

Array = NDArray[np.float64]

TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera with a pose.

    Args:
        focal: focal lengths (x, y) as fractions of width and height.
        center: principal point (x, y) as fractions of width and height.
        world_to_camera: [4, 4], a rotation and a translation.

    Raises:
        ValueError: a focal length that is not above 0, numbers that are not finite, or a matrix that is not a rigid
            motion (singular, mirrored, scaled).
    """

    focal: tuple[float, float]
    world_to_camera: Float[np.ndarray, "4 4"]
    center: tuple[float, float] = (0.5, 0.5)

    def __post_init__(self) -> None:
        matrix = np.asarray(self.world_to_camera, np.float64)
        if matrix.shape == (3, 4):
            matrix = np.concatenate([matrix, [[0.0, 0.0, 0.0, 1.0]]])
        if matrix.shape != (4, 4):
            raise UserError(f"world_to_camera: got shape {matrix.shape}, expected [4, 4] or [3, 4]; pass one matrix")
        numbers = np.array([*self.focal, *self.center])
        if not (np.isfinite(matrix).all() and np.isfinite(numbers).all()):
            raise UserError("camera: got NaN or infinite numbers, expected finite ones; check the file that it is from")
        if min(self.focal) <= 0:
            raise UserError(f"focal: got {self.focal}, expected fractions of width and height above 0")
        rotation = matrix[:3, :3]
        off = float(np.abs(rotation @ rotation.T - np.eye(3)).max())
        if off > TOLERANCE or np.linalg.det(rotation) < 0 or np.abs(matrix[3] - [0, 0, 0, 1]).max() > TOLERANCE:
            raise UserError(
                f"world_to_camera: got a matrix that is not a rigid motion (R R^T is off by {off:.2g}, determinant "
                f"{np.linalg.det(rotation):.2g}), expected a rotation and a translation; drop scales and "
                "mirrorings, and put the translation in the last column"
            )
        object.__setattr__(self, "world_to_camera", matrix)

    @classmethod
    def looking(cls, eye: ArrayLike, target: ArrayLike, *, field_of_view: float = 60.0, aspect: float = 1.0) -> Self:
        """Makes a camera at `eye` that looks at `target`, with world coordinate y upwards.

        Args:
            field_of_view: across the image's width, in degrees.
            aspect: height over width.

        Raises:
            ValueError: eye and target are one point, or one is straight above the other.
        """
        eye = np.asarray(eye, np.float64)
        forward = np.asarray(target, np.float64) - eye
        right = np.cross(forward, (0.0, 1.0, 0.0))
        if np.linalg.norm(right) < 1e-9:
            raise UserError(
                f"target: got {np.asarray(target)} seen from {eye}, expected another direction than up or down"
            )
        forward, right = forward / np.linalg.norm(forward), right / np.linalg.norm(right)
        rotation = np.stack([right, np.cross(forward, right), forward])
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = rotation, -rotation @ eye
        focal = 0.5 / np.tan(np.radians(field_of_view) / 2)
        return cls((focal, focal / aspect), matrix)

    def orbited(self, pivot: ArrayLike, azimuth: float = 0.0, elevation: float = 0.0, distance: float = 1.0) -> Self:
        """Returns the camera moved on an orbit around a point, whose place in the image is kept.

        Args:
            azimuth, elevation: in degrees, to the right and up.
            distance: factor on the distance from the point.

        Raises:
            ValueError: a distance that is not above 0, or an angle that is not finite.
        """
        for name, angle in (("azimuth", azimuth), ("elevation", elevation)):
            if not np.isfinite(angle):
                raise UserError(f"{name}: got {angle}, expected degrees; pass a finite number")
        if not distance > 0:
            raise UserError(f"distance: got {distance}, expected a factor above 0")
        rotation, pivot = self.world_to_camera[:3, :3], np.asarray(pivot, np.float64)
        around = Rotation.from_rotvec([0.0, np.radians(azimuth), 0.0])
        turn = (around * Rotation.from_rotvec(-np.radians(elevation) * rotation[0])).as_matrix()
        position = pivot + distance * turn @ (self.position - pivot)
        matrix = np.eye(4)
        matrix[:3, :3] = rotation @ turn.T
        matrix[:3, 3] = -matrix[:3, :3] @ position
        return replace(self, world_to_camera=matrix)

    @property
    def position(self) -> Float[np.ndarray, "3"]:
        """Position in world coordinates."""
        return -self.world_to_camera[:3, :3].T @ self.world_to_camera[:3, 3]

    def rays(self, height: int, width: int) -> Float[np.ndarray, "height width 3"]:
        """Returns the ray direction of every pixel in world coordinates, scaled to depth 1."""
        x = ((np.arange(width) + 0.5) / width - self.center[0]) / self.focal[0]
        y = ((np.arange(height) + 0.5) / height - self.center[1]) / self.focal[1]
        local = np.stack([*np.meshgrid(x, y), np.ones((height, width))], -1)
        return local @ self.world_to_camera[:3, :3]

    def points(self, depth: Float[np.ndarray, "height width"]) -> Float[np.ndarray, "height width 3"]:
        """Returns the world points of a depth map."""
        return self.position + depth[..., None] * self.rays(*depth.shape)

    def project(self, points: Float[np.ndarray, "*points 3"]) -> tuple[Array, Array]:
        """Projects world points: (x, y) in fractions of the image, [*points, 2], and depth, [*points].

        Points with a depth of 0 or less are behind the camera and are not seen; their place is undefined.
        """
        local = points @ self.world_to_camera[:3, :3].T + self.world_to_camera[:3, 3]
        depth = local[..., 2]
        divisor = np.where(np.abs(depth) < 1e-9, 1e-9, depth)[..., None]
        return local[..., :2] / divisor * np.array(self.focal) + np.array(self.center), depth
