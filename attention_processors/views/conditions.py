"""Reference views with their geometry, the conditions of new views."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image

from weftwork.attention_processors.core.condition import Condition
from weftwork.datasets.readers.cameras import Camera
from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.readers.images import as_image
from weftwork.datasets.readers.posed_views import Frame

if TYPE_CHECKING:
    from weftwork.datasets.synthetic.rooms import View

Values = np.ndarray
DepthModel = Callable[[Image.Image], Float[np.ndarray, "height width"]]


@dataclass(frozen=True, eq=False)
class ReferenceView(Condition):
    """Reference image with its geometry; the other arguments are those of `Condition`.

    They are the strength with which both denoising roles read it. What is warped to the target camera has all
    references, whatever their weights. With `cfg="cond_only"` the unconditional half of guidance does not read it.

    Args:
        image: [height, width, 3] in [0, 1].
        points: world points of the pixels; NaN where unknown.

    Raises:
        ValueError: shapes that differ, colours outside [0, 1], or no point that is known; and as for `Condition`.
    """

    image: Float[np.ndarray, "height width 3"]
    points: Float[np.ndarray, "height width 3"]
    camera: Camera

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image.shape != self.points.shape or self.image.ndim != 3 or self.image.shape[2] != 3:
            raise UserError(
                f"reference: got an image of shape {self.image.shape} and points of {self.points.shape}, expected "
                "[height, width, 3] for both; resize one of them"
            )
        if not (np.isfinite(self.image).all() and self.image.min() >= 0 and self.image.max() <= 1):
            raise UserError("reference: got colours outside [0, 1], expected floats in it; divide bytes by 255")
        if not np.isfinite(self.points).all(-1).any():
            raise UserError("reference: got no finite point, expected some; check the depth")

    @classmethod
    def of_depth(cls, image: Values, depth: Float[np.ndarray, "height width"], camera: Camera) -> "ReferenceView":
        """Makes a reference from depth along the camera's axis; depths that are not above 0 and finite are unknown."""
        depth = np.asarray(depth, np.float64)
        if depth.ndim != 2:
            raise UserError(f"depth: got shape {depth.shape}, expected [height, width]; drop the other axes")
        known = np.isfinite(depth) & (depth > 0)
        points = np.where(known[..., None], camera.points(np.where(known, depth, 1.0)), np.nan)
        return cls(image, points, camera)

    @classmethod
    def of_image(
        cls,
        image: Image.Image,
        depth: Float[np.ndarray, "height width"] | DepthModel,
        camera: Camera,
        size: tuple[int, int],
    ) -> "ReferenceView":
        """Makes a reference from an image and its depth, each resized to a height and width.

        Args:
            image: of any mode; turned upright.
            depth: along the camera's axis; or a depth model, called with the image.

        Raises:
            ValueError: as for `of_depth`; depth of another aspect than the image.
        """
        height, width = size
        image = as_image(image, name="reference")
        pixels = np.asarray(image.resize((width, height))) / 255
        depth = np.asarray(depth(image) if callable(depth) else depth, np.float32)
        if depth.ndim == 2:
            if abs(depth.shape[1] / depth.shape[0] * image.height / image.width - 1) > 0.02:
                raise UserError(
                    f"depth: got shape {depth.shape} for an image of {image.height}x{image.width}, expected [height, "
                    "width] of its aspect; save the depth of the whole image"
                )
            depth = np.asarray(Image.fromarray(depth).resize((width, height), Image.Resampling.NEAREST))
        return cls.of_depth(pixels, depth, camera)

    @classmethod
    def of_view(cls, view: "View") -> "ReferenceView":
        """Makes a reference from a rendered view of a room, with its exact depth."""
        return cls.of_depth(view.image / 255, view.depth, view.camera)

    @classmethod
    def of_frame(cls, frame: Frame, size: int) -> "ReferenceView":
        """Makes a reference from a frame of a clip, squeezed to a square of `size` pixels.

        Raises:
            ValueError: a frame without depth; and as for `of_image`.
        """
        depth = frame.depth
        if depth is None:
            raise UserError(
                f"{frame.path}: got a frame without depth, expected {frame.path.with_suffix('.npy').name} beside it; "
                "write the output of a depth model to it"
            )
        try:
            return cls.of_image(frame.image, depth, frame.camera, (size, size))
        except UserError as error:
            raise UserError(f"{frame.path}: {error}") from error

    @property
    def known(self) -> Bool[np.ndarray, "height width"]:
        return np.asarray(np.isfinite(self.points).all(-1))
