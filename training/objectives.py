"""The quantity a denoiser is asked for, and the loss on it, read off the scheduler's own configuration."""

from collections.abc import Callable
from typing import Any

import torch
from diffusers.training_utils import compute_density_for_timestep_sampling, compute_snr
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
    logit_normal: tuple[float, float] | None = None,
) -> Float[Tensor, ""]:
    """Mean squared error of one noising of `latents` at random times.

    Args:
        scheduler: a scheduler of diffusers; its `prediction_type` (epsilon, sample, v_prediction), or its being a
            flow-matching scheduler, decides the target.
        snr_gamma: min-SNR weighting (arXiv 2303.09556, and its v form); finite at zero terminal
            signal-to-noise, where the epsilon form is 0 / 0. None weights all times alike.
        logit_normal: mean and standard deviation of the logit of the times, as shares of all (arXiv 2403.03206). None
            draws them evenly; a flow-matching scheduler takes (0, 1) then.

    Raises:
        ValueError: an unknown prediction type.
    """
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    if not hasattr(scheduler, "alphas_cumprod"):
        return _flow_loss(denoise, scheduler, latents, noise, _shares(len(latents), logit_normal or (0, 1), generator))
    shares = _shares(len(latents), logit_normal, generator).to(latents.device)
    steps = scheduler.config.num_train_timesteps
    times = (shares * steps).long().clamp_max(steps - 1)
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


def _flow_loss(
    denoise: Denoise, scheduler: Any, latents: Tensor, noise: Tensor, shares: Float[Tensor, " batch"]
) -> Tensor:
    """Rectified flow (arXiv 2403.03206): the velocity from data to noise."""
    sigma = shares.to(latents).view(-1, *[1] * (latents.ndim - 1))
    noisy = (1 - sigma) * latents + sigma * noise
    prediction = denoise(noisy, sigma.flatten() * scheduler.config.num_train_timesteps)
    return (prediction.float() - (noise - latents).float()).square().mean()


def _shares(
    count: int, logit_normal: tuple[float, float] | None, generator: torch.Generator
) -> Float[Tensor, " batch"]:
    """Random times in [0, 1]."""
    mean, std = logit_normal or (0.0, 1.0)
    scheme = "logit_normal" if logit_normal else "none"
    return compute_density_for_timestep_sampling(scheme, count, mean, std, generator=generator)
