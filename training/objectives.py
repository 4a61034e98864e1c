"""The quantity a denoiser is asked for, and the loss on it, read off the scheduler's own configuration."""

from collections.abc import Callable
from typing import Any

import torch
from diffusers.training_utils import compute_snr
from jaxtyping import Float, Int
from torch import Tensor

Denoise = Callable[[Tensor, Tensor], Tensor]
"""(noisy latents, time steps) to the prediction."""


def diffusion_loss(
    denoise: Denoise,
    scheduler: Any,
    latents: Float[Tensor, "batch *size"],
    generator: torch.Generator,
    *,
    snr_gamma: float | None = None,
) -> Float[Tensor, ""]:
    """Mean squared error of one noising of `latents` at random times.

    Args:
        scheduler: a scheduler of diffusers; its `prediction_type` (epsilon, sample, v_prediction), or its being a
            flow-matching scheduler, decides the target.
        snr_gamma: min-SNR weighting (arXiv 2303.09556, and its v form); finite at zero terminal
            signal-to-noise, where the epsilon form is 0 / 0. None weights all times alike.

    Raises:
        ValueError: an unknown prediction type.
    """
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    if not hasattr(scheduler, "alphas_cumprod"):
        return _flow_loss(denoise, scheduler, latents, noise, generator)
    times = torch.randint(0, scheduler.config.num_train_timesteps, (len(latents),), generator=generator)
    times = times.to(latents.device)
    prediction = denoise(scheduler.add_noise(latents, noise, times), times)
    target = _target(scheduler, latents, noise, times)
    error = (prediction.float() - target.float()).square().flatten(1).mean(1)
    if snr_gamma is not None:
        error = error * _min_snr_weight(scheduler, times, snr_gamma)
    return error.mean()


def _target(scheduler: Any, latents: Tensor, noise: Tensor, times: Int[Tensor, " batch"]) -> Tensor:
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return noise
    if kind == "sample":
        return latents
    if kind == "v_prediction":
        return scheduler.get_velocity(latents, noise, times)
    raise ValueError(f"prediction_type: got {kind!r}, expected epsilon, sample or v_prediction")


def _min_snr_weight(scheduler: Any, times: Int[Tensor, " batch"], gamma: float) -> Float[Tensor, " batch"]:
    snr = compute_snr(scheduler, times).clamp_min(1e-8)
    capped = snr.clamp_max(gamma)
    by_kind = {"epsilon": snr, "sample": torch.ones_like(snr), "v_prediction": snr + 1}
    return capped / by_kind[scheduler.config.prediction_type]


def _flow_loss(denoise: Denoise, scheduler: Any, latents: Tensor, noise: Tensor, generator: torch.Generator) -> Tensor:
    """Rectified flow (arXiv 2403.03206): the velocity from data to noise, at logit-normal times."""
    normal = torch.randn(len(latents), generator=generator).to(latents)
    sigma = torch.sigmoid(normal).view(-1, *[1] * (latents.ndim - 1))
    noisy = (1 - sigma) * latents + sigma * noise
    prediction = denoise(noisy, sigma.flatten() * scheduler.config.num_train_timesteps)
    return (prediction.float() - (noise - latents).float()).square().mean()
