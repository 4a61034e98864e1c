"""Opens the conditioned pipeline that fits a folder."""

from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline

from weftwork.datasets.readers.errors import UserError
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline, ConditionedStableDiffusionXLPipeline


def open_conditioned(source: str | Path, **options: Any) -> Any:
    """Open the text-to-image pipeline of a folder or repository, of Stable Diffusion or Stable Diffusion XL.

    Args:
        options: of `from_pretrained`.

    Raises:
        ValueError: a pipeline of another kind.
    """
    local = {"local_files_only": options["local_files_only"]} if "local_files_only" in options else {}
    index: Any = DiffusionPipeline.load_config(str(source), **local)
    if "unet" not in index or "text_encoder" not in index:
        name = index.get("_class_name")
        raise UserError(f"model: got a {name}, expected Stable Diffusion or Stable Diffusion XL; choose another folder")
    kind = ConditionedStableDiffusionXLPipeline if "text_encoder_2" in index else ConditionedStableDiffusionPipeline
    return kind.from_pretrained(source, **options)
