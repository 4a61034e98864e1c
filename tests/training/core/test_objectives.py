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

from weftwork.training.core.objectives import (
    diffusion_loss,
    flow_matching_loss,
    flow_sigmas,
    min_snr_weight,
    training_scheduler,
)


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


SCHEMES = ("logit_normal", "mode", "sigma_sqrt", "cosmap", "none")
DYNAMIC = {"use_dynamic_shifting": True, "shift_terminal": 0.02}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_flow_matching_asks_for_the_velocity_from_data_to_noise(scheme: str) -> None:
    """A perfect model has no loss; the noisy latents are those of the scheduler's own `scale_noise`."""
    scheduler, latents = FlowMatchEulerDiscreteScheduler(shift=3.0), torch.randn(4, 4, 8, 8)

    def perfect(noisy: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        velocity = (noisy - latents) / (times / 1000).view(-1, 1, 1, 1)
        own = FlowMatchEulerDiscreteScheduler(shift=3.0)
        torch.testing.assert_close(own.scale_noise(latents, times, latents + velocity), noisy, atol=1e-4, rtol=0)
        return velocity

    def loss(error: float) -> torch.Tensor:
        model = torch.Generator().manual_seed(0)
        return flow_matching_loss(
            lambda x, t: perfect(x, t) + error, training_scheduler(scheduler), latents, model, weighting_scheme=scheme
        )

    assert loss(0) < 1e-6
    assert loss(1) == 1 if scheme in ("logit_normal", "mode", "none") else loss(1) > 0.6


@pytest.mark.parametrize(("options", "mu"), [({"shift": 3.0}, None), ({}, None), (DYNAMIC, 0.7)])
def test_timesteps_are_shifted_as_the_sampler_shifts_them(options: dict[str, Any], mu: float | None) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(**options)
    sigmas = flow_sigmas(training_scheduler(scheduler), mu)
    assert len(sigmas) == 1000 and sigmas[-1] == 1 and (sigmas.diff() > 0).all()
    scheduler.set_timesteps(sigmas=[1.0, 0.5], mu=mu)
    if mu is None:
        torch.testing.assert_close(sigmas.flip(0), FlowMatchEulerDiscreteScheduler(**options).sigmas)
        assert sigmas[499] == pytest.approx(scheduler.sigmas[1].item(), abs=1e-6)
    else:  # the end of the shifted schedule is stretched to `shift_terminal`
        assert sigmas[0] == pytest.approx(0.02, abs=1e-6)
        assert sigmas[499] == pytest.approx(2.718281828**mu / (2.718281828**mu + 1), abs=0.02)


@pytest.mark.parametrize("mean", [-2.0, 2.0])
def test_timesteps_of_flow_matching_lean_to_the_mean_logit(mean: float) -> None:
    seen: list[torch.Tensor] = []

    def denoise(noisy: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        seen.append(times)
        return noisy

    generator = torch.Generator().manual_seed(0)
    scheduler = training_scheduler(FlowMatchEulerDiscreteScheduler())
    flow_matching_loss(denoise, scheduler, torch.zeros(400, 1, 1, 1), generator, logit_normal=(mean, 1.0))
    assert torch.logit(seen[0].clamp(1, 999) / 1000).mean() == pytest.approx(mean, abs=0.2)


def test_the_sampler_returns_the_data_of_a_model_without_loss() -> None:
    scheduler, latents = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), torch.randn(1, 4, 8, 8)

    def exact(noisy: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        return (noisy - latents) / (times / 1000).view(-1, 1, 1, 1)

    generator = torch.Generator().manual_seed(0)
    assert flow_matching_loss(exact, training_scheduler(scheduler), latents, generator, mu=0.6) < 1e-6
    noisy = torch.randn(latents.shape)
    scheduler.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25], mu=0.6)
    for time in scheduler.timesteps:
        noisy = scheduler.step(exact(noisy, time), time, noisy, return_dict=False)[0]
    torch.testing.assert_close(noisy, latents, atol=1e-5, rtol=0)


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
    flow = FlowMatchEulerDiscreteScheduler(shift=3.0)
    flow.set_timesteps(3)
    assert len(training_scheduler(flow).sigmas) == 1000


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
