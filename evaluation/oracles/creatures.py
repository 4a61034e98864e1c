"""Classifier of creature images: style, species, colour, pose, accessory and mask.

Its only input is the image, so it can judge generated images. Attributes are predicted from features averaged over the
whole image, and over the pixels that the predicted mask assigns to creature and background. Group norm makes
predictions batch-invariant.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.synthetic.creatures import ACCESSORIES, COLORS, NEUTRAL, POSES, SPECIES, STYLES
from weftwork.evaluation.oracles.outfits import READ_BATCH, SIDE, check_images, doubled, resize
from weftwork.pretrained import shipped

ATTRIBUTES: Final[Mapping[str, tuple[str, ...]]] = {
    "style": (NEUTRAL, *STYLES),
    "species": SPECIES,
    "color": COLORS,
    "pose": POSES,
    "accessory": ACCESSORIES,
}
NORM_GROUPS: Final = 8


@dataclass(frozen=True, eq=False)
class CreatureReading:
    """Predicted attributes of one image; the mask covers the creature and its accessory."""

    style: str
    species: str
    color: str
    pose: str
    accessory: str
    mask: Bool[Tensor, "height width"]


@dataclass(frozen=True, eq=False)
class CreatureLogits:
    """Logits of the mask per pixel, and of each of `ATTRIBUTES` per image."""

    mask: Float[Tensor, "batch height width"]
    attributes: dict[str, Float[Tensor, "batch option"]]


class NormBlock(nn.Sequential):
    """Convolution, group norm, ReLU."""

    def __init__(self, channels_in: int, channels_out: int, *, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False),
            nn.GroupNorm(NORM_GROUPS, channels_out),
            nn.ReLU(inplace=True),
        )


class CreatureOracle(ModelMixin, ConfigMixin):
    """Classifier of creature images.

    Args:
        channels: widths at 1/2, 1/4, 1/8, 1/16 and 1/32 of the image's side, multiples of 8.
        width: of the layer between pooled features and attributes.
    """

    @register_to_config
    def __init__(self, channels: tuple[int, int, int, int, int] = (16, 40, 64, 96, 112), width: int = 96) -> None:
        super().__init__()
        if len(channels) != 5 or any(count < 1 or count % NORM_GROUPS for count in channels):
            raise UserError(
                f"channels: got {tuple(channels)}, expected five multiples of {NORM_GROUPS}; change the widths"
            )
        at_2, at_4, at_8, at_16, at_32 = channels
        self.cells = nn.PixelUnshuffle(2)
        self.stem = NormBlock(12, at_2)
        self.down_4 = nn.Sequential(NormBlock(at_2, at_4, stride=2), NormBlock(at_4, at_4))
        self.down_8 = nn.Sequential(NormBlock(at_4, at_8, stride=2), NormBlock(at_8, at_8))
        self.down_16 = nn.Sequential(NormBlock(at_8, at_16, stride=2), NormBlock(at_16, at_16))
        self.down_32 = nn.Sequential(NormBlock(at_16, at_32, stride=2), NormBlock(at_32, at_32))
        self.up_16 = nn.Conv2d(at_32, at_16, 1)
        self.up_8, self.merge_8 = nn.Conv2d(at_16, at_8, 1), NormBlock(at_8, at_8)
        self.up_4, self.merge_4 = nn.Conv2d(at_8, at_4, 1), NormBlock(at_4, at_4)
        self.up_2, self.merge_2 = nn.Conv2d(at_4, at_2, 1), NormBlock(at_2 + 12, at_2)
        self.mask = nn.Sequential(nn.Conv2d(at_2, 4, 1), nn.PixelShuffle(2))
        self.pooled = nn.Sequential(nn.Linear(2 * (at_4 + 3) + 2 * at_16 + at_32, width), nn.ReLU())
        self.attributes = nn.ModuleDict({name: nn.Linear(width, len(options)) for name, options in ATTRIBUTES.items()})

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> CreatureLogits:
        """Predicts logits of images in [0, 1] whose sides are multiples of 32."""
        cells = self.cells(2 * images - 1)
        at_2 = self.stem(cells)
        at_4 = self.down_4(at_2)
        at_8 = self.down_8(at_4)
        at_16 = self.down_16(at_8)
        at_32 = self.down_32(at_16)
        at_16 = at_16 + doubled(self.up_16(at_32))
        at_8 = self.merge_8(at_8 + doubled(self.up_8(at_16)))
        at_4 = self.merge_4(at_4 + doubled(self.up_4(at_8)))
        at_2 = self.merge_2(torch.cat([at_2 + doubled(self.up_2(at_4)), cells], dim=1))
        mask = self.mask(at_2)
        inside = functional.avg_pool2d(mask.detach().sigmoid(), 4)
        local = torch.cat([at_4, 2 * functional.avg_pool2d(images, 4) - 1], dim=1)
        whole = [at_16.mean(dim=(2, 3)), at_16.amax(dim=(2, 3)), at_32.mean(dim=(2, 3))]
        pooled = self.pooled(torch.cat([_mean(local, inside), _mean(local, 1 - inside), *whole], dim=1))
        return CreatureLogits(mask[:, 0], {name: head(pooled) for name, head in self.attributes.items()})

    @torch.no_grad()
    def read(self, images: Float[Tensor, "batch 3 height width"]) -> list[CreatureReading]:
        """Returns the attributes of images in [0, 1]; masks have the size of the images."""
        check_images(images)
        return [reading for part in images.split(READ_BATCH) for reading in self._read_batch(part)]

    def _read_batch(self, images: Float[Tensor, "batch 3 height width"]) -> list[CreatureReading]:
        height, width = images.shape[2:]
        logits = self(resize(images.to(self.dtype), SIDE, SIDE))
        masks = resize(logits.mask[:, None], height, width)[:, 0] > 0
        places = {name: logits.attributes[name].argmax(dim=1).tolist() for name in ATTRIBUTES}
        return [
            CreatureReading(**{name: ATTRIBUTES[name][places[name][row]] for name in ATTRIBUTES}, mask=masks[row])
            for row in range(len(images))
        ]


def pretrained_creature_oracle() -> CreatureOracle:
    """Returns the shipped oracle of creatures in evaluation mode."""
    return CreatureOracle.from_pretrained(shipped("creature-oracle")).eval()


def _mean(
    planes: Float[Tensor, "batch channel rows columns"], weight: Float[Tensor, "batch 1 rows columns"]
) -> Float[Tensor, "batch channel"]:
    """Weighted average over pixels; almost zero if all weights are zero."""
    return (planes * weight).sum(dim=(2, 3)) / (weight.sum(dim=(2, 3)) + 1)
