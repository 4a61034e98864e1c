"""Checks of the image that a run begins with, and of the mask that is white where it is drawn anew."""

from typing import Final

import numpy as np
from PIL import Image

from weftwork.attention_processors.core.records import is_finite, short
from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.readers.images import as_image

DEFAULT_STRENGTH: Final = 0.8
MULTIPLE: Final = 8
WHITE: Final = 128
"""Tone from which on a mask is white, as in diffusers."""


def check_initial_image(image: Image.Image, mask: Image.Image | None, strength: float, steps: int) -> None:
    """Checks an initial image, its mask and strength.

    Raises:
        ValueError: sides that no pipeline generates, a mask of another size or without white, a strength outside of
            (0, 1] or of no step.
    """
    width, height = image.size
    if width % MULTIPLE or height % MULTIPLE:
        nearest = "x".join(str(max(MULTIPLE, side // MULTIPLE * MULTIPLE)) for side in image.size)
        raise UserError(f"image: got {width}x{height} pixels, expected multiples of {MULTIPLE}; resize it to {nearest}")
    if not (is_finite(strength) and 0 < strength <= 1):
        raise UserError(f"strength: got {short(strength)}, expected a number above 0, up to 1; change it")
    if int(steps * strength) < 1:
        raise UserError(
            f"strength: got {strength} of {steps} steps, expected at least one step; raise it or num_inference_steps"
        )
    if mask is None:
        return
    if mask.size != image.size:
        raise UserError(
            f"mask_image: got {mask.width}x{mask.height} pixels, expected {width}x{height}, those of image; resize it"
        )
    if not np.asarray(binary_mask(mask)).any():
        raise UserError("mask_image: got no white, expected some where the image is drawn anew; paint it white")


def binary_mask(mask: Image.Image) -> Image.Image:
    """Returns a mask of black and white, as diffusers reads it."""
    return as_image(mask, "L").point([0] * WHITE + [255] * WHITE)
