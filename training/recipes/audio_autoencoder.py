"""The autoencoder of the shipped audio backbone: stereo audio to latents and back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderOobleck, ModelMixin
from jaxtyping import Float, Int16
from torch import Tensor, nn

from weftwork.training.core.task import Task

LATENT_CHANNELS = 16
WINDOWS: Final = (256, 1024)
"""Windows of the spectrograms in `distance`, in samples."""
FAINT = 1e-2
"""Magnitudes are distinguished down to this."""
WAVEFORM = 0.2
"""Weight of the waveform error, relative to the error of magnitudes."""
ASIDE = 3.0
"""Weight of the error of sides; otherwise they are learned last, and never for low frequencies."""
SIDES: Final = 4
PATCH: Final = (8, 4)
"""Bins and frames of the patches over which magnitudes are compared in addition."""
LOUD = 0.02
"""Standard deviation of the walks' audio."""

StereoBatch = Float[Tensor, "row 2 sample"]


def build_oobleck() -> AutoencoderOobleck:
    """Autoencoder of 16 kHz stereo with 62.5 latents per second and variance-preserving initial weights."""
    module = AutoencoderOobleck(
        encoder_hidden_size=2 * LATENT_CHANNELS,
        downsampling_ratios=[4, 8, 8],
        channel_multiples=[1, 2, 4],
        decoder_channels=32,
        decoder_input_channels=LATENT_CHANNELS,
        audio_channels=2,
        sampling_rate=16_000,
    )
    init_weights(module)
    return module


