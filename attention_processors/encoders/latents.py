"""Latents of images and audio from a frozen autoencoder."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final

import torch
import torch.nn.functional as F
from diffusers import ModelMixin
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from weftwork.datasets.readers.errors import UserError

PROBE: Final = 64
"""Side in pixels of the image with which an autoencoder's factor is measured."""


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
    video = any(isinstance(module, nn.Conv3d) for module in vae.modules())  # an image is one frame
    made = vae.encode(values.unsqueeze(2) if video else values)
    latents = made.latent if hasattr(made, "latent") else made.latent_dist.mode()
    if video:
        latents = latents.squeeze(2)
    if not scaled:
        return latents
    if (norm := getattr(vae, "bn", None)) is not None:  # of FLUX.2: channels of patches are normalised
        patches = F.pixel_unshuffle(latents, 2)
        mean, var = (one.view(1, -1, 1, 1).to(latents) for one in (norm.running_mean, norm.running_var))
        return F.pixel_shuffle((patches - mean) / (var + norm.eps).sqrt(), 2)
    buffers = {name: one.tolist() for name, one in vae.named_buffers(recurse=False) if name.startswith("latents_")}
    return normalized(latents, {**vae.config, **buffers})


class ImageLatents:
    """Encoder of an image of any size, cropped at the centre to the aspect of the latents and resized, to latents."""

    def __init__(self, vae: ModelMixin) -> None:
        self.vae = vae

    @cached_property
    def factor(self) -> int:
        """Pixels per latent."""
        return PROBE // encode_latents(self.vae, torch.zeros(1, 3, PROBE, PROBE), scaled=False).shape[-1]

    def __call__(self, image: Float[Tensor, "3 height width"], size: tuple[int, int]) -> Float[Tensor, "channel h w"]:
        """Returns the latents of an image in [-1, 1]; `ValueError` if the autoencoder's numbers overflow."""
        height, width = (side * self.factor for side in size)
        scale = max(height / image.shape[-2], width / image.shape[-1])
        sides = [max(least, round(side * scale)) for side, least in zip(image.shape[-2:], (height, width), strict=True)]
        resized = F.interpolate(image[None], sides, mode="bicubic", antialias=True).clamp(-1, 1)
        top, left = (sides[0] - height) // 2, (sides[1] - width) // 2
        latents = encode_latents(self.vae, resized[..., top : top + height, left : left + width])[0]
        if not bool(latents.isfinite().all()):
            raise UserError(
                f"vae: got latents that are not finite from {type(self.vae).__name__} in {self.vae.dtype}, expected "
                "numbers; load the autoencoder in float32"
            )
        return latents


def normalized(
    latents: Float[Tensor, "batch channel *size"], config: Mapping[str, Any]
) -> Float[Tensor, "batch channel *size"]:
    """Returns latents less their mean, by channel or one for all, over their scale, as an autoencoder's config says."""
    scale, mean, std = (config.get(name) for name in ("scaling_factor", "latents_mean", "latents_std"))
    if mean is not None and std is not None:
        rows = [latents.new_tensor(one).view(-1, *[1] * (latents.ndim - 2)) for one in (mean, std)]
        return (latents - rows[0]) * (scale or 1) / rows[1]
    return (latents - (config.get("shift_factor") or 0)) * (scale or 1)
