"""Inference: stock diffusers pipelines that take conditions, the shipped models, and design files."""

from weft.pipelines.conditioned import (
    ConditionedPipelineMixin,
    ConditionedStableDiffusionControlNetPipeline,
    ConditionedStableDiffusionImg2ImgPipeline,
    ConditionedStableDiffusionInpaintPipeline,
    ConditionedStableDiffusionPipeline,
    ConditionedStableDiffusionXLPipeline,
)
from weft.pipelines.design_file import Design, read_design
from weft.pipelines.pretrained import available, shipped

__all__ = [
    "ConditionedPipelineMixin",
    "ConditionedStableDiffusionControlNetPipeline",
    "ConditionedStableDiffusionImg2ImgPipeline",
    "ConditionedStableDiffusionInpaintPipeline",
    "ConditionedStableDiffusionPipeline",
    "ConditionedStableDiffusionXLPipeline",
    "Design",
    "available",
    "read_design",
    "shipped",
]
