"""Signal and noise in the latents that a scheduler hands a denoiser."""

from typing import Any

import torch

from weftwork.attention_processors.core.families import Given


def noise_level(scheduler: Any, given: Given) -> tuple[float, float]:
    """Returns the factors of signal and noise in the latents of the denoiser's next call.

    Schedulers that count steps know its timestep; for others it is the one in the arguments of the call.
    """
    if hasattr(scheduler, "step_index"):
        index = scheduler.step_index
        timestep = scheduler.timesteps[(scheduler.begin_index or 0) if index is None else index]
    else:
        timestep = torch.as_tensor(given["timestep"]).flatten()[0]
    timestep = timestep.cpu()
    signal, noise = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    if hasattr(scheduler, "scale_noise"):
        made = scheduler.scale_noise(signal, timestep[None], noise)
    else:
        made = scheduler.add_noise(signal, noise, timestep[None])
    if hasattr(scheduler, "scale_model_input"):
        made = scheduler.scale_model_input(made, timestep)
    return float(made[0, 0]), float(made[0, 1])
