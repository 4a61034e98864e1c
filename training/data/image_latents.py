"""People's own pictures as latents: brought to one size or to a few, and encoded once."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from weftwork.attention_processors.encoders.latents import encode_latents, to_unit
from weftwork.datasets.readers.errors import UserError
from weftwork.training.data.feature_cache import encoder_key, feature_cache

WIDEST = 2.0
"""Pictures that are wider or taller than this are squeezed to it."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of training pictures, width and height in pixels.

    Args:
        resolution: side of the square one.
        step: sides are multiples of this.
        aspects: whether there are others beside the square one, of no larger area.

    Raises:
        ValueError: a resolution that is no multiple of the step.
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
    def of(cls, pipe: Any, resolution: int | None = None, *, aspects: bool = False) -> "Sizes":
        """What a pipeline's denoiser can take, by default at its own resolution."""
        halvings = len(pipe.unet.config.down_block_types) - 1
        own = pipe.unet.config.sample_size * pipe.vae_scale_factor
        return cls(resolution or own, pipe.vae_scale_factor * 2**halvings, aspects)

    def nearest(self, width: int, height: int) -> tuple[int, int]:
        """The size whose aspect is nearest to a picture's."""
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
    pictures: Iterable[Image.Image], count: int, vae: Any, cache_dir: Path, sizes: Sizes, *, dry: bool = False
) -> list[Tensor]:
    """Scaled latents (posterior means), [channel, height, width] each, of pictures squeezed to the nearest size.

    One file per picture in `cache_dir`, keyed by the autoencoder's weights and the picture's values.

    Args:
        dry: use a `DryCache`.
    """
    cache = feature_cache(cache_dir, encoder_key(f"vae {vae.config.scaling_factor}", vae), dry=dry)
    latents = []
    for picture in tqdm(pictures, total=count, desc="encoding pictures", mininterval=1.0):
        size = sizes.nearest(*picture.size)
        values = np.array(picture.convert("RGB").resize(size))
        content = values.tobytes() + str(values.shape).encode()
        rows = cache.rows([content], lambda _, values=values: {"latents": encoded(values[None], vae)}, size)
        latents.append(rows["latents"][0])
    return latents


def encoded(values: "np.ndarray[Any, np.dtype[np.uint8]]", vae: Any) -> Tensor:
    """Scaled latents of pictures of bytes, [picture, height, width, 3], as float32 on the CPU."""
    return encode_latents(vae, to_unit(torch.from_numpy(values))).float().cpu().contiguous()
