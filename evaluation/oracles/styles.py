"""Classifier of the style of an outfit's image, fitted to renders: linear discriminant analysis of pixel statistics."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from weftwork.datasets.synthetic.outfits import STYLES, sample
from weftwork.evaluation.core.images import Images, as_tensor
from weftwork.evaluation.oracles.outfits import SIDE, check_images, resize

RENDERS: Final = 12
"""Renders per style."""
SEED: Final = 77
SCALES: Final = (1, 2, 4)
QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)
SHRINKAGE: Final = 0.1


@dataclass(frozen=True, eq=False)
class StyleReader:
    """Linear classifier of statistics of images."""

    styles: tuple[str, ...]
    weights: Float[Tensor, "statistic style"]
    bias: Float[Tensor, " style"]

    @classmethod
    def fit(cls, shown: Mapping[str, Images]) -> "StyleReader":
        """Fits images of each style, and blurred copies of them: one mean per style, one covariance of all."""
        groups = [torch.cat([statistics(_blurred(images, times)) for times in (0, 1, 3)]) for images in shown.values()]
        rows = torch.cat(groups)
        mean, std = rows.mean(0), rows.std(0) + 1e-6
        centers = torch.stack([group.mean(0) for group in groups])
        spread = torch.cat([group - center for group, center in zip(groups, centers, strict=True)]) / std
        centers = (centers - mean) / std
        covariance = spread.T @ spread / len(spread) + SHRINKAGE * torch.eye(len(std))
        weights = torch.linalg.solve(covariance, centers.T)
        bias = -0.5 * (weights * centers.T).sum(0)
        weights = weights / std[:, None]
        return cls(tuple(shown), weights, bias - mean @ weights)

    def read(self, images: Images) -> list[str]:
        """Returns the styles of images in [0, 1]."""
        check_images(images)
        scores = statistics(resize(images, SIDE, SIDE)) @ self.weights + self.bias
        return [self.styles[place] for place in scores.argmax(1).tolist()]


@cache
def fitted_reader() -> StyleReader:
    """Returns a reader of the eight styles of outfits."""
    return StyleReader.fit({style: renders(style) for style in STYLES})


def renders(style: str | None, count: int = RENDERS) -> Images:
    """Renders of the training split in a style, for readers to be fitted."""
    return as_tensor([sample("train", index, seed=SEED, count=2, style=style).image for index in range(count)])


def statistics(images: Images) -> Float[Tensor, "image statistic"]:
    """Per channel: mean, quantiles, and per scale the deviation and the mean step to the right and down."""
    levels = torch.quantile(images.flatten(2), torch.tensor(QUANTILES), dim=2)
    found = [images.mean((2, 3)), *levels]
    for scale in SCALES:
        planes = functional.avg_pool2d(images, scale)
        right, down = planes.diff(dim=3), planes.diff(dim=2)
        found += [planes.std((2, 3)), right.abs().mean((2, 3)), down.abs().mean((2, 3))]
    return torch.cat(found, 1)


def _blurred(images: Images, times: int) -> Images:
    for _ in range(times):
        images = functional.avg_pool2d(functional.pad(images, (1,) * 4, mode="replicate"), 3, 1)
    return images
