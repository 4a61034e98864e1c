"""The autoencoder of the shipped sound backbone: stereo to latents and back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderOobleck
from jaxtyping import Float, Int16
from torch import Tensor, nn

LATENT_CHANNELS = 16
WINDOWS: Final = (256, 1024)
"""Of the spectra that it is measured on, in samples."""
FAINT = 1e-2
"""Magnitudes are told apart down to this."""
WAVEFORM = 0.2
"""Weight of the waveform's error, beside 1 of each error of magnitudes."""
ASIDE = 3.0
"""Weight of the error of sides, which else is learned last, and of low sounds never."""
SIDES: Final = 4
PATCH: Final = (8, 4)
"""Bins and frames of the patches that magnitudes are also compared over."""
LOUD = 0.02
"""Standard deviation of the walks' sounds."""

StereoBatch = Float[Tensor, "row 2 sample"]


def build_oobleck() -> AutoencoderOobleck:
    """16 kHz stereo to 62.5 latents per second, with weights that let sounds pass from the first step on."""
    module = AutoencoderOobleck(
        encoder_hidden_size=2 * LATENT_CHANNELS,
        downsampling_ratios=[4, 8, 8],
        channel_multiples=[1, 2, 4],
        decoder_channels=32,
        decoder_input_channels=LATENT_CHANNELS,
        audio_channels=2,
        sampling_rate=16_000,
    )
    wake(module)
    return module


@torch.no_grad()
def wake(module: Any) -> None:
    """Weights that about keep the variance, for sounds as loud as `LOUD`, and a posterior narrow enough to be read.

    As diffusers leaves them, the latents' noise is ten times their signal, and the decoder learns to do without them.
    """
    kinds = nn.Conv1d, nn.ConvTranspose1d
    layers: dict[str, Any] = {name: layer for name, layer in module.named_modules() if isinstance(layer, kinds)}
    for name, layer in layers.items():
        fan = layer.weight_v[:, 0].numel() / layer.stride[0] if layer.transposed else layer.weight_v[0].numel()
        gain = 0.24 if "res_unit" in name and name.endswith("conv2") else 0.8
        nn.init.normal_(layer.weight_v)
        layer.weight_g.copy_(layer.weight_v.flatten(1).norm(dim=1).view_as(layer.weight_g) * gain / fan**0.5)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    module.encoder.conv1.weight_g /= LOUD
    module.decoder.conv2.weight_g *= LOUD
    means, last = module.config.decoder_input_channels, module.encoder.conv2
    last.weight_g[means:] /= 10
    nn.init.constant_(last.bias[means:], -3.0)


class OobleckTask:
    """`distance` of sounds from what is restored of their latents, `side_told`, and a light pull to a normal latent.

    Args:
        held_out: sounds to validate on.
        crop: samples of the random crops.
        kl_weight: of the mean divergence per latent number.
    """

    def __init__(
        self, module: AutoencoderOobleck, held_out: StereoBatch, *, crop: int = 4096, kl_weight: float = 1e-4
    ) -> None:
        self.module, self.held_out, self.crop, self.kl_weight = module, held_out, crop, kl_weight

    def collate(self, samples: list[Int16[np.ndarray, "2 sample"]]) -> StereoBatch:
        return torch.from_numpy(np.stack(samples)).float() / 32768

    def loss(self, module: Any, batch: StereoBatch, generator: torch.Generator, micro: int) -> Float[Tensor, ""]:
        sounds = self._crops(batch, generator)
        posterior = module.encode(sounds).latent_dist
        restored = module.decode(posterior.sample(generator)).sample
        light = self.kl_weight * posterior.kl() / posterior.mean[0, :, 0].numel()
        return distance(restored, sounds) + side_told(posterior.mean, sounds) + light

    def _crops(self, batch: StereoBatch, generator: torch.Generator) -> StereoBatch:
        """One random crop per sound, with left and right, and up and down, exchanged at random."""
        begins = torch.randint(0, batch.shape[-1] - self.crop + 1, (len(batch),), generator=generator).tolist()
        cut = torch.stack([one[:, begin : begin + self.crop] for one, begin in zip(batch, begins, strict=True)])
        swap, turn = (torch.rand(len(batch), 1, 1, generator=generator) < 0.5 for _ in range(2))
        cut = torch.where(swap, cut.flip(1), cut)
        return torch.where(turn, -cut, cut)

    def validate(self, module: Any, step: int, folder: Path) -> Mapping[str, float]:
        """Distance, and signal-to-noise ratio of the waveform in dB, on held-out sounds."""
        true = self.held_out.to(module.device)
        restored = module.decode(module.encode(true).latent_dist.mode()).sample
        snr = 10 * torch.log10(true.square().sum() / (restored - true).square().sum())
        return {"distance": distance(restored, true).item(), "snr": snr.item()}


