"""The autoencoder of the shipped backbones: images to latents an eighth of their size and back."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import PartialState
from diffusers import AutoencoderKL, ModelMixin
from diffusers.utils import make_image_grid
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, nn

from weftwork.attention_processors.encoders.latents import to_unit
from weftwork.training.core.building import built
from weftwork.training.core.config import TrainingConfig
from weftwork.training.core.task import Task

LATENT_CHANNELS = 12
PATCH = 8


def build_autoencoder() -> AutoencoderKL:
    """Builds a small, fully convolutional `AutoencoderKL`, so that it can be trained on crops."""
    module = built(
        AutoencoderKL,
        block_out_channels=(24, 48, 96, 128),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=128,
    )
    with torch.no_grad():  # narrow initial posteriors: little noise on the first latents
        moments = module.quant_conv
        assert moments is not None and moments.bias is not None
        moments.weight[LATENT_CHANNELS:] *= 0.1
        moments.bias[LATENT_CHANNELS:] = -5.0
    return module


def widened(module: AutoencoderKL, channels: int) -> AutoencoderKL:
    """Copies an autoencoder into one of more latent channels, which reconstructs the same images at first.

    The new channels start as outputs of the encoder of their own, as loud as it makes them, and with narrow posteriors:
    training finds no use for mixtures of the old ones, nor for what is fainter than its noise.
    """
    wide: Any = AutoencoderKL.from_config({**module.config, "latent_channels": channels})
    found, old = module.state_dict(), module.config["latent_channels"]
    means = torch.arange(old)
    kept = {old: means, 2 * old: torch.cat([means, channels + means])}  # moments: means, then log-variances
    with torch.no_grad():
        wide.quant_conv.weight[:] = torch.eye(2 * channels)[..., None, None]
        wide.quant_conv.weight[channels:] *= 0.1
        wide.quant_conv.bias[channels + old :] = -5.0
        for name, value in wide.state_dict().items():
            sizes = zip(found[name].shape, value.shape, strict=True)
            places = [kept[few] if few < many else torch.arange(many) for few, many in sizes]
            value[places[0]] = 0.0
            value[torch.meshgrid(*places, indexing="ij")] = found[name]
    return wide


class PatchCode:
    """Principal components of 8x8 patches, half whitened: the initial target of the encoder.

    From random weights, an autoencoder needs thousands of steps to find a useful code.
    """

    def __init__(self, images: UInt8[Tensor, "batch height width 3"], channels: int) -> None:
        patches = F.pixel_unshuffle(to_unit(images), PATCH).movedim(1, -1).flatten(0, 2)
        values, vectors = torch.linalg.eigh(torch.cov(patches.T))
        self.mean = patches.mean(0).view(-1, 1, 1)
        self.basis = (vectors * values.clamp_min(1e-8) ** -0.25).flip(1)[:, :channels]

    def __call__(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch channel h w"]:
        """Encodes images in [-1, 1]."""
        patches = F.pixel_unshuffle(images, PATCH) - self.mean.to(images.device)
        return torch.einsum("bchw,cd->bdhw", patches, self.basis.to(images.device))


Pixels = UInt8[np.ndarray, "height width 3"]
Batch = UInt8[Tensor, "batch height width 3"]


class AutoencoderTask(Task[ModelMixin, Pixels, Batch]):
    """Trains an autoencoder on L1 and squared error of pixels, L1 of their differences (edges) and a small KL penalty.

    Args:
        code: imitated by the encoder for the first `guided_steps` micro-batches, while the decoder reconstructs from
            it; after that, or without a code, both are trained together.
        crop: side of the random crops, in pixels.
        kl_weight: weight of the mean Kullback–Leibler divergence per latent value.
        noise: how much noise decoders learn to ignore, since denoisers leave some: standard deviation of its strength,
            in standard deviations of each latent channel.
    """

    def __init__(
        self,
        module: ModelMixin,
        held_out: UInt8[np.ndarray, "image height width 3"],
        code: PatchCode | None = None,
        *,
        guided_steps: int = 400,
        crop: int = 64,
        kl_weight: float = 5e-4,
        noise: float = 0.0,
    ) -> None:
        self.module, self.held_out, self.code = module, held_out, code
        self.guided_steps, self.crop, self.kl_weight, self.noise = guided_steps, crop, kl_weight, noise

    def collate(self, samples: list[Pixels]) -> Batch:
        return torch.from_numpy(np.stack(samples))

    def loss(self, batch: Batch, generator: torch.Generator, micro: int) -> Float[Tensor, ""]:
        images = to_unit(self._crops(batch, generator)).contiguous(memory_format=torch.channels_last)
        posterior = self.module.encode(images).latent_dist
        if self.code is not None and micro < self.guided_steps:
            code = self.code(images)
            pull = F.mse_loss(posterior.mean, code)
            latents = code + 0.05 * torch.randn(code.shape, generator=generator).to(code)
        else:
            pull = self.kl_weight * posterior.kl().mean() / posterior.mean[0].numel()
            latents = self._noisy(posterior.sample(generator), generator)
        restored = self.module.decode(latents).sample
        return self.error(restored, images) + pull

    def _noisy(
        self, latents: Float[Tensor, "batch channel h w"], generator: torch.Generator
    ) -> Float[Tensor, "batch channel h w"]:
        if not self.noise:
            return latents
        strength = self.noise * torch.randn(len(latents), 1, 1, 1, generator=generator)
        noise = strength * torch.randn(latents.shape, generator=generator)
        return latents + noise.to(latents) * latents.detach().std((0, 2, 3), keepdim=True)

    def error(
        self, restored: Float[Tensor, "batch 3 height width"], images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, ""]:
        """L1 and squared error on pixels, and L1 on their edges."""
        restored = restored.float()
        error = F.l1_loss(restored, images) + F.mse_loss(restored, images)
        for own, true in zip(self.edges(restored), self.edges(images), strict=True):
            error = error + 0.5 * F.l1_loss(own, true)
        return error

    def edges(self, images: Float[Tensor, "batch 3 height width"]) -> Sequence[Tensor]:
        """Differences of neighbouring pixels, by direction."""
        return images.diff(dim=2), images.diff(dim=3)

    def _crops(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        """Takes one random crop per image, mirrored at random."""
        room = batch.shape[1] - self.crop + 1
        corners = torch.randint(0, room, (len(batch), 2), generator=generator).tolist()
        flips = (torch.rand(len(batch), generator=generator) < 0.5).tolist()
        cut = [p[y : y + self.crop, x : x + self.crop] for p, (y, x) in zip(batch, corners, strict=True)]
        return torch.stack([p.flip(1) if flip else p for p, flip in zip(cut, flips, strict=True)])

    def validate(self, step: int, folder: Path) -> Mapping[str, float]:
        """Returns the PSNR on held-out images, in dB; writes pairs of image and reconstruction as PNG."""
        images = to_unit(torch.from_numpy(np.array(self.held_out[:32]))).to(self.module.device)
        restored = self.module.decode(self.module.encode(images).latent_dist.mode()).sample.clamp(-1, 1)
        shown = torch.cat([images[:8], restored[:8]]).add(1).mul(127.5).round().byte().movedim(1, -1)
        folder.mkdir(parents=True, exist_ok=True)
        sheet = make_image_grid([Image.fromarray(one) for one in shown.cpu().numpy()], 2, len(shown) // 2)
        sheet.save(folder / f"{step:06d}.png")
        return {"psnr": (10 * torch.log10(4 / F.mse_loss(restored, images))).item()}


def frozen_autoencoder(folder: Path, config: TrainingConfig) -> AutoencoderKL:
    """Opens a trained autoencoder on the device of a run, frozen and rounded to the precision it is saved in."""
    vae = AutoencoderKL.from_pretrained(folder, use_safetensors=True).requires_grad_(False).eval()
    vae.half().float()
    nn.Module.to(vae, PartialState(cpu=config.use_cpu).device)
    return vae


def standardized(module: ModelMixin, images: Batch) -> ModelMixin:
    """Folds mean and standard deviation of each latent channel into the convolutions around the latents.

    Latents of `images` then have mean 0 and standard deviation 1 in each channel, and reconstructions are the same.
    With one `scaling_factor` for all, diffusion's noise would drown channels of small latents.
    """
    with torch.no_grad():
        latents = module.encode(to_unit(images)).latent_dist.mode()
        mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
        moments, back, channels = module.quant_conv, module.post_quant_conv, len(std)
        moments.bias[:channels] -= mean
        moments.bias[:channels] /= std
        moments.weight[:channels] /= std.view(-1, 1, 1, 1)
        moments.bias[channels:] -= 2 * std.log()  # log-variances
        back.bias += back.weight[:, :, 0, 0] @ mean
        back.weight *= std.view(-1, 1, 1)
    module.register_to_config(scaling_factor=1.0)
    return module
