"""Attention control: words of the prompt that the image has to show, by updates of the latents."""

from typing import Final

from weftwork.attention_processors.core.method import Method

FOLDER: Final = "weftwork.attention_processors.attention_control"

METHOD = Method(
    name="attention-control",
    summary="words of the prompt that the image has to show, without training",
    adapters=(f"{FOLDER}.adapter:AttentionControlAdapter",),
    conditions=(f"{FOLDER}.conditions:Attend",),
    modalities=("image", "video"),
    evaluation="weftwork.evaluation.measurements.attention_control:MEASUREMENT",
    example=f"{FOLDER}.example:example",
    trained=False,
    acts_on="latents",
)
