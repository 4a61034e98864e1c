"""Guidance among the arguments of a pipeline."""

import inspect
from typing import Any, Final

from diffusers import DiffusionPipeline
from torch import nn

from weftwork.pipelines.core.call import denoisers

TRUE_SCALE: Final = "true_cfg_scale"
"""Name of the scale of transformers that call the denoiser once more for the negative prompt."""


def is_distilled(denoiser: nn.Module) -> bool:
    """Whether a denoiser reads the guidance scale."""
    return bool(getattr(denoiser, "config", {}).get("guidance_embeds"))


def guidance_arguments(
    pipe: DiffusionPipeline, guidance_scale: float, negative_prompt: str | None = None, batch: int | None = None
) -> dict[str, Any]:
    """Returns the guidance scale, if the pipeline takes one, and the negative prompt, if there is one.

    Args:
        batch: number of prompts, if they are a list; each gets the negative prompt.
    """
    taken = inspect.signature(pipe.__call__).parameters
    name = TRUE_SCALE if TRUE_SCALE in taken and not is_distilled(denoisers(pipe)[0]) else "guidance_scale"
    if name == TRUE_SCALE and guidance_scale > 1:
        negative_prompt = negative_prompt or ""  # without one, these pipelines leave guidance out
    scale = {name: guidance_scale} if name in taken else {}
    if negative_prompt is None:
        return scale
    return scale | {"negative_prompt": negative_prompt if batch is None else [negative_prompt] * batch}
