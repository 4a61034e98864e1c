"""Latents of images and audio from a frozen autoencoder."""

from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor


def to_unit(images: UInt8[Tensor, "batch height width 3"]) -> Float[Tensor, "batch 3 height width"]:
    """Converts images of bytes to [-1, 1], channels first."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def encode_latents(vae: Any, values: Float[Tensor, "batch channel *size"], *, scaled: bool = True) -> Tensor:
    """Returns posterior means of images or audio in [-1, 1], times the autoencoder's `scaling_factor` if it has one.

    Args:
        scaled: False leaves out the factor, for latents that are decoded without dividing by it.
    """
    latents = vae.encode(values.to(vae.device, vae.dtype)).latent_dist.mode()
    return latents * getattr(vae.config, "scaling_factor", 1) if scaled else latents
