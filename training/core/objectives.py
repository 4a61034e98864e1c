"""Diffusion losses: targets by the scheduler's prediction type, timestep sampling and loss weighting."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_density_for_timestep_sampling, compute_snr
from jaxtyping import Float, Int
from torch import Tensor

from weftwork.datasets.readers.errors import UserError

Denoise = Callable[[Tensor, Tensor], Tensor]
"""(noisy latents, timesteps) to the prediction."""
DenoiseAll = Callable[[Sequence[Tensor], Tensor], Sequence[Tensor]]
"""The same for several latents with the same noise and timesteps."""


def training_scheduler(scheduler: Any) -> Any:
    """Returns the scheduler that adds noise in training.

    A `DDPMScheduler` of the sampler's configuration, since a sampler's `add_noise` may scale differently (Euler's does)
    and depends on the timesteps last set. A flow-matching scheduler is used as it is, for its configuration only.
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
    """Mean squared error of the prediction for `latents` noised to random timesteps.

    Args:
        scheduler: of `training_scheduler`; the target is that of its `prediction_type` (epsilon, sample, v_prediction),
            or the velocity for a flow-matching scheduler.
        snr_gamma: min-SNR weighting (arXiv 2303.09556, and its v form); finite at zero terminal
            signal-to-noise, where the epsilon form is 0 / 0. None weights all timesteps equally.
        logit_normal: mean and standard deviation of the logit of relative timesteps in [0, 1] (arXiv 2403.03206). None
            draws timesteps uniformly, with a flow-matching scheduler as (0, 1).
        noise_offset: scale of a constant per row and channel, normally distributed, that is added to the noise.

    Raises:
        ValueError: an unknown prediction type.
    """

    def denoise_all(noisy: Sequence[Tensor], timesteps: Tensor) -> Sequence[Tensor]:
        return (denoise(noisy[0], timesteps),)

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
    """`diffusion_loss` for several latents of one shape with the same noise and timesteps.

    Args:
        parts: latents, and the weight of their error.
        snr_offset: added to the signal-to-noise ratio before it is capped. 1 is MoAI's weighting, which for velocities
            gives the noisiest timesteps full weight; min-SNR gives them almost none.
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
        timesteps = sigma.flatten() * steps
        noisy, targets = [(1 - sigma) * x + sigma * noise for x in latents], [noise - x for x in latents]
    else:
        timesteps = (shares * steps).long().clamp_max(steps - 1)
        noisy = [scheduler.add_noise(x, noise, timesteps) for x in latents]
        targets = [_target(scheduler, x, noise, timesteps) for x in latents]
    predicted = zip(weights, denoise(noisy, timesteps), targets, strict=True)
    error = torch.stack([w * (p.float() - t.float()).square().flatten(1).mean(1) for w, p, t in predicted]).sum(0)
    if snr_gamma is not None and not flow:
        error = error * min_snr_weight(scheduler, timesteps, snr_gamma, snr_offset)
    return error.mean()


def _target(scheduler: Any, latents: Tensor, noise: Tensor, timesteps: Int[Tensor, " batch"]) -> Tensor:
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return noise
    if kind == "sample":
        return latents
    if kind == "v_prediction":
        return scheduler.get_velocity(latents, noise, timesteps)
    raise UserError(f"prediction_type: got {kind!r}, expected epsilon, sample or v_prediction")


def min_snr_weight(
    scheduler: Any, timesteps: Int[Tensor, " batch"], gamma: float, offset: float
) -> Float[Tensor, " batch"]:
    """Min-SNR loss weights for the scheduler's prediction type; see `joint_diffusion_loss`."""
    snr = compute_snr(scheduler, timesteps).clamp_min(1e-8)
    capped = (snr + offset).clamp_max(gamma)
    by_kind = {"epsilon": snr, "sample": torch.ones_like(snr), "v_prediction": snr + 1}
    return capped / by_kind[scheduler.config.prediction_type]


def _shares(
    count: int, logit_normal: tuple[float, float] | None, generator: torch.Generator
) -> Float[Tensor, " batch"]:
    """Draws relative timesteps in [0, 1]."""
    mean, std = logit_normal or (0.0, 1.0)
    scheme = "logit_normal" if logit_normal else "none"
    return compute_density_for_timestep_sampling(scheme, count, mean, std, generator=generator)


def sigmoid_normal_timesteps(count: int, generator: torch.Generator, mean: float = 0.0) -> Float[Tensor, " batch"]:
    """Draws relative timesteps in (0, 1) as sigmoids of normal draws (Stable-V2A's code, with mean 0)."""
    return (torch.randn(count, generator=generator) + mean).sigmoid()
