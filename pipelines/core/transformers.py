"""Stock pipelines of transformers with conditions; others take them by a line like these, or by `conditions`."""

from diffusers import (
    ChromaPipeline,
    Flux2KleinPipeline,
    Flux2Pipeline,
    FluxKontextPipeline,
    FluxPipeline,
    LTXPipeline,
    QwenImageEditPipeline,
    QwenImageEditPlusPipeline,
    QwenImagePipeline,
    StableDiffusion3Pipeline,
    WanPipeline,
    ZImagePipeline,
)

from weftwork.pipelines.core.mixin import ConditionedPipelineMixin


class ConditionedFluxPipeline(ConditionedPipelineMixin, FluxPipeline): ...


class ConditionedFluxKontextPipeline(ConditionedPipelineMixin, FluxKontextPipeline): ...


class ConditionedFlux2Pipeline(ConditionedPipelineMixin, Flux2Pipeline): ...


class ConditionedFlux2KleinPipeline(ConditionedPipelineMixin, Flux2KleinPipeline): ...


class ConditionedChromaPipeline(ConditionedPipelineMixin, ChromaPipeline): ...


class ConditionedStableDiffusion3Pipeline(ConditionedPipelineMixin, StableDiffusion3Pipeline): ...


class ConditionedQwenImagePipeline(ConditionedPipelineMixin, QwenImagePipeline): ...


class ConditionedQwenImageEditPipeline(ConditionedPipelineMixin, QwenImageEditPipeline): ...


class ConditionedQwenImageEditPlusPipeline(ConditionedPipelineMixin, QwenImageEditPlusPipeline): ...


class ConditionedZImagePipeline(ConditionedPipelineMixin, ZImagePipeline): ...


class ConditionedWanPipeline(ConditionedPipelineMixin, WanPipeline): ...


class ConditionedLTXPipeline(ConditionedPipelineMixin, LTXPipeline): ...
