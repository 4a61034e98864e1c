"""Scores of generated views against the true ones, and alignment of image and geometry.

No score here needs a pretrained network; the evaluation adds a perceptual distance where one is installed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from scipy.stats import mannwhitneyu
from torch import Tensor

EDGE_SHARE: Final = 0.03
"""Fraction of a view's pixels that count as edges of its geometry: those with the strongest breaks."""
WINDOW, SIGMA = 11, 1.5
STABLE: Final = (0.01**2, 0.03**2)

Image = Float[np.ndarray, "height width 3"]
Depth = Float[np.ndarray, "height width"]


@dataclass(frozen=True)
class ViewScores:
    """Means over views.

    Args:
        psnr: PSNR of the image, in dB.
        psnr_unseen: the same over the pixels of all views together that no reference shows.
        ssim: structural similarity of the image, at most 1.
        depth_error_seen, depth_error_unseen: mean of |depth - truth| / truth over the pixels of all views that are
            visible in references, and over the others; pixels of infinite depth are left out.
        alignment: see `alignment`.
    """

    psnr: float
    psnr_unseen: float
    ssim: float
    depth_error_seen: float
    depth_error_unseen: float
    alignment: float


def score_views(
    images: Sequence[Image],
    depths: Sequence[Depth],
    true_images: Sequence[Image],
    true_depths: Sequence[Depth],
    seen: Sequence[Bool[np.ndarray, "height width"]],
) -> ViewScores:
    """Scores generated views; images are in [0, 1], depths that are not known infinite."""
    known = [np.isfinite(t) & ~np.isinf(d) for d, t in zip(depths, true_depths, strict=True)]
    errors = [
        np.abs(np.where(k, d, 1) - np.where(k, t, 1)) / np.where(k, t, 1)
        for d, t, k in zip(depths, true_depths, known, strict=True)
    ]
    squares = [np.square(d - t).mean(-1) for d, t in zip(images, true_images, strict=True)]
    unseen = [~one for one in seen]
    return ViewScores(
        psnr=float(np.mean([psnr(*pair) for pair in zip(images, true_images, strict=True)])),
        psnr_unseen=_decibels(_mean_where(squares, unseen)),
        ssim=float(np.mean([ssim(*pair) for pair in zip(images, true_images, strict=True)])),
        depth_error_seen=_mean_where(errors, [s & k for s, k in zip(seen, known, strict=True)]),
        depth_error_unseen=_mean_where(errors, [s & k for s, k in zip(unseen, known, strict=True)]),
        alignment=float(np.mean([alignment(*pair) for pair in zip(images, depths, strict=True)])),
    )


def psnr(image: Image, truth: Image) -> float:
    """Peak signal-to-noise ratio in dB."""
    return _decibels(float(np.square(image - truth).mean()))


def _decibels(error: float) -> float:
    return float(-10 * np.log10(np.maximum(error, 1e-12)))


def ssim(image: Image, truth: Image) -> float:
    """Structural similarity (Wang et al. 2004): Gaussian 11-pixel window, unpadded, mean over colours and pixels."""
    steps = torch.arange(WINDOW) - WINDOW // 2
    bell = torch.exp(-(steps**2) / (2 * SIGMA**2))
    window = torch.outer(bell, bell / bell.sum() ** 2)[None, None]
    one, other = (torch.from_numpy(np.moveaxis(p, -1, 0).copy()).float()[:, None] for p in (image, truth))

    def blurred(values: Tensor) -> Tensor:
        return F.conv2d(values, window)

    mean, other_mean = blurred(one), blurred(other)
    spread = blurred(one * one) - mean**2, blurred(other * other) - other_mean**2
    together = blurred(one * other) - mean * other_mean
    likeness = (2 * mean * other_mean + STABLE[0]) * (2 * together + STABLE[1])
    return (likeness / ((mean**2 + other_mean**2 + STABLE[0]) * (sum(spread) + STABLE[1]))).mean().item()


def alignment(image: Image, depth: Depth) -> float:
    """ROC AUC of image contrast as a predictor of geometry edges: 1 at best, 0.5 at chance level.

    Edges are the `EDGE_SHARE` of pixels with the largest second difference of inverse depth, which is 0 on a plane.
    Contrast is averaged around each pixel. Painted patterns keep true views below 1, and similar positions of room
    corners keep shuffled views above 0.5, so compare scores with both.
    """
    contrast, breaks = _contrast(image), depth_breaks(depth)
    edge = breaks >= np.quantile(breaks, 1 - EDGE_SHARE)
    if edge.all():
        return 0.5
    wins = mannwhitneyu(contrast[edge], contrast[~edge], method="asymptotic").statistic
    return float(wins / (edge.sum() * (~edge).sum()))


def _contrast(image: Image) -> Depth:
    """Largest difference over colours to the right and lower neighbour, averaged over 3x3 pixels."""
    across = np.abs(np.diff(image, axis=1, append=image[:, -1:])).max(-1)
    down = np.abs(np.diff(image, axis=0, append=image[-1:])).max(-1)
    strength = torch.from_numpy(np.maximum(across, down))[None, None]
    return F.avg_pool2d(strength, 3, stride=1, padding=1, count_include_pad=False)[0, 0].numpy()


def depth_breaks(depth: Depth) -> Depth:
    """Larger absolute second difference of inverse depth along rows and columns."""
    near = np.pad(1 / np.maximum(depth, 1e-3), 1, mode="reflect", reflect_type="odd")
    bends = [np.diff(near, 2, axis=axis) for axis in (0, 1)]
    return np.maximum(np.abs(bends[0][:, 1:-1]), np.abs(bends[1][1:-1]))


def _mean_where(errors: Sequence[Depth], where: Sequence[Bool[np.ndarray, "height width"]]) -> float:
    """Mean over the selected pixels of all views together, since single views may have few; NaN without any."""
    found = np.concatenate([error[mask] for error, mask in zip(errors, where, strict=True)])
    return float(found.mean()) if len(found) else float("nan")
