"""Inference: stock diffusers pipelines that take conditions, the shipped models, and designs; imported on first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weftwork.pipelines.core.attach import attach as attach
    from weftwork.pipelines.core.attach import conditions as conditions
    from weftwork.pipelines.core.attach import detach as detach
    from weftwork.pipelines.core.attach import set_encoders as set_encoders
    from weftwork.pipelines.core.mixin import ConditionedPipelineMixin as ConditionedPipelineMixin
    from weftwork.pipelines.core.mixin import (
        ConditionedStableDiffusionControlNetPipeline as ConditionedStableDiffusionControlNetPipeline,
    )
    from weftwork.pipelines.core.mixin import (
        ConditionedStableDiffusionImg2ImgPipeline as ConditionedStableDiffusionImg2ImgPipeline,
    )
    from weftwork.pipelines.core.mixin import (
        ConditionedStableDiffusionInpaintPipeline as ConditionedStableDiffusionInpaintPipeline,
    )
    from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline as ConditionedStableDiffusionPipeline
    from weftwork.pipelines.core.mixin import (
        ConditionedStableDiffusionXLPipeline as ConditionedStableDiffusionXLPipeline,
    )
    from weftwork.pipelines.core.modular import ConditionedBlocks as ConditionedBlocks
    from weftwork.pipelines.designs.design import Design as Design
    from weftwork.pipelines.designs.reader import read_design as read_design
    from weftwork.pretrained import available as available
    from weftwork.pretrained import shipped as shipped

_STABLE_DIFFUSION = ("", "XL", "Img2Img", "Inpaint", "ControlNet")
_MODULE_OF = {
    "ConditionedPipelineMixin": "pipelines.core.mixin",
    "ConditionedBlocks": "pipelines.core.modular",
    **{f"ConditionedStableDiffusion{name}Pipeline": "pipelines.core.mixin" for name in _STABLE_DIFFUSION},
    **dict.fromkeys(("attach", "conditions", "detach", "set_encoders"), "pipelines.core.attach"),
    "Design": "pipelines.designs.design",
    "read_design": "pipelines.designs.reader",
    "available": "pretrained",
    "shipped": "pretrained",
}


def __getattr__(name: str) -> Any:
    """Imports a name; `ConditionedXPipeline` is made for every pipeline `XPipeline` of diffusers."""
    if name == "__all__":
        return sorted(_MODULE_OF)
    if name in _MODULE_OF:
        return getattr(import_module(f"weftwork.{_MODULE_OF[name]}"), name)
    if name.startswith("Conditioned") and name.endswith("Pipeline"):
        stock = getattr(import_module("diffusers"), name.removeprefix("Conditioned"), None)
        if stock is not None:
            return import_module("weftwork.pipelines.core.opening").conditioned_class(stock)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
