"""How good a generated view is, beside the true one, and how well its picture and its geometry agree.

No score needs a pretrained network. A perceptual distance (LPIPS) would; there is none here, and none is imitated.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

EDGE_SHARE: Final = 0.03
"""The share of a view's pixels that count as edges of its geometry: those where it breaks most."""
WINDOW, SIGMA = 11, 1.5
STABLE: Final = (0.01**2, 0.03**2)

Picture = Float[np.ndarray, "height width 3"]
Depth = Float[np.ndarray, "height width"]


@dataclass(frozen=True)
class ViewScores:
    """Means over views.

    Args:
        psnr: of the picture, in dB.
        ssim: structural similarity of the picture, at most 1.
        depth_error_seen, depth_error_unseen: mean of |depth - truth| / truth over the pixels of all views where
            references show something, and where they do not.
        alignment: see `alignment`.
    """

    psnr: float
    ssim: float
    depth_error_seen: float
    depth_error_unseen: float
    alignment: float


def score_views(
    pictures: Sequence[Picture],
    depths: Sequence[Depth],
    true_pictures: Sequence[Picture],
    true_depths: Sequence[Depth],
    seen: Sequence[Bool[np.ndarray, "height width"]],
) -> ViewScores:
    """Scores of generated views; pictures in [0, 1]."""
    errors = [np.abs(d - t) / t for d, t in zip(depths, true_depths, strict=True)]
    return ViewScores(
        psnr=float(np.mean([psnr(*pair) for pair in zip(pictures, true_pictures, strict=True)])),
        ssim=float(np.mean([ssim(*pair) for pair in zip(pictures, true_pictures, strict=True)])),
        depth_error_seen=_mean_where(errors, seen),
        depth_error_unseen=_mean_where(errors, [~one for one in seen]),
        alignment=float(np.mean([alignment(*pair) for pair in zip(pictures, depths, strict=True)])),
    )


def psnr(picture: Picture, truth: Picture) -> float:
    """Peak signal-to-noise ratio in dB."""
    return float(-10 * np.log10(max(float(np.square(picture - truth).mean()), 1e-12)))


def ssim(picture: Picture, truth: Picture) -> float:
    """Structural similarity (Wang et al. 2004): Gaussian window of 11 pixels, mean over colours and places within."""
    steps = torch.arange(WINDOW) - WINDOW // 2
    bell = torch.exp(-(steps**2) / (2 * SIGMA**2))
    window = torch.outer(bell, bell / bell.sum() ** 2)[None, None]
    one, other = (torch.from_numpy(np.moveaxis(p, -1, 0).copy()).float()[:, None] for p in (picture, truth))

    def blurred(values: Tensor) -> Tensor:
        return F.conv2d(values, window)

    mean, other_mean = blurred(one), blurred(other)
    spread = blurred(one * one) - mean**2, blurred(other * other) - other_mean**2
    together = blurred(one * other) - mean * other_mean
    likeness = (2 * mean * other_mean + STABLE[0]) * (2 * together + STABLE[1])
    return (likeness / ((mean**2 + other_mean**2 + STABLE[0]) * (sum(spread) + STABLE[1]))).mean().item()


def alignment(picture: Picture, depth: Depth) -> float:
    """How well the picture's contrast tells the edges of the geometry: 1 always, 0.5 as chance does.

    The area under the ROC curve: how often contrast at an edge of the geometry exceeds that at another pixel. Edges are
    the `EDGE_SHARE` of pixels at which inverse depth bends most; over a plane it does not bend at all. Contrast is the
    mean around a pixel. Painted patterns keep true views below 1, and rooms have their corners in like places, which
    keeps shuffled ones above 0.5: only what lies between these two says something.
    """
    contrast, breaks = _contrast(picture), _breaks(depth)
    edge = breaks >= np.quantile(breaks, 1 - EDGE_SHARE)
    ranks = _ranks(contrast.ravel())
    edges, others = int(edge.sum()), int((~edge).sum())
    if not edges or not others:
        return 0.5
    return float((ranks[edge.ravel()].sum() - edges * (edges + 1) / 2) / (edges * others))


def _contrast(picture: Picture) -> Depth:
    """Differences to the right and below, of the colour that differs most, as the mean around each pixel."""
    across = np.abs(np.diff(picture, axis=1, append=picture[:, -1:])).max(-1)
    down = np.abs(np.diff(picture, axis=0, append=picture[-1:])).max(-1)
    strength = torch.from_numpy(np.maximum(across, down))[None, None]
    return F.avg_pool2d(strength, 3, stride=1, padding=1, count_include_pad=False)[0, 0].numpy()


def _breaks(depth: Depth) -> Depth:
    """How much inverse depth bends, along rows or columns."""
    near = np.pad(1 / np.maximum(depth, 1e-3), 1, mode="reflect", reflect_type="odd")
    bends = [np.diff(near, 2, axis=axis) for axis in (0, 1)]
    return np.maximum(np.abs(bends[0][:, 1:-1]), np.abs(bends[1][1:-1]))


def _ranks(values: Float[np.ndarray, " pixel"]) -> Float[np.ndarray, " pixel"]:
    """From 1; equal ones share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def _mean_where(errors: Sequence[Depth], where: Sequence[Bool[np.ndarray, "height width"]]) -> float:
    """The mean over such pixels of all views together, since some have but slivers of them; NaN without any."""
    found = np.concatenate([error[mask] for error, mask in zip(errors, where, strict=True)])
    return float(found.mean()) if len(found) else float("nan")
