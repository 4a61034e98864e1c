"""Name of the guidance scale among the arguments of a pipeline."""

import inspect

from diffusers import DiffusionPipeline
from torch import nn

from weftwork.pipelines.core.call import denoisers


def is_distilled(denoiser: nn.Module) -> bool:
    """Whether a denoiser reads the guidance scale."""
    return bool(getattr(denoiser, "config", {}).get("guidance_embeds"))


def guidance_name(pipe: DiffusionPipeline) -> str:
    """Returns `true_cfg_scale`, which also needs a negative prompt, or `guidance_scale`."""
    has_true_scale = "true_cfg_scale" in inspect.signature(pipe.__call__).parameters
    return "true_cfg_scale" if has_true_scale and not is_distilled(denoisers(pipe)[0]) else "guidance_scale"
