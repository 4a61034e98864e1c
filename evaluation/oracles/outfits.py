"""Classifier of the garments in an image: kind, colour, pattern and mask per slot.

Its only input is the image, so it can judge generated images. Slots are segmented at full size; kind, colour and
pattern are predicted at coarser levels and averaged over the pixels of their slot.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.synthetic.outfits import COLORS, KINDS, KINDS_BY_SLOT, PATTERNS, SLOTS
from weftwork.pretrained import shipped

SIDE: Final = 128
READ_BATCH: Final = 64


@dataclass(frozen=True, eq=False)
class SlotReading:
    """Predicted garment of one slot."""

    kind: str
    color: str
    pattern: str
    mask: Bool[Tensor, "height width"]
    pixels: int


@dataclass(frozen=True, eq=False)
class Reading:
    """Predicted garments of one image by slot; empty slots have no entry."""

    slots: dict[str, SlotReading]


@dataclass(frozen=True, eq=False)
class OracleLogits:
    """Logits per pixel: slots (0 is no garment), colours and patterns at 1/4 of the side, kinds at 1/8."""

    slot: Float[Tensor, "batch slot height width"]
    kind: Float[Tensor, "batch kind rows_8 columns_8"]
    color: Float[Tensor, "batch color rows_4 columns_4"]
    pattern: Float[Tensor, "batch pattern rows_4 columns_4"]


class ConvBlock(nn.Sequential):
    """Convolution, batch norm, ReLU."""

    def __init__(self, channels_in: int, channels_out: int, *, size: int = 3, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, size, stride=stride, padding=size // 2, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
        )


class Oracle(ModelMixin, ConfigMixin):
    """Classifier of outfit images.

    Args:
        channels: widths at 1/2, 1/4, 1/8 and 1/16 of the image's side.
        least_pixels: a slot with fewer pixels (of 128x128) than this counts as empty.
    """

    @register_to_config
    def __init__(self, channels: tuple[int, int, int, int] = (24, 48, 72, 88), least_pixels: int = 100) -> None:
        super().__init__()
        at_2, at_4, at_8, at_16 = channels
        self.cells = nn.PixelUnshuffle(2)
        self.stem = ConvBlock(12, at_2)
        self.down_4 = nn.Sequential(ConvBlock(at_2, at_4, stride=2), ConvBlock(at_4, at_4))
        self.down_8 = nn.Sequential(ConvBlock(at_4, at_8, stride=2), ConvBlock(at_8, at_8))
        self.down_16 = nn.Sequential(ConvBlock(at_8, at_16, stride=2), ConvBlock(at_16, at_16))
        self.context = nn.Linear(at_16, at_16)
        self.up_8, self.merge_8 = nn.Conv2d(at_16, at_8, 1), ConvBlock(at_8, at_8)
        self.up_4, self.merge_4 = nn.Conv2d(at_8, at_4, 1), ConvBlock(at_4, at_4)
        self.up_2, self.merge_2 = nn.Conv2d(at_4, at_2, 1), ConvBlock(at_2 + 12, at_2)
        self.kind = nn.Sequential(ConvBlock(at_8, at_8), nn.Conv2d(at_8, len(KINDS), 1))
        self.color = nn.Conv2d(at_4, len(COLORS), 1)
        self.pattern = nn.Conv2d(at_4, len(PATTERNS), 1)
        self.slot = nn.Sequential(nn.Conv2d(at_2, 4 * (1 + len(SLOTS)), 1), nn.PixelShuffle(2))

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> OracleLogits:
        """Predicts logits of images in [0, 1]."""
        cells = self.cells(2 * images - 1)
        at_2 = self.stem(cells)
        at_4 = self.down_4(at_2)
        at_8 = self.down_8(at_4)
        at_16 = self.down_16(at_8)
        at_16 = at_16 + self.context(at_16.mean(dim=(2, 3)))[:, :, None, None]
        at_8 = self.merge_8(at_8 + doubled(self.up_8(at_16)))
        at_4 = self.merge_4(at_4 + doubled(self.up_4(at_8)))
        at_2 = self.merge_2(torch.cat([at_2 + doubled(self.up_2(at_4)), cells], dim=1))
        return OracleLogits(self.slot(at_2), self.kind(at_8), self.color(at_4), self.pattern(at_4))

    @torch.no_grad()
    def read(self, images: Float[Tensor, "batch 3 height width"]) -> list[Reading]:
        """Returns the garments of images in [0, 1]; masks have the size of the images."""
        check_images(images)
        if self.training:
            raise UserError("oracle: got training mode, expected evaluation mode; call .eval() before reading")
        return [reading for part in images.split(READ_BATCH) for reading in self._read_batch(part)]

    def _read_batch(self, images: Float[Tensor, "batch 3 height width"]) -> list[Reading]:
        height, width = images.shape[2:]
        logits = self(resize(images.to(self.dtype), SIDE, SIDE))
        slots = resize(logits.slot, height, width).argmax(dim=1)
        least = self.config["least_pixels"] * height * width / SIDE**2
        planes = [resize(plane, height, width) for plane in (logits.kind, logits.color, logits.pattern)]
        return [
            Reading(
                {
                    slot: reading
                    for index, slot in enumerate(SLOTS)
                    if (reading := _read_slot(slot, slots[row] == index + 1, [plane[row] for plane in planes], least))
                }
            )
            for row in range(len(images))
        ]


def pretrained_oracle(*, styled: bool = False) -> Oracle:
    """Returns a shipped oracle of outfits in evaluation mode; a `styled` one knows the styles as well."""
    return Oracle.from_pretrained(shipped("oracle-styled" if styled else "oracle")).eval()


def check_images(images: Tensor) -> None:
    """Checks that these are RGB images in [0, 1]."""
    if images.ndim != 4 or images.shape[1] != 3:
        raise UserError(
            f"images: got shape {tuple(images.shape)}, expected (batch, 3, height, width); "
            f"stack RGB images along the first axis"
        )
    if images.amin() < -1e-3 or images.amax() > 1 + 1e-3:
        raise UserError(
            f"images: got values in [{images.amin():.3g}, {images.amax():.3g}], expected [0, 1]; "
            f"map images from [-1, 1] by (x + 1) / 2"
        )


def doubled(planes: Float[Tensor, "batch channel rows columns"]) -> Tensor:
    """Upsamples by 2 (nearest neighbour)."""
    return functional.interpolate(planes, scale_factor=2.0)


def resize(planes: Float[Tensor, "batch channel rows columns"], height: int, width: int) -> Tensor:
    """Resizes bilinearly, with antialiasing when shrinking."""
    if planes.shape[2:] == (height, width):
        return planes
    shrinks = planes.shape[2] > height
    return functional.interpolate(planes, (height, width), mode="bilinear", align_corners=False, antialias=shrinks)


def _read_slot(slot: str, mask: Tensor, planes: Sequence[Tensor], least: float) -> SlotReading | None:
    pixels = int(mask.sum())
    if pixels < max(1, least):
        return None
    kind, color, pattern = (plane[:, mask].mean(dim=1) for plane in planes)
    first = KINDS.index(KINDS_BY_SLOT[slot][0])
    kind_index = int(kind[first : first + len(KINDS_BY_SLOT[slot])].argmax())
    return SlotReading(
        KINDS_BY_SLOT[slot][kind_index], COLORS[int(color.argmax())], PATTERNS[int(pattern.argmax())], mask, pixels
    )
