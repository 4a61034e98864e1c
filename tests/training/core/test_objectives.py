"""Objectives and noise, for every kind of prediction."""

from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)

from weftwork.training.core.objectives import diffusion_loss, min_snr_weight, training_scheduler


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("snr_gamma", [None, 5.0])
def test_a_perfect_prediction_has_no_loss(kind: str, snr_gamma: float | None) -> None:
    scheduler = DDIMScheduler(prediction_type=kind, rescale_betas_zero_snr=True)
    latents = torch.randn(4, 4, 8, 8)

    def perfect(noisy: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        alpha = scheduler.alphas_cumprod[times].view(-1, 1, 1, 1).double()
        noise = (noisy.double() - alpha.sqrt() * latents) / (1 - alpha).sqrt()
        by_kind = {
            "epsilon": noise,
            "sample": latents,
            "v_prediction": alpha.sqrt() * noise - (1 - alpha).sqrt() * latents,
        }
        return by_kind[kind].float()

    loss = diffusion_loss(perfect, scheduler, latents, torch.Generator().manual_seed(0), snr_gamma=snr_gamma)
    assert loss < 1e-6
    worse = diffusion_loss(
        lambda x, t: perfect(x, t) + 1, scheduler, latents, torch.Generator().manual_seed(0), snr_gamma=snr_gamma
    )
    assert torch.isfinite(worse) and worse > 1e-3


def test_flow_matching_asks_for_the_velocity_from_data_to_noise() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler()
    latents = torch.randn(2, 4, 8, 8)

    def perfect(noisy: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        sigma = (times / 1000).view(-1, 1, 1, 1)
        return (noisy - latents) / sigma

    assert diffusion_loss(perfect, scheduler, latents, torch.Generator().manual_seed(0)) < 1e-6


def test_weights_of_timesteps_are_those_published() -> None:
    """min-SNR for velocities (arXiv 2303.09556), and MoAI's, which adds 1 to the ratio before it is capped."""
    scheduler = DDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing")
    times = torch.tensor([0, 200, 700, 999])
    snr = scheduler.alphas_cumprod[times] / (1 - scheduler.alphas_cumprod[times])
    for offset in (0.0, 1.0):
        expected = (snr + offset).clamp_max(5) / (snr + 1)
        torch.testing.assert_close(min_snr_weight(scheduler, times, 5.0, offset), expected, atol=1e-6, rtol=1e-4)
    assert min_snr_weight(scheduler, times, 5.0, 1.0)[-1] == 1 and min_snr_weight(scheduler, times, 5.0, 0.0)[-1] < 1e-6


@pytest.mark.parametrize("kind", [EulerDiscreteScheduler, DPMSolverMultistepScheduler])
def test_training_noise_does_not_depend_on_the_sampler(kind: Any) -> None:
    """Euler's noise is scaled differently, and both depend on the timesteps last set."""
    sampler = kind(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    sampler.set_timesteps(3)
    scheduler = training_scheduler(sampler)
    latents, noise, times = torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4), torch.tensor([0, 999])
    noisy = scheduler.add_noise(latents, noise, times)[:, 0, 0, 0]
    assert torch.allclose(noisy, (1 - sampler.alphas_cumprod[times]) ** 0.5)
    assert scheduler.config.prediction_type == sampler.config.prediction_type
    flow = FlowMatchEulerDiscreteScheduler()
    assert training_scheduler(flow) is flow


def test_offset_noise_is_constant_per_channel() -> None:
    seen: list[torch.Tensor] = []

    def denoise(noisy: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        seen.append(noisy)
        return noisy

    scheduler = DDIMScheduler(prediction_type="epsilon")
    for offset in (0.0, 0.5):
        diffusion_loss(
            denoise, scheduler, torch.zeros(2, 3, 4, 4), torch.Generator().manual_seed(0),
            logit_normal=(0.0, 1e-6), noise_offset=offset,
        )  # fmt: skip
    added = seen[1] - seen[0]
    assert added.abs().amin() > 0
    torch.testing.assert_close(added, added[:, :, :1, :1].expand_as(added), atol=1e-5, rtol=0)
    assert len(added[:, :, 0, 0].unique()) == 6
