"""Inference: stock diffusers pipelines that take conditions, the shipped models, and designs; imported on first use."""

from importlib import import_module
from typing import TYPE_CHECKING

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
    from weftwork.pipelines.core.transformers import ConditionedChromaPipeline as ConditionedChromaPipeline
    from weftwork.pipelines.core.transformers import (
        ConditionedFlux2KleinPipeline as ConditionedFlux2KleinPipeline,
    )
    from weftwork.pipelines.core.transformers import ConditionedFlux2Pipeline as ConditionedFlux2Pipeline
    from weftwork.pipelines.core.transformers import (
        ConditionedFluxKontextPipeline as ConditionedFluxKontextPipeline,
    )
    from weftwork.pipelines.core.transformers import ConditionedFluxPipeline as ConditionedFluxPipeline
    from weftwork.pipelines.core.transformers import ConditionedLTXPipeline as ConditionedLTXPipeline
    from weftwork.pipelines.core.transformers import (
        ConditionedQwenImageEditPipeline as ConditionedQwenImageEditPipeline,
    )
    from weftwork.pipelines.core.transformers import (
        ConditionedQwenImageEditPlusPipeline as ConditionedQwenImageEditPlusPipeline,
    )
    from weftwork.pipelines.core.transformers import ConditionedQwenImagePipeline as ConditionedQwenImagePipeline
    from weftwork.pipelines.core.transformers import (
        ConditionedStableDiffusion3Pipeline as ConditionedStableDiffusion3Pipeline,
    )
    from weftwork.pipelines.core.transformers import ConditionedWanPipeline as ConditionedWanPipeline
    from weftwork.pipelines.core.transformers import ConditionedZImagePipeline as ConditionedZImagePipeline
    from weftwork.pipelines.designs.design import Design as Design
    from weftwork.pipelines.designs.reader import read_design as read_design
    from weftwork.pretrained import available as available
    from weftwork.pretrained import shipped as shipped

_STABLE_DIFFUSION = ("", "XL", "Img2Img", "Inpaint", "ControlNet")
_TRANSFORMERS = (
    "Chroma", "Flux", "Flux2", "Flux2Klein", "FluxKontext", "LTX", "QwenImage", "QwenImageEdit", "QwenImageEditPlus",
    "StableDiffusion3", "Wan", "ZImage",
)  # fmt: skip
_MODULE_OF = {
    "ConditionedPipelineMixin": "pipelines.core.mixin",
    "ConditionedBlocks": "pipelines.core.modular",
    **{f"ConditionedStableDiffusion{name}Pipeline": "pipelines.core.mixin" for name in _STABLE_DIFFUSION},
    **{f"Conditioned{name}Pipeline": "pipelines.core.transformers" for name in _TRANSFORMERS},
    **dict.fromkeys(("attach", "conditions", "detach", "set_encoders"), "pipelines.core.attach"),
    "Design": "pipelines.designs.design",
    "read_design": "pipelines.designs.reader",
    "available": "pretrained",
    "shipped": "pretrained",
}

__all__ = sorted(_MODULE_OF)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"weftwork.{_MODULE_OF[name]}"), name)
