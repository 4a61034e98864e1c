"""Embedder of expressions: from the image of a person to a normal density of priors.

Source: arXiv 2504.18087 for the idea, a Gaussian per expression, whose mean generation reads.
Differs: the authors' embedder reads speech and video and is not published; this convolutional network, the density
N(mean, 1) of each named expression, and the divergence from it as the loss are ours.
"""

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor, nn

CHANNELS: Final = (32, 64, 128, 256)


class GaussianEmbedder(nn.Module):
    """Strided convolutions from square images in [0, 1] to mean and log variance."""

    def __init__(self, prior_dim: int) -> None:
        super().__init__()
        blocks = []
        for before, after in zip((3, *CHANNELS), CHANNELS, strict=False):
            blocks += [nn.Conv2d(before, after, 3, 2, 1), nn.GroupNorm(8, after), nn.SiLU()]
        self.blocks = nn.Sequential(*blocks)
        self.out = nn.Linear(CHANNELS[-1], 2 * prior_dim)

    def forward(
        self, images: Float[Tensor, "image 3 size size"]
    ) -> tuple[Float[Tensor, "image dim"], Float[Tensor, "image dim"]]:
        mean, log_variance = self.out(self.blocks(2 * images - 1).mean((2, 3))).chunk(2, -1)
        return mean, log_variance.clamp(-10, 10)


def divergence(
    mean: Float[Tensor, "image dim"], log_variance: Float[Tensor, "image dim"], prior: Float[Tensor, "image dim"]
) -> Float[Tensor, ""]:
    """Computes the Kullback-Leibler divergence from N(prior, 1), a mean over images and dimensions."""
    return ((mean - prior).square() + log_variance.exp() - 1 - log_variance).mean() / 2


def sampled(
    mean: Float[Tensor, "image dim"], log_variance: Float[Tensor, "image dim"], generator: torch.Generator
) -> Float[Tensor, "image dim"]:
    """Draws from the densities, differentiably."""
    noise = torch.randn(mean.shape, generator=generator).to(mean)
    return mean + (log_variance / 2).exp() * noise
