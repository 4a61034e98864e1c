"""Line drawings of photographs: edges by a difference of Gaussians, kept where they are strong somewhere."""

from typing import Final

import numpy as np
from PIL import Image
from scipy.ndimage import binary_propagation, gaussian_filter

from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.readers.images import as_image

SIDE: Final = 512
"""Lengths are in pixels of an image whose longer side has this many, and of smaller ones."""
FINE: Final = 1.2
COARSE: Final = 2.0
FAINT: Final = 0.2
"""Darkness, as a share of the darkest lines', from which on lines are drawn."""
STRONG: Final = 0.5
"""Darkness that each line reaches somewhere."""
LEAST_CONTRAST: Final = 0.005


def line_drawing(photo: Image.Image) -> Image.Image:
    """Returns dark lines on white, of the photograph's size, on the darker side of its edges.

    Raises:
        ValueError: an image without edges.
    """
    values = np.asarray(as_image(photo, "RGB", name="photo"), np.float32) / 255
    scale = max(1, max(values.shape) / SIDE)
    fine, coarse = (gaussian_filter(values, (sigma * scale, sigma * scale, 0)) for sigma in (FINE, COARSE))
    darkness = (coarse - fine).max(2)
    darkest = float(np.quantile(darkness, 0.995))
    if darkest < LEAST_CONTRAST:
        raise UserError("photo: got an image without edges, expected one with things in it; choose another one")
    strong, faint = darkness > STRONG * darkest, darkness > FAINT * darkest
    kept = np.asarray(binary_propagation(strong, np.ones((3, 3)), faint), bool)
    tone = 1 - np.clip(darkness / (STRONG * darkest), 0, 1) * kept
    return Image.fromarray((255 * tone).round().astype(np.uint8))