def distance(restored: StereoBatch, sounds: StereoBatch) -> Float[Tensor, ""]:
    """Distance between audio clips: relative errors of magnitudes and their logarithms, of these over small patches of
    time and frequency, of the side that patches are heard at and, for little, of waveforms.

    Steps are noise, of which so few latents can tell how loud it is where, and not its waveform; asked for that alone,
    silence is the best answer.
    """
    total = WAVEFORM * _relative(restored, sounds)
    for window in WINDOWS:
        fine = [_magnitudes(_sides(x), window) for x in (restored, sounds)]
        coarse = [_pooled(one) for one in fine]
        for ours, theirs in (fine, coarse):
            logarithms = F.l1_loss((ours + FAINT).log(), (theirs + FAINT).log())
            total = total + _relative(ours, theirs) + 0.3 * logarithms
        total = total + ASIDE * _aside(*coarse)
    return total


def side_told(latents: Float[Tensor, "row channel place"], sounds: StereoBatch) -> Float[Tensor, ""]:
    """Error of the first latent as the side of the energy around its place, from -2 (left) to 2.

    Encoder and decoder do not find a common word for the side of low sounds by themselves.
    """
    hop = sounds.shape[-1] // latents.shape[-1]
    energy = F.avg_pool1d(sounds.square(), 2 * hop, hop, hop // 2)[..., : latents.shape[-1]]
    both = energy.sum(1) + FAINT**4
    side = 2 * (energy[:, 1] - energy[:, 0]) / both
    return ((latents[:, 0] - side).square() * both).sum() / both.sum()


def _relative(ours: Tensor, theirs: Tensor) -> Float[Tensor, ""]:
    """The error's norm over the norm, both of the whole batch: silent stretches do not count, loud ones do."""
    return ((ours - theirs).square().sum() / (theirs.square().sum() + 1e-4) + 1e-8).sqrt()


def _sides(sounds: StereoBatch) -> Float[Tensor, "row 4 sample"]:
    """Left, right, middle and side."""
    left, right = sounds.unbind(1)
    return torch.stack([left, right, (left + right) / 2, (left - right) / 2], 1)


def _magnitudes(sounds: Float[Tensor, "row 4 sample"], window: int) -> Float[Tensor, "row4 bin frame"]:
    shape = torch.hann_window(window, device=sounds.device)
    spectra = torch.stft(sounds.flatten(0, 1), window, window // 4, window=shape, return_complex=True)
    return (spectra.real.square() + spectra.imag.square() + 1e-9).sqrt()


def _pooled(magnitudes: Float[Tensor, "row4 bin frame"]) -> Float[Tensor, "row4 band time"]:
    return (F.avg_pool2d(magnitudes.square(), PATCH) + 1e-9).sqrt()


def _aside(ours: Float[Tensor, "row4 band time"], theirs: Float[Tensor, "row4 band time"]) -> Float[Tensor, ""]:
    """Error of the shares of energy from the right, weighted by the true energy."""
    shares = []
    for magnitudes in (ours, theirs):
        left, right = magnitudes.square().unflatten(0, (-1, SIDES))[:, :2].unbind(1)
        shares.append((right - left) / (left + right + FAINT**2))
    energy = theirs.square().unflatten(0, (-1, SIDES))[:, :2].sum(1)
    return ((shares[0] - shares[1]).abs() * energy).sum() / (energy.sum() + FAINT**2)


@torch.no_grad()
def with_unit_latents(module: Any, sounds: StereoBatch) -> Any:
    """The same autoencoder, with latents of `sounds` of standard deviation 1: Stable Audio has no factor for that."""
    deviation = module.encode(sounds).latent_dist.mode().std()
    last, first, means = module.encoder.conv2, module.decoder.conv1, module.config.decoder_input_channels
    last.weight_g[:means] /= deviation
    last.bias[:means] /= deviation
    first.weight_g *= deviation
    return module
