"""Noise that an image of a design begins with, and its variations."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from weftwork.datasets.readers.errors import UserError
from weftwork.pipelines.designs.arguments import size_of
from weftwork.pipelines.designs.design import Design


def noise_arguments(pipe: Any, designs: Sequence[Design]) -> dict[str, Any]:
    """Returns the generators of a call for several images, and its latents where designs have variations.

    Raises:
        ValueError: variations for a pipeline without a U-Net.
    """
    generators = [_generator(design.seed) for design in designs]
    if not any(design.variations for design in designs):
        return {"generator": generators}
    if getattr(pipe, "unet", None) is None:
        raise UserError(f"variations: got some, but {type(pipe).__name__} has no U-Net; leave them out")
    latents = [_varied(pipe, *pair) for pair in zip(designs, generators, strict=True)]
    return {"generator": generators, "latents": torch.cat(latents)}


def _generator(seed: int | None) -> torch.Generator:
    assert seed is not None
    return torch.Generator().manual_seed(seed)


def _varied(pipe: Any, design: Design, generator: torch.Generator) -> Float[Tensor, "1 channel height width"]:
    """Returns noise of the generator, mixed with that of each variation so that its variance stays 1."""
    sides = [side // pipe.vae_scale_factor for side in size_of(pipe, design)]
    shape, dtype = (1, pipe.unet.config.in_channels, *sides), pipe.unet.dtype
    noise = torch.randn(shape, generator=generator, dtype=dtype)
    for one in design.variations:
        angle = one.strength * math.pi / 2
        other = torch.randn(shape, generator=_generator(one.seed), dtype=dtype)
        noise = noise * math.cos(angle) + other * math.sin(angle)
    return noise
