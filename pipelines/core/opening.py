"""Opens the conditioned pipeline that fits a folder, and ControlNets that fit a U-Net."""

import contextlib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import diffusers
from diffusers import ControlNetModel, DiffusionPipeline
from torch import nn

from weftwork.attention_processors.parts.cross_gates import load_controlnet
from weftwork.datasets.readers.errors import UserError
from weftwork.pipelines.core import mixin
from weftwork.pipelines.core.mixin import ConditionedPipelineMixin

SHARED: Final = ("in_channels", "block_out_channels", "cross_attention_dim")
"""Options that a ControlNet has in common with its U-Net."""


def open_conditioned(source: str | Path, **options: Any) -> ConditionedPipelineMixin:
    """Opens the pipeline of a folder or repository, with conditions: of Stable Diffusion (XL), or of a transformer.

    Args:
        options: of `from_pretrained`.

    Raises:
        ValueError: a pipeline of another kind.
    """
    local = {"local_files_only": options["local_files_only"]} if "local_files_only" in options else {}
    index: Any = DiffusionPipeline.load_config(str(source), **local)
    name = str(index.get("_class_name"))
    if {"unet", "text_encoder"} <= set(index):
        name = "StableDiffusionXLPipeline" if "text_encoder_2" in index else "StableDiffusionPipeline"
    elif "transformer" not in index or not hasattr(diffusers, name):
        raise UserError(
            f"model: got a {name}, expected Stable Diffusion, Stable Diffusion XL or a pipeline of a transformer; "
            "choose another folder"
        )
    return conditioned_class(getattr(diffusers, name)).from_pretrained(source, **options)


@cache
def conditioned_class(stock: type) -> type[ConditionedPipelineMixin]:
    """Returns the class of a stock pipeline with conditions, `weftwork.pipelines.Conditioned…`; each is made once."""
    name = f"Conditioned{stock.__name__}"
    found = getattr(mixin, name, None)
    return found or type(name, (ConditionedPipelineMixin, stock), {"__module__": "weftwork.pipelines"})


@contextlib.contextmanager
def opening(what: str, source: object) -> Iterator[None]:
    """Turns every error of diffusers into one kind, since damaged files raise various ones."""
    try:
        yield
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(
            f"{what}: got {str(source)!r}, which cannot be opened ({reason}); copy or save it again"
        ) from error


def open_controlnet(folder: str | Path, pipe: Any) -> ControlNetModel:
    """Opens a ControlNet for a pipeline, on its device.

    Raises:
        ValueError: a folder that cannot be opened, or a ControlNet of another U-Net.
    """
    with opening("controlnet", folder):
        net = load_controlnet(folder)
    unet = getattr(pipe, "unet", net)  # transformers have none
    for name in SHARED:
        own, wanted = net.config[name], unet.config[name]
        if own != wanted and (not isinstance(own, Sequence) or list(own) != list(wanted)):
            raise UserError(
                f"controlnet: got {str(folder)!r} with {name} {own}, expected {wanted} as in the U-Net; choose one of "
                "this backbone"
            )
    nn.Module.to(net, pipe.device)
    return net
