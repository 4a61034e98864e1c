"""Guidance arguments of pipelines: the scale under its name, and the negative prompt that true guidance needs."""

import inspect
from typing import Any

from diffusers import DiffusionPipeline
from torch import nn

from weftwork.pipelines.core.call import denoisers


def is_distilled(denoiser: nn.Module) -> bool:
    """Whether a denoiser reads the guidance scale."""
    return bool(getattr(denoiser, "config", {}).get("guidance_embeds"))


def guidance_arguments(
    pipe: DiffusionPipeline, guidance_scale: float, negative_prompt: str | None = None, batch: int | None = None
) -> dict[str, Any]:
    """Builds the guidance arguments of a call: `true_cfg_scale` or `guidance_scale`, and `negative_prompt`.

    True guidance calls the denoiser once more for the negative prompt; distilled models read their scale instead. A
    scale that the pipeline does not take is left out, and so is the negative prompt where there is none.

    Args:
        batch: number of prompts, if they are a list; each gets the negative prompt.
    """
    taken = inspect.signature(pipe.__call__).parameters
    true = "true_cfg_scale" in taken and not is_distilled(denoisers(pipe)[0])
    if true and guidance_scale > 1:
        negative_prompt = negative_prompt or ""  # without one, these pipelines leave guidance out
    name = "true_cfg_scale" if true else "guidance_scale"
    arguments: dict[str, Any] = {name: guidance_scale} if name in taken else {}
    if negative_prompt is not None:
        arguments["negative_prompt"] = negative_prompt if batch is None else [negative_prompt] * batch
    return arguments
