"""Scores of images of drawings: edges against the sketch, colours per drawing, and subjects by retrieval.

All images are [height, width, 3] of bytes, masks and lines boolean of the same size.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from weftwork.datasets.drawings.colors import cielab

Image = UInt8[np.ndarray, "height width 3"]
Mask = Bool[np.ndarray, "height width"]

TOLERANCE: Final = 2
"""Pixels between a line and the edge that belongs to it."""
CONTRAST: Final = 0.2
"""Least norm of the Sobel gradient over all channels, of values in [0, 1] after a blur of one pixel."""
COLORS_COMPARED: Final = 64
"""Pixels drawn from each region to compare colours."""
TOP: Final = 5
OTHERS: Final = 99
"""Wrong subjects beside the right one in retrieval."""


def edges(image: Image) -> Mask:
    """Thin edges: maxima of the gradient across them, along rows or columns."""
    blurred = np.asarray(ndimage.gaussian_filter(np.asarray(image, np.float32) / 255, (1, 1, 0)))
    planes = np.moveaxis(blurred, -1, 0)
    down, across = (sum(np.asarray(ndimage.sobel(plane, axis)) ** 2 for plane in planes) for axis in (0, 1))
    gradient = np.sqrt(down + across)
    along_columns, along_rows = (np.asarray(ndimage.maximum_filter(gradient, size)) for size in ((3, 1), (1, 3)))
    highest = np.where(down > across, along_columns, along_rows)
    return (gradient >= highest) & (gradient > CONTRAST)


def edge_scores(image: Image, lines: Mask) -> tuple[float, float]:
    """Recall and precision within `TOLERANCE` pixels; NaN where there are no lines.

    Recall is the share of the sketch's lines with an edge of the image nearby, precision the share of the image's edges
    with a line nearby, 0 for an image without edges.
    """
    found = edges(image)
    if not lines.any():
        return float("nan"), float("nan")
    if not found.any():
        return 0.0, 0.0
    to_line, to_edge = (np.asarray(ndimage.distance_transform_edt(~one)) for one in (lines, found))
    return float((to_edge[lines] <= TOLERANCE).mean()), float((to_line[found] <= TOLERANCE).mean())


def visible_lines(sketches: Sequence[UInt8[np.ndarray, "height width"]], regions: Sequence[Mask]) -> Mask:
    """Lines of sketches that no later drawing hides."""
    seen = np.zeros_like(regions[0])
    for sketch, region in zip(sketches, regions, strict=True):
        seen = (seen & ~region) | (sketch < 128)
    return seen


def color_error(image: Image, region: Mask, other: Image, other_region: Mask) -> float:
    """Mean CIELAB difference (ΔE 1976) between the colours of two regions, wherever they are in them.

    The same number of pixels of each region, at even steps, are matched one to one at the least cost; NaN for an empty
    region.
    """
    if not (region.any() and other_region.any()):
        return float("nan")
    some, others = (cielab(_spread(one[mask])) for one, mask in ((image, region), (other, other_region)))
    costs = np.linalg.norm(some[:, None] - others[None], axis=2)
    return float(costs[linear_sum_assignment(costs)].mean())


def _spread(pixels: UInt8[np.ndarray, "pixel 3"]) -> UInt8[np.ndarray, "pixel 3"]:
    return pixels[np.linspace(0, len(pixels) - 1, COLORS_COMPARED).round().astype(int)]


def retrieval(
    queries: Float[Tensor, "query dim"], gallery: Float[Tensor, "subject dim"], truth: Sequence[int], seed: int = 0
) -> tuple[float, float]:
    """Shares of queries whose subject is the first, and among the first `TOP`, of itself and `OTHERS` others.

    Means of queries and gallery, which encode the style, are taken off before cosines are compared.

    Args:
        truth: place of each query's subject in the gallery.
    """
    ones, others = (torch.nn.functional.normalize(x - x.mean(0), dim=1) for x in (queries, gallery))
    cosines, rng = ones @ others.T, np.random.default_rng(seed)
    ranks = []
    for row, own in zip(cosines, truth, strict=True):
        wrong = rng.permutation(np.delete(np.arange(len(gallery)), own))[:OTHERS]
        ranks.append(int((row[wrong] >= row[own]).sum()))
    return float(np.mean([rank < 1 for rank in ranks])), float(np.mean([rank < TOP for rank in ranks]))
