"""Inference: stock diffusers pipelines that take conditions, the shipped models, and design files."""

from weftwork.pipelines.core.mixin import (
    ConditionedPipelineMixin,
    ConditionedStableDiffusionControlNetPipeline,
    ConditionedStableDiffusionImg2ImgPipeline,
    ConditionedStableDiffusionInpaintPipeline,
    ConditionedStableDiffusionPipeline,
    ConditionedStableDiffusionXLPipeline,
)
from weftwork.pipelines.core.pretrained import available, shipped
from weftwork.pipelines.designs.design_file import Design, read_design

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
