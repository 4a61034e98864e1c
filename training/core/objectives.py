"""Diffusion and flow-matching losses: targets by the scheduler, timestep sampling and loss weighting."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import torch
from diffusers import ConfigMixin, DDPMScheduler
from diffusers.training_utils import (
    compute_density_for_timestep_sampling,
    compute_loss_weighting_for_sd3,
    compute_snr,
)
from jaxtyping import Float, Int
from torch import Tensor

from weftwork.datasets.readers.errors import UserError

Denoise = Callable[[Tensor, Tensor], Tensor]
"""(noisy latents, timesteps) to the prediction."""
DenoiseAll = Callable[[Sequence[Tensor], Tensor], Sequence[Tensor]]
"""The same for several latents with the same noise and timesteps."""

MODE_SCALE: Final = 1.29
"""Scale of "mode" sampling, the best of Stable Diffusion 3 (arXiv 2403.03206)."""


def is_flow(scheduler: ConfigMixin) -> bool:
    """Whether a scheduler is one of flow matching, without a noise schedule."""
    return not hasattr(scheduler, "alphas_cumprod")


def training_scheduler(scheduler: ConfigMixin) -> Any:
    """Returns the scheduler that adds noise in training.

    A `DDPMScheduler` of the sampler's configuration, since a sampler's `add_noise` may scale differently (Euler's does)
    and depends on the timesteps last set; of a flow-matching scheduler, a copy.
    """
    return (type(scheduler) if is_flow(scheduler) else DDPMScheduler).from_config(scheduler.config)


def diffusion_loss(
    denoise: Denoise,
    scheduler: ConfigMixin,
    latents: Float[Tensor, "batch *size"],
    generator: torch.Generator,
    *,
    snr_gamma: float | None = None,
    logit_normal: tuple[float, float] | None = None,
    noise_offset: float = 0.0,
) -> Float[Tensor, ""]:
    """Mean squared error of the prediction for `latents` noised to random timesteps.

    Args:
        scheduler: of `training_scheduler`; the target is that of its `prediction_type` (epsilon, sample, v_prediction).
        snr_gamma: min-SNR weighting (arXiv 2303.09556, and its v form); finite at zero terminal
            signal-to-noise, where the epsilon form is 0 / 0. None weights all timesteps equally.
        logit_normal: mean and standard deviation of the logit of relative timesteps in [0, 1] (arXiv 2403.03206). None
            draws timesteps uniformly.
        noise_offset: scale of a constant per row and channel, normally distributed, that is added to the noise.

    Raises:
        ValueError: an unknown prediction type.
    """

    def denoise_all(noisy: Sequence[Tensor], timesteps: Tensor) -> Sequence[Tensor]:
        return (denoise(noisy[0], timesteps),)

    return joint_diffusion_loss(
        denoise_all,
        scheduler,
        ((latents, 1.0),),
        generator,
        snr_gamma=snr_gamma,
        logit_normal=logit_normal,
        noise_offset=noise_offset,
    )


def joint_diffusion_loss(
    denoise: DenoiseAll,
    scheduler: ConfigMixin,
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
    noise = torch.randn(latents[0].shape, generator=generator).to(latents[0])
    shares = _shares("logit_normal" if logit_normal else "none", len(noise), logit_normal, generator).to(noise.device)
    noise = _offset(noise, noise_offset, generator)
    steps = scheduler.config["num_train_timesteps"]
    timesteps = (shares * steps).long().clamp_max(steps - 1)
    noisy = [scheduler.add_noise(x, noise, timesteps) for x in latents]
    targets = [_target(scheduler, x, noise, timesteps) for x in latents]
    predicted = zip(weights, denoise(noisy, timesteps), targets, strict=True)
    error = torch.stack([w * _squared_error(p, t) for w, p, t in predicted]).sum(0)
    if snr_gamma is not None:
        error = error * min_snr_weight(scheduler, timesteps, snr_gamma, snr_offset)
    return error.mean()


def flow_matching_loss(
    denoise: Denoise,
    scheduler: ConfigMixin,
    latents: Float[Tensor, "batch *size"],
    generator: torch.Generator,
    *,
    mu: float | None = None,
    weighting_scheme: str = "logit_normal",
    logit_normal: tuple[float, float] = (0.0, 1.0),
    noise_offset: float = 0.0,
) -> Float[Tensor, ""]:
    """Mean squared error of the velocity from data to noise, `noise - latents`, at random timesteps (arXiv 2403.03206).

    Args:
        denoise: is given timesteps as the scheduler has them, sigma times `num_train_timesteps`.
        scheduler: of `training_scheduler`.
        mu: see `flow_sigmas`.
        weighting_scheme: as in diffusers' training scripts: "logit_normal" and "mode" draw timesteps so, before they
            are shifted; "sigma_sqrt" and "cosmap" weight the error of uniform timesteps; "none" does neither.
        logit_normal: mean and standard deviation of the logit of sigma before the shift; a mean below 0 is less noise.
        noise_offset: see `diffusion_loss`.
    """
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    shares = _shares(weighting_scheme, len(latents), logit_normal, generator)
    noise = _offset(noise, noise_offset, generator)
    table = flow_sigmas(scheduler, mu)
    sigmas = table[(shares * len(table)).long().clamp_max(len(table) - 1)].to(latents.device)
    sigma = sigmas.to(latents).view(-1, *[1] * (latents.ndim - 1))
    predicted = denoise((1 - sigma) * latents + sigma * noise, sigmas * scheduler.config["num_train_timesteps"])
    error = _squared_error(predicted, noise - latents)
    return (error * compute_loss_weighting_for_sd3(weighting_scheme, sigmas)).mean()


def flow_sigmas(scheduler: ConfigMixin, mu: float | None = None) -> Float[Tensor, " step"]:
    """Returns the sigmas of all training timesteps, in ascending order, shifted as for generation.

    Args:
        scheduler: of `training_scheduler`.
        mu: logarithm of the shift, for schedulers with `use_dynamic_shifting`; see `calculate_shift` of pipelines.
    """
    steps = scheduler.config["num_train_timesteps"]
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps), mu=mu)
    return scheduler.sigmas[:-1].flip(0)


def _offset(noise: Tensor, scale: float, generator: torch.Generator) -> Tensor:
    """Adds a constant per row and channel."""
    if not scale:
        return noise
    return noise + scale * torch.randn(*noise.shape[:2], *[1] * (noise.ndim - 2), generator=generator).to(noise)


def _squared_error(predicted: Tensor, target: Tensor) -> Float[Tensor, " batch"]:
    return (predicted.float() - target.float()).square().flatten(1).mean(1)


def _target(scheduler: ConfigMixin, latents: Tensor, noise: Tensor, timesteps: Int[Tensor, " batch"]) -> Tensor:
    kind = scheduler.config["prediction_type"]
    if kind == "epsilon":
        return noise
    if kind == "sample":
        return latents
    if kind == "v_prediction":
        return scheduler.get_velocity(latents, noise, timesteps)
    raise UserError(f"prediction_type: got {kind!r}, expected epsilon, sample or v_prediction")


def min_snr_weight(
    scheduler: ConfigMixin, timesteps: Int[Tensor, " batch"], gamma: float, offset: float
) -> Float[Tensor, " batch"]:
    """Min-SNR loss weights for the scheduler's prediction type; see `joint_diffusion_loss`."""
    snr = compute_snr(scheduler, timesteps).clamp_min(1e-8)
    capped = (snr + offset).clamp_max(gamma)
    by_kind = {"epsilon": snr, "sample": torch.ones_like(snr), "v_prediction": snr + 1}
    return capped / by_kind[scheduler.config["prediction_type"]]


def _shares(
    scheme: str, count: int, logit_normal: tuple[float, float] | None, generator: torch.Generator
) -> Float[Tensor, " batch"]:
    """Draws relative timesteps in [0, 1]."""
    mean, std = logit_normal or (0.0, 1.0)
    return compute_density_for_timestep_sampling(scheme, count, mean, std, MODE_SCALE, generator=generator)


def sigmoid_normal_timesteps(count: int, generator: torch.Generator, mean: float = 0.0) -> Float[Tensor, " batch"]:
    """Draws relative timesteps in (0, 1) as sigmoids of normal draws (Stable-V2A's code, with mean 0)."""
    return (torch.randn(count, generator=generator) + mean).sigmoid()