@torch.no_grad()
def init_weights(module: ModelMixin) -> None:
    """Initialises weights that roughly preserve the variance, for audio as loud as `LOUD`, and a narrow posterior.

    With diffusers' initialisation, the noise of latents is ten times their signal, and the decoder learns to ignore
    them.
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


class OobleckTask(Task[ModelMixin, Int16[np.ndarray, "2 sample"], StereoBatch]):
    """Trains the autoencoder on `distance` of reconstructions, `side_error` and a small KL penalty.

    Args:
        held_out: audio to validate on.
        crop: length of the random crops, in samples.
        kl_weight: weight of the mean divergence per latent value.
    """

    def __init__(self, module: ModelMixin, held_out: StereoBatch, *, crop: int = 4096, kl_weight: float = 1e-4) -> None:
        self.module, self.held_out, self.crop, self.kl_weight = module, held_out, crop, kl_weight

    def collate(self, samples: list[Int16[np.ndarray, "2 sample"]]) -> StereoBatch:
        return torch.from_numpy(np.stack(samples)).float() / 32768

    def loss(self, batch: StereoBatch, generator: torch.Generator, micro: int) -> Float[Tensor, ""]:
        audio = self._crops(batch, generator)
        posterior = self.module.encode(audio).latent_dist
        restored = self.module.decode(posterior.sample(generator)).sample
        penalty = self.kl_weight * posterior.kl() / posterior.mean[0, :, 0].numel()
        return distance(restored, audio) + side_error(posterior.mean, audio) + penalty

    def _crops(self, batch: StereoBatch, generator: torch.Generator) -> StereoBatch:
        """Takes one random crop per clip, with channels exchanged and sign inverted at random."""
        begins = torch.randint(0, batch.shape[-1] - self.crop + 1, (len(batch),), generator=generator).tolist()
        cut = torch.stack([one[:, begin : begin + self.crop] for one, begin in zip(batch, begins, strict=True)])
        swap, turn = (torch.rand(len(batch), 1, 1, generator=generator) < 0.5 for _ in range(2))
        cut = torch.where(swap, cut.flip(1), cut)
        return torch.where(turn, -cut, cut)

    def validate(self, step: int, folder: Path) -> Mapping[str, float]:
        """Returns distance, and signal-to-noise ratio of the waveform in dB, on held-out audio."""
        true = self.held_out.to(self.module.device)
        restored = self.module.decode(self.module.encode(true).latent_dist.mode()).sample
        snr = 10 * torch.log10(true.square().sum() / (restored - true).square().sum())
        return {"distance": distance(restored, true).item(), "snr": snr.item()}


def distance(restored: StereoBatch, audio: StereoBatch) -> Float[Tensor, ""]:
    """Distance between audio clips: relative errors of magnitudes, log magnitudes, and both over small patches of time
    and frequency, error of the side of patches and, with a small weight, of waveforms.

    Steps are noise: so few latents can encode its loudness over time and frequency, but not its waveform. With the
    waveform error alone, silence would be the optimum.
    """
    total = WAVEFORM * _relative(restored, audio)
    for window in WINDOWS:
        fine = [_magnitudes(_sides(x), window) for x in (restored, audio)]
        coarse = [(F.avg_pool2d(one.square(), PATCH) + 1e-9).sqrt() for one in fine]
        for ours, theirs in (fine, coarse):
            logarithms = F.l1_loss((ours + FAINT).log(), (theirs + FAINT).log())
            total = total + _relative(ours, theirs) + 0.3 * logarithms
        total = total + ASIDE * _aside(*coarse)
    return total


def side_error(latents: Float[Tensor, "row channel place"], audio: StereoBatch) -> Float[Tensor, ""]:
    """Error of the first latent as the side of the energy around it, from -2 (left) to 2 (right).

    Without it, encoder and decoder do not learn to encode the side of low frequencies.
    """
    hop = audio.shape[-1] // latents.shape[-1]
    energy = F.avg_pool1d(audio.square(), 2 * hop, hop, hop // 2)[..., : latents.shape[-1]]
    both = energy.sum(1) + FAINT**4
    side = 2 * (energy[:, 1] - energy[:, 0]) / both
    return ((latents[:, 0] - side).square() * both).sum() / both.sum()


def _relative(ours: Tensor, theirs: Tensor) -> Float[Tensor, ""]:
    """Norm of the error relative to that of `theirs`, over the whole batch, so that silent stretches do not count."""
    return ((ours - theirs).square().sum() / (theirs.square().sum() + 1e-4) + 1e-8).sqrt()


def _sides(audio: StereoBatch) -> Float[Tensor, "row 4 sample"]:
    """Returns left, right, middle and side channels."""
    left, right = audio.unbind(1)
    return torch.stack([left, right, (left + right) / 2, (left - right) / 2], 1)


def _magnitudes(audio: Float[Tensor, "row 4 sample"], window: int) -> Float[Tensor, "row4 bin frame"]:
    shape = torch.hann_window(window, device=audio.device)
    spectra = torch.stft(audio.flatten(0, 1), window, window // 4, window=shape, return_complex=True)
    return (spectra.real.square() + spectra.imag.square() + 1e-9).sqrt()


def _aside(ours: Float[Tensor, "row4 band time"], theirs: Float[Tensor, "row4 band time"]) -> Float[Tensor, ""]:
    """Error of the balance of energy between left and right, weighted by the true energy."""
    shares = []
    for magnitudes in (ours, theirs):
        left, right = magnitudes.square().unflatten(0, (-1, SIDES))[:, :2].unbind(1)
        shares.append((right - left) / (left + right + FAINT**2))
    energy = theirs.square().unflatten(0, (-1, SIDES))[:, :2].sum(1)
    return ((shares[0] - shares[1]).abs() * energy).sum() / (energy.sum() + FAINT**2)


@torch.no_grad()
def with_unit_latents(module: ModelMixin, audio: StereoBatch) -> ModelMixin:
    """Rescales the autoencoder so that latents of `audio` have standard deviation 1; it has no scaling factor."""
    deviation = module.encode(audio).latent_dist.mode().std()
    last, first, means = module.encoder.conv2, module.decoder.conv1, module.config.decoder_input_channels
    last.weight_g[:means] /= deviation
    last.bias[:means] /= deviation
    first.weight_g *= deviation
    return module
