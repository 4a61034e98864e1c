"""Latents of images and audio from a frozen autoencoder."""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import ModelMixin
from jaxtyping import Float, UInt8
from torch import Tensor


def to_unit(images: UInt8[Tensor, "batch height width 3"]) -> Float[Tensor, "batch 3 height width"]:
    """Converts images of bytes to [-1, 1], channels first."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def encode_latents(vae: ModelMixin, values: Float[Tensor, "batch channel *size"], *, scaled: bool = True) -> Tensor:
    """Returns posterior means of images or audio in [-1, 1], normalised as the denoiser reads them.

    Args:
        scaled: False leaves out the normalisation, for latents that are decoded without reversing it.
    """
    values = values.to(vae.device, vae.dtype)
    if "temperal_downsample" in vae.config:  # (sic) of video: an image is one frame
        latents = vae.encode(values.unsqueeze(2)).latent_dist.mode().squeeze(2)
    else:
        latents = vae.encode(values).latent_dist.mode()
    return normalized(latents, vae.config) if scaled else latents


def normalized(
    latents: Float[Tensor, "batch channel *size"], config: Mapping[str, Any]
) -> Float[Tensor, "batch channel *size"]:
    """Returns latents less their mean, by channel or one for all, over their scale, as an autoencoder's config says."""
    scale, mean, std = (config.get(name) for name in ("scaling_factor", "latents_mean", "latents_std"))
    if mean is not None and std is not None:
        rows = [latents.new_tensor(one).view(-1, *[1] * (latents.ndim - 2)) for one in (mean, std)]
        return (latents - rows[0]) * (scale or 1) / rows[1]
    return (latents - (config.get("shift_factor") or 0)) * (scale or 1)
