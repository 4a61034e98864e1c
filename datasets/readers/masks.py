"""Masks of regions: images that are white where a condition acts."""

import logging
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.readers.images import read_any, upright

logger = logging.getLogger(__name__)

SINGLE: Final = ("1", "L", "I", "I;16", "I;16B", "I;16L", "F")
"""Modes of one channel."""
FULL: Final = {"1": True, "I": 65535, "I;16": 65535, "I;16B": 65535, "I;16L": 65535, "F": 1.0}
"""Value of white by mode, where it is not 255."""
DARKEST_WHITE: Final = 0.5
"""A mask whose brightest value is below this share of white cannot be meant."""


def read_mask(path: str | Path) -> Image.Image:
    """Reads a mask file, see ``as_mask``; `ValueError` as `read_image` and `as_mask`."""
    return as_mask(read_any(path, "mask"), name=f"mask {str(path)!r}")


def as_mask(image: Image.Image, *, name: str = "mask") -> Image.Image:
    """Converts an image to a mask, one channel of 8 bits, white where it acts: transparent is black.

    Masks of 0 and 1, and of 16 bits that hold 0 to 255, are stretched, with a warning. A palette of colours is a map of
    labels, of which there may be one beside 0.

    Raises:
        ValueError: a mask that is black everywhere or dark where it is brightest, or several labels.
    """
    image = upright(image)
    if image.mode == "P" and not _is_grey(image):
        values = np.asarray(image)
        labels = np.setdiff1d(values, [0])
        if len(labels) > 1:
            raise UserError(
                f"{name}: got the labels {', '.join(map(str, labels[:5]))} in a palette image, expected one beside 0; "
                "save a mask per label"
            )
        logger.warning("%s: got label %s in a palette image; it is taken for white", name, labels)
        return Image.fromarray((values > 0).astype(np.uint8) * np.uint8(255))
    if image.has_transparency_data:
        black = Image.new("RGBA", image.size, "black")
        image = Image.alpha_composite(black, image.convert("RGBA"))
    values = np.asarray(image.convert("RGB") if image.mode not in SINGLE else image)
    values = values.max(-1) if values.ndim == 3 else values
    full, most = FULL.get(image.mode, 255), values.max(initial=0)
    if most <= 0:
        raise UserError(
            f"{name}: got a mask that is black everywhere, expected white where it acts; use weight=0 to turn it off"
        )
    if values.min() < 0 or most > full:
        raise UserError(f"{name}: got values from {values.min()} to {most}, expected 0 to {full}; save it with 8 bits")
    meant = next((limit for limit in (1, 255) if most <= limit < full), full)
    if meant != full:
        logger.warning("%s: its brightest value is %s of %s; %s is taken for white", name, most, full, meant)
    elif most < full * DARKEST_WHITE:
        raise UserError(
            f"{name}: got {most} of {full} where it is brightest, expected white ({full}) where it acts; stretch it, "
            "and lower the weight to weaken the condition"
        )
    return Image.fromarray(np.rint(values * (255 / meant)).astype(np.uint8))


def _is_grey(image: Image.Image) -> bool:
    """Whether the colours that a palette image uses are shades of grey."""
    used = np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)
    return bool((used == used[:, :1]).all())
