"""Signal, noise and scale in the latents that a scheduler passes to a denoiser."""

from typing import Any

import torch

from weftwork.attention_processors.core.families import Given
from weftwork.attention_processors.core.strength import Sampling


def sampling_of(scheduler: Any, given: Given, shape: tuple[int, ...] | None = None) -> Sampling:
    """Returns signal, noise and scale of the latents of the denoiser's next call.

    Schedulers that count steps know its timestep; for others it is the one in the arguments of the call.

    Args:
        shape: of the pipeline's latents.
    """
    if hasattr(scheduler, "step_index"):
        index = scheduler.step_index
        timestep = scheduler.timesteps[(scheduler.begin_index or 0) if index is None else index]
    else:
        timestep = torch.as_tensor(given["timestep"]).flatten()[0].to(scheduler.timesteps.dtype)
    timestep = timestep.cpu()
    signal, noise = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    if hasattr(scheduler, "scale_noise"):
        made = scheduler.scale_noise(signal, timestep[None], noise)
    else:
        made = scheduler.add_noise(signal, noise, timestep[None])
    made = torch.cat([made, torch.ones(1, 1)], 1)
    if hasattr(scheduler, "scale_model_input"):
        made = scheduler.scale_model_input(made, timestep)
    of_signal, of_noise, scale = made[0].tolist()
    return Sampling(of_signal, of_noise, scale, shape)
