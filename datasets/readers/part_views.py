"""Views of a part of an image: the box of what a control image shows, and the square around it."""

from typing import Final

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from weftwork.datasets.readers.errors import UserError

Box = tuple[float, float, float, float]
"""Left, top, right and bottom in fractions of the image's sides."""
DRAWN: Final = 12
"""Value from which a pixel of a control image, of 255, is drawn."""
MARGIN: Final = 0.12
"""Of the local view, in sides of the box."""


def part_box(control: UInt8[np.ndarray, "height width 3"]) -> Box:
    """Returns the bounding box of what a control image shows on black; `ValueError` for a black one."""
    drawn = control.max(-1) >= DRAWN
    if not drawn.any():
        raise UserError("control image: got a black one, expected a part on black; draw the part")
    rows, columns = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
    height, width = drawn.shape
    left, right = (float(one) / width for one in (columns[0], columns[-1] + 1))
    top, bottom = (float(one) / height for one in (rows[0], rows[-1] + 1))
    return left, top, right, bottom


def local_view(image: Image.Image, box: Box, size: int) -> Image.Image:
    """Returns the square around a box with a margin, resized; what is outside of the image is left out.

    The square is moved into the image, and is the image's shorter side at most.
    """
    width, height = image.size
    left, top, right, bottom = box[0] * width, box[1] * height, box[2] * width, box[3] * height
    side = min(max(right - left, bottom - top) * (1 + 2 * MARGIN), width, height)
    x = float(np.clip((left + right - side) / 2, 0, width - side))
    y = float(np.clip((top + bottom - side) / 2, 0, height - side))
    return image.resize((size, size), Image.Resampling.BICUBIC, box=(x, y, x + side, y + side))
