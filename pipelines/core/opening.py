"""Opens the conditioned pipeline that fits a folder."""

from functools import cache
from pathlib import Path
from typing import Any

import diffusers
from diffusers import DiffusionPipeline

from weftwork.datasets.readers.errors import UserError
from weftwork.pipelines.core import mixin
from weftwork.pipelines.core.mixin import ConditionedPipelineMixin


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
