"""Scheduler for Stable Audio without torchsde: noise from a generator instead of a Brownian tree."""

from typing import Literal

import torch
from diffusers import EDMDPMSolverMultistepScheduler
from diffusers import SchedulerMixin as SchedulerMixin  # diffusers looks for it here when it opens a folder
from diffusers.configuration_utils import register_to_config
from jaxtyping import Float
from torch import Tensor

from weftwork.pipelines.core.stock_config import named_as

STOCK = "CosineDPMSolverMultistepScheduler"
FOREIGN = ("algorithm_type", "thresholding", "dynamic_thresholding_ratio", "sample_max_value")
"""Options that the stock scheduler does not have."""


class CosineScheduler(EDMDPMSolverMultistepScheduler):
    """`CosineDPMSolverMultistepScheduler` with noise from `generator`: the same trajectory for the same noise.

    Timesteps are 2/pi * atan(sigma). With the angle pi/2 * timestep, the denoiser's input is z cos + e sin and its
    target e cos - z sin, of data z and noise e.

    Args:
        sigma_min, sigma_max, sigma_data, sigma_schedule, prediction_type, solver_order, solver_type: as
            in the stock class.
    """

    @register_to_config
    def __init__(  # noqa: PLR0913  (each is a key of the stock config)
        self,
        sigma_min: float = 0.3,
        sigma_max: float = 500.0,
        sigma_data: float = 1.0,
        sigma_schedule: Literal["karras", "exponential"] = "exponential",
        num_train_timesteps: int = 1000,
        solver_order: int = 2,
        prediction_type: Literal["epsilon", "sample", "v_prediction"] = "v_prediction",
        rho: float = 7.0,
        solver_type: Literal["midpoint", "heun"] = "midpoint",
        lower_order_final: bool = True,
        euler_at_final: bool = False,
        final_sigmas_type: Literal["zero", "sigma_min"] = "zero",
        algorithm_type: Literal["dpmsolver++", "sde-dpmsolver++"] = "sde-dpmsolver++",
    ) -> None:
        super().__init__(
            sigma_min=sigma_min,
            sigma_max=sigma_max,
            sigma_data=sigma_data,
            sigma_schedule=sigma_schedule,
            num_train_timesteps=num_train_timesteps,
            prediction_type=prediction_type,
            rho=rho,
            solver_order=solver_order,
            algorithm_type=algorithm_type,
            solver_type=solver_type,
            lower_order_final=lower_order_final,
            euler_at_final=euler_at_final,
            final_sigmas_type=final_sigmas_type,
        )

    def precondition_noise(self, sigma: float | Tensor) -> Tensor:
        """Returns the timestep of a noise level, in [0, 1)."""
        sigma = sigma if isinstance(sigma, Tensor) else torch.tensor([sigma])
        return sigma.atan() / torch.pi * 2

    def to_json_string(self) -> str:
        """Returns the config of the stock scheduler, so that stock diffusers opens the folder."""
        return named_as(STOCK, super().to_json_string(), FOREIGN)


def at_time(
    latents: Float[Tensor, "row channel place"], noise: Float[Tensor, "row channel place"], times: Float[Tensor, " row"]
) -> tuple[Tensor, Tensor]:
    """Returns the denoiser's input and target at these timesteps."""
    angle = (times * torch.pi / 2)[:, None, None]
    return angle.cos() * latents + angle.sin() * noise, angle.cos() * noise - angle.sin() * latents
