"""The quantity a denoiser is asked for, and the loss on it, read off the scheduler's own configuration."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_density_for_timestep_sampling, compute_snr
from jaxtyping import Float, Int
from torch import Tensor

from weftwork.datasets.readers.errors import UserError

Denoise = Callable[[Tensor, Tensor], Tensor]
"""(noisy latents, time steps) to the prediction."""
DenoiseAll = Callable[[Sequence[Tensor], Tensor], Sequence[Tensor]]
"""The same for several latents that are noised alike."""


def training_scheduler(scheduler: Any) -> Any:
    """What adds noise in training: a sampler's `add_noise` may scale otherwise (Euler's does), and follows the times of
    its last call; a flow-matching scheduler is read by its configuration alone.
    """
    return DDPMScheduler.from_config(scheduler.config) if hasattr(scheduler, "alphas_cumprod") else scheduler


def diffusion_loss(
    denoise: Denoise,
    scheduler: Any,
    latents: Float[Tensor, "batch *size"],
    generator: torch.Generator,
    *,
    snr_gamma: float | None = None,
    logit_normal: tuple[float, float] | None = None,
    noise_offset: float = 0.0,
) -> Float[Tensor, ""]:
    """Mean squared error of one noising of `latents` at random times.

    Args:
        scheduler: of `training_scheduler`; its `prediction_type` (epsilon, sample, v_prediction), or its being a
            flow-matching scheduler, decides the target.
        snr_gamma: min-SNR weighting (arXiv 2303.09556, and its v form); finite at zero terminal
            signal-to-noise, where the epsilon form is 0 / 0. None weights all times alike.
        logit_normal: mean and standard deviation of the logit of the times, as shares of all (arXiv 2403.03206). None
            draws them evenly; a flow-matching scheduler takes (0, 1) then.
        noise_offset: this times one more draw per row and channel is added to the noise everywhere.

    Raises:
        ValueError: an unknown prediction type.
    """

    def denoise_all(noisy: Sequence[Tensor], times: Tensor) -> Sequence[Tensor]:
        return (denoise(noisy[0], times),)

    options: dict[str, Any] = {"snr_gamma": snr_gamma, "logit_normal": logit_normal, "noise_offset": noise_offset}
    return joint_diffusion_loss(denoise_all, scheduler, ((latents, 1.0),), generator, **options)


def joint_diffusion_loss(
    denoise: DenoiseAll,
    scheduler: Any,
    parts: Sequence[tuple[Float[Tensor, "batch *size"], float]],
    generator: torch.Generator,
    *,
    snr_gamma: float | None = None,
    snr_offset: float = 0.0,
    logit_normal: tuple[float, float] | None = None,
    noise_offset: float = 0.0,
) -> Float[Tensor, ""]:
    """As `diffusion_loss`, for several latents of one shape that get the same noise at the same times.

    Args:
        parts: latents, and the weight of their error.
        snr_offset: added to the signal-to-noise ratio before it is capped. 1 is MoAI's weighting, which for velocities
            counts the noisiest times in full, where min-SNR leaves next to nothing of them.
    """
    latents, weights = zip(*parts, strict=True)
    first, flow = latents[0], not hasattr(scheduler, "alphas_cumprod")
    noise = torch.randn(first.shape, generator=generator).to(first)
    shares = _shares(len(first), (logit_normal or (0, 1)) if flow else logit_normal, generator).to(first.device)
    if noise_offset:
        offset = torch.randn(*first.shape[:2], *[1] * (first.ndim - 2), generator=generator)
        noise = noise + noise_offset * offset.to(first)
    steps = scheduler.config.num_train_timesteps
    if flow:  # rectified flow (arXiv 2403.03206): the velocity from data to noise
        sigma = shares.to(first).view(-1, *[1] * (first.ndim - 1))
        times = sigma.flatten() * steps
        noisy, targets = [(1 - sigma) * x + sigma * noise for x in latents], [noise - x for x in latents]
    else:
        times = (shares * steps).long().clamp_max(steps - 1)
        noisy = [scheduler.add_noise(x, noise, times) for x in latents]
        targets = [_target(scheduler, x, noise, times) for x in latents]
    predicted = zip(weights, denoise(noisy, times), targets, strict=True)
    error = torch.stack([w * (p.float() - t.float()).square().flatten(1).mean(1) for w, p, t in predicted]).sum(0)
    if snr_gamma is not None and not flow:
        error = error * min_snr_weight(scheduler, times, snr_gamma, snr_offset)
    return error.mean()


def _target(scheduler: Any, latents: Tensor, noise: Tensor, times: Int[Tensor, " batch"]) -> Tensor:
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return noise
    if kind == "sample":
        return latents
    if kind == "v_prediction":
        return scheduler.get_velocity(latents, noise, times)
    raise UserError(f"prediction_type: got {kind!r}, expected epsilon, sample or v_prediction")


def min_snr_weight(
    scheduler: Any, times: Int[Tensor, " batch"], gamma: float, offset: float
) -> Float[Tensor, " batch"]:
    snr = compute_snr(scheduler, times).clamp_min(1e-8)
    capped = (snr + offset).clamp_max(gamma)
    by_kind = {"epsilon": snr, "sample": torch.ones_like(snr), "v_prediction": snr + 1}
    return capped / by_kind[scheduler.config.prediction_type]


def _shares(
    count: int, logit_normal: tuple[float, float] | None, generator: torch.Generator
) -> Float[Tensor, " batch"]:
    """Random times in [0, 1]."""
    mean, std = logit_normal or (0.0, 1.0)
    scheme = "logit_normal" if logit_normal else "none"
    return compute_density_for_timestep_sampling(scheme, count, mean, std, generator=generator)


def sigmoid_normal_timesteps(count: int, generator: torch.Generator, mean: float = 0.0) -> Float[Tensor, " batch"]:
    """Timesteps in (0, 1): sigmoids of normal draws (Stable-V2A's code, of mean 0)."""
    return (torch.randn(count, generator=generator) + mean).sigmoid()
