"""Classifier of the designers of drawings, trained on real art; its only input is the image."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float
from torch import Tensor, nn

from weftwork.evaluation.core.images import Images
from weftwork.evaluation.oracles.instruments import in_batches

GROUPS = 8


class DesignerOracle(ModelMixin, ConfigMixin):
    """Convolutions whose features at 1/4, 1/8 and 1/16 of the side are pooled over the image.

    Args:
        styles: names of the sets that it distinguishes.
        channels: widths at 1/2, 1/4, 1/8 and 1/16, multiples of 8.
    """

    @register_to_config
    def __init__(self, styles: Sequence[str], channels: Sequence[int] = (32, 48, 80, 112)) -> None:
        super().__init__()
        widths = 12, *channels
        self.cells = nn.PixelUnshuffle(2)
        self.stages = nn.ModuleList(
            nn.Sequential(_block(before, after, 1 if i == 0 else 2), _block(after, after, 1))
            for i, (before, after) in enumerate(pairwise(widths))
        )
        self.head = nn.Linear(2 * sum(channels[1:]), len(styles))

    def forward(self, images: Images) -> Float[Tensor, "image style"]:
        """Logits of images in [0, 1] whose sides are multiples of 16."""
        x, pooled = self.cells(2 * images - 1), []
        for stage in self.stages:
            x = stage(x)
            pooled += [x.mean((2, 3)), x.amax((2, 3))]
        return self.head(torch.cat(pooled[2:], 1))

    def read(self, images: Images) -> list[str]:
        """The set that each image looks most like."""
        return [self.config["styles"][i] for i in in_batches(self)(images).argmax(1).tolist()]


def _block(before: int, after: int, stride: int) -> nn.Sequential:
    """Convolution, group norm (batch-invariant), ReLU."""
    convolution = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.GroupNorm(GROUPS, after), nn.ReLU(inplace=True))
