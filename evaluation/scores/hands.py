"""Scores of hands in images: keypoints, read by the colours of fingertips and cuff, and their errors."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from jaxtyping import Float, UInt8

from weftwork.datasets.synthetic.hands import COLORS, HandSample

CHROMA: Final = 0.22
"""Least difference between the highest and the lowest channel of a pixel of a keypoint; all else is paler."""
TOLERANCE: Final = 26.0
"""Largest difference in hue, in degrees; colours are about 60 apart."""
LEAST: Final = 2.5e-4
"""Share of an image's pixels that a keypoint needs to be found: 4 of 128 x 128."""
CORRECT: Final = 0.1
"""Largest error of a correct keypoint, in sides of the hand's box."""


def read_keypoints(image: UInt8[np.ndarray, "height width 3"]) -> Float[np.ndarray, "6 2"]:
    """Returns the medians of the places of each keypoint's colour, in fractions of the sides; NaN if it is absent."""
    hues, chroma = _hues(image)
    height, width = chroma.shape
    found = np.full((len(COLORS), 2), np.nan)
    for row, color in enumerate(COLORS):
        wanted = _hues(np.array([[color]], np.uint8))[0].item()
        near = np.abs((hues - wanted + 180) % 360 - 180) <= TOLERANCE
        y, x = np.nonzero(near & (chroma >= CHROMA))
        if len(x) >= LEAST * chroma.size:
            found[row] = (np.median(x) + 0.5) / width, (np.median(y) + 0.5) / height
    return found


def _hues(
    image: UInt8[np.ndarray, "height width 3"],
) -> tuple[Float[np.ndarray, "height width"], Float[np.ndarray, "height width"]]:
    """Returns hues in degrees, and the differences between the highest and the lowest channel."""
    red, green, blue = np.moveaxis(image / 255, -1, 0)
    hues = np.degrees(np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue)) % 360
    return hues, np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)


def score_hands(images: UInt8[np.ndarray, "image height width 3"], hands: Sequence[HandSample]) -> dict[str, float]:
    """Returns scores of the keypoints that the true images show; NaN if there are none.

    - `tip_error`, `cuff_error`: mean distance to the true place in sides of the hand's box, 1 at most; 1 for a keypoint
      that is not found.
    - `tips_found`: share of fingertips whose colour is in the image.
    - `tips_correct`: share of fingertips with an error of at most `CORRECT`.
    """
    errors, found, shown = [], [], []
    for image, hand in zip(images, hands, strict=True):
        left, top, right, bottom = hand.box
        distance = np.linalg.norm(read_keypoints(image) - hand.keypoints, axis=1) / max(right - left, bottom - top)
        errors.append(np.minimum(np.nan_to_num(distance, nan=1.0), 1.0))
        found.append(~np.isnan(distance))
        shown.append(hand.visible)
    error, seen, visible = np.stack(errors), np.stack(found), np.stack(shown)
    tips, cuffs = visible[:, :-1], visible[:, -1]
    return {
        "tip_error": _mean(error[:, :-1][tips]),
        "cuff_error": _mean(error[:, -1][cuffs]),
        "tips_found": _mean(seen[:, :-1][tips]),
        "tips_correct": _mean(error[:, :-1][tips] <= CORRECT),
    }


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")
