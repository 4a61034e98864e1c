"""Training data of the oracle of outfits: renders, augmented to resemble outputs of decoders and samplers."""

import io
from typing import Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional

from weftwork.datasets.synthetic.outfits import SLOTS, STYLES, sample

STRANGE_SHARE: Final = 0.375


class OracleExamples(NamedTuple):
    """Images with the slot of each pixel (0 is none) and the attributes of each slot (-1 is none)."""

    images: UInt8[Tensor, "batch 3 height width"]
    slots: UInt8[Tensor, "batch height width"]
    attributes: Int[Tensor, "batch slot 3"]


def render_examples(split: str, count: int, *, seed: int, styled_share: float = 0.0) -> OracleExamples:
    """Renders the first samples of a split, a fraction of them in the alternating styles."""
    images = np.empty((count, 128, 128, 3), np.uint8)
    slots = np.zeros((count, 128, 128), np.uint8)
    attributes = np.full((count, len(SLOTS), 3), -1, np.int64)
    for row in range(count):
        styled = int((row + 1) * styled_share) - int(row * styled_share)
        style = STYLES[int(row * styled_share) % len(STYLES)] if styled else None
        outfit = sample(split, row, seed=seed, style=style)
        images[row] = outfit.image
        for garment, mask in zip(outfit.garments, outfit.masks, strict=True):
            slot = SLOTS.index(garment.slot)
            slots[row][mask] = 1 + slot
            attributes[row, slot] = garment.triple
    channels_first = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    return OracleExamples(channels_first, torch.from_numpy(slots), torch.from_numpy(attributes))


def augment(
    examples: OracleExamples, generator: torch.Generator
) -> tuple[Float[Tensor, "batch 3 h w"], OracleExamples]:
    """Returns augmented images in [0, 1] and their examples; flips and shifts apply to the labels as well.

    Some images get random colours and no colour label: kinds, patterns and masks must not depend on colour, since each
    kind and pattern appears in only some colours of the training split.
    """
    images, slots = examples.images, examples.slots
    if _chance(0.5, generator):
        images, slots = images.flip(-1), slots.flip(-1)
    row, column = (int(step) for step in torch.randint(-4, 5, (2,), generator=generator))
    images, slots = images.roll((row, column), (2, 3)), slots.roll((row, column), (1, 2))
    outputs = compressed(images, generator).float() / 255
    order = torch.randperm(len(outputs), generator=generator)
    strange = order[: int(STRANGE_SHARE * len(order))]
    outputs[strange] = _strange_colors(outputs[strange], generator)
    attributes = examples.attributes.clone()
    attributes[strange, :, 1] = -1
    return degraded(outputs, generator), OracleExamples(images, slots, attributes)


def degraded(images: Float[Tensor, "batch 3 h w"], generator: torch.Generator) -> Float[Tensor, "batch 3 h w"]:
    """Degrades images in [0, 1]: blurs or resamples some, shifts the colours of all and adds noise."""
    parts = list(torch.randperm(len(images), generator=generator).tensor_split(5))
    images = images.clone()
    for rows in parts[:2]:
        images[rows] = gaussian_blur(images[rows], 0.3 + 1.1 * _uniform(generator))
    images[parts[2]] = resample(images[parts[2]], int(60 + 50 * _uniform(generator)))
    images = _recolor(images, generator)
    strength = 0.05 * torch.rand(len(images), 1, 1, 1, generator=generator) ** 2
    noise = torch.randn(images.shape, generator=generator)
    return (images + strength * noise).clamp(0, 1)


def compressed(
    images: UInt8[Tensor, "batch 3 height width"], generator: torch.Generator
) -> UInt8[Tensor, "batch 3 height width"]:
    """Compresses a quarter of the images as JPEG."""
    images = images.clone()
    for row in range(0, len(images), 4):
        buffer = io.BytesIO()
        quality = int(35 + 55 * _uniform(generator))
        Image.fromarray(images[row].permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=quality)
        images[row] = torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1)
    return images


def gaussian_blur(images: Float[Tensor, "batch 3 height width"], sigma: float) -> Float[Tensor, "batch 3 height width"]:
    """Blurs by a Gaussian with this standard deviation in pixels."""
    reach = max(1, round(3 * sigma))
    steps = torch.arange(-reach, reach + 1, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (steps / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(3, 1, -1)
    padded = functional.pad(images, (reach,) * 4, mode="replicate")
    rows = functional.conv2d(padded, kernel[:, :, None, :], groups=3)
    return functional.conv2d(rows, kernel[:, :, :, None], groups=3)


def resample(images: Float[Tensor, "batch 3 height width"], side: int) -> Float[Tensor, "batch 3 height width"]:
    """Shrinks to this side and enlarges back."""
    small = functional.interpolate(images, (side, side), mode="bilinear", antialias=True)
    return functional.interpolate(small, images.shape[2:], mode="bilinear")


def _strange_colors(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mixes channels randomly; some images become grey, some negative."""
    count = len(images)
    mixture = torch.rand(count, 3, 3, generator=generator) ** 3
    gray = torch.rand(count, 1, 1, generator=generator) < 0.3
    mixture = torch.where(gray, mixture[:, :1].expand(-1, 3, -1), mixture)
    mixed = torch.einsum("bij,bjhw->bihw", mixture / mixture.sum(dim=2, keepdim=True), images)
    negative = torch.rand(count, 1, 1, 1, generator=generator) < 0.3
    mixed = torch.where(negative, 1 - mixed, mixed)
    return mixed.clamp(0, 1) ** (0.5 + 1.3 * torch.rand(count, 1, 1, 1, generator=generator))


def _recolor(images: Tensor, generator: torch.Generator) -> Tensor:
    count = len(images)
    gain = 1 + 0.06 * torch.randn(count, 3, 1, 1, generator=generator).clamp(-2, 2)
    gain = gain * (1 + 0.06 * torch.randn(count, 1, 1, 1, generator=generator).clamp(-2, 2))
    offset = 0.025 * torch.randn(count, 3, 1, 1, generator=generator)
    gray = images.mean(dim=1, keepdim=True)
    saturation = 1 + 0.10 * torch.randn(count, 1, 1, 1, generator=generator).clamp(-2, 1.5)
    return (gray + saturation * (images - gray)) * gain + offset


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))


def _chance(probability: float, generator: torch.Generator) -> bool:
    return _uniform(generator) < probability
