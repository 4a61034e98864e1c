"""Cached latents of user images, resized to one size or to aspect buckets."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline, ModelMixin
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from weftwork.attention_processors.encoders.latents import encode_latents, to_unit
from weftwork.datasets.readers.errors import UserError
from weftwork.training.data.feature_cache import feature_cache
from weftwork.training.data.image_cache import vae_key

WIDEST = 2.0
"""Largest aspect ratio of a bucket; images beyond it are squeezed."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of training images, width and height in pixels.

    Args:
        resolution: side of the square size.
        step: sides are multiples of this.
        aspects: add other aspects, of no larger area than the square.

    Raises:
        ValueError: a resolution that is not a multiple of the step.
    """

    resolution: int
    step: int = 8
    aspects: bool = False

    def __post_init__(self) -> None:
        if self.resolution < self.step or self.resolution % self.step:
            raise UserError(
                f"resolution: got {self.resolution}, expected a multiple of {self.step}; the backbone needs it"
            )

    @classmethod
    def of(cls, pipe: DiffusionPipeline, resolution: int | None = None, *, aspects: bool = False) -> "Sizes":
        """Sizes that a pipeline's denoiser supports, by default at its own resolution."""
        unet, scale = getattr(pipe, "unet", None), pipe.vae_scale_factor
        if unet is None:  # transformers cut latents into patches of 2x2; their pipelines default to 1024 pixels
            return cls(resolution or pipe.vae.config.get("sample_size", 1024), 2 * scale, aspects)
        halvings = len(unet.config.down_block_types) - 1
        return cls(resolution or unet.config.sample_size * scale, scale * 2**halvings, aspects)

    def nearest(self, width: int, height: int) -> tuple[int, int]:
        """Returns the size whose aspect is nearest to the image's."""
        return min(self._all(), key=lambda size: abs(math.log(size[0] * height / (size[1] * width))))

    def _all(self) -> list[tuple[int, int]]:
        if not self.aspects:
            return [(self.resolution, self.resolution)]
        sides = range(self.step, math.floor(self.resolution * WIDEST**0.5) + self.step, self.step)
        sizes = [(width, self.resolution**2 // width // self.step * self.step) for width in sides]
        sizes += [(height, width) for width, height in sizes]
        return sorted({size for size in sizes if min(size) and max(size) <= WIDEST * min(size)})


@torch.no_grad()
def encoded_once(
    images: Iterable[Image.Image], count: int, vae: ModelMixin, cache_dir: Path, sizes: Sizes, *, dry: bool = False
) -> list[Tensor]:
    """Scaled latents (posterior means), [channel, height, width] each, of images squeezed to the nearest size.

    They are cached in one file per image in `cache_dir`, keyed by the autoencoder's weights and the image's values.

    Args:
        dry: use a `DryCache`.
    """
    cache = feature_cache(cache_dir, vae_key(vae), dry=dry)

    def content(values: np.ndarray) -> bytes:
        return values.tobytes() + str(values.shape).encode()

    latents = []
    for image in tqdm(images, total=count, desc="encoding images", mininterval=1.0):
        size = sizes.nearest(*image.size)
        values = np.array(image.convert("RGB").resize(size))
        rows = cache.rows([values], content, lambda some: {"latents": encoded(np.stack(some), vae)}, size)
        latents.append(rows["latents"][0])
    return latents


def encoded(values: UInt8[np.ndarray, "image height width 3"], vae: ModelMixin) -> Tensor:
    """Scaled latents of uint8 images, [image, height, width, 3], as float32 on the CPU."""
    return encode_latents(vae, to_unit(torch.from_numpy(values))).float().cpu().contiguous()
