"""Conditioned pipelines for diffusers' `AutoPipelineForText2Image.from_pipe` and its like."""

from typing import Any

from diffusers import DiffusionPipeline
from diffusers.pipelines.auto_pipeline import (
    AUTO_IMAGE2IMAGE_PIPELINES_MAPPING,
    AUTO_INPAINT_PIPELINES_MAPPING,
    AUTO_TEXT2IMAGE_PIPELINES_MAPPING,
)


def register_auto(
    model: str,
    text_to_image: type[DiffusionPipeline],
    image_to_image: type[DiffusionPipeline] | None = None,
    inpainting: type[DiffusionPipeline] | None = None,
) -> None:
    """Registers the pipelines of a model, so that each can be made from each other with its adapters."""
    mappings: tuple[Any, ...] = (
        AUTO_TEXT2IMAGE_PIPELINES_MAPPING,
        AUTO_IMAGE2IMAGE_PIPELINES_MAPPING,
        AUTO_INPAINT_PIPELINES_MAPPING,
    )
    for mapping, kind in zip(mappings, (text_to_image, image_to_image, inpainting), strict=True):
        if kind is not None:
            mapping[model] = kind
