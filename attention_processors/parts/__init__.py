"""A ControlNet of the whole image and of a small part of it (AttentionHand): no adapter, but a stock `ControlNetModel`.

With cross-gating it is a `CrossGatedControlNetModel`. Pipelines of diffusers take both, as do designs by their
`controlnets`; see docs/parts.md.
"""

from typing import Final

from weftwork.attention_processors.core.method import Method

METHOD: Final = Method(
    name="parts",
    summary="a ControlNet that is trained on the whole image and on a small part of it",
    adapters=(),
    modalities=("image",),
    trainer="weftwork.training.trainers.parts:PartTrainer",
    evaluation="weftwork.evaluation.measurements.parts:MEASUREMENT",
    demo_page="weftwork.scripts.demo.form:ControlPage",
    exports=("weftwork.attention_processors.parts.cross_gates:CrossGatedControlNetModel",),
)
