"""The measurement of styles."""

from typing import Final

from weftwork.evaluation.core.measurement import Measurement, Weights

MEASUREMENT: Final = Measurement(
    "Measurement of style adapters: style and content of creatures; --curve plots both over the weight.",
    "weftwork.evaluation.methods.style:StyleEvaluation",
    {
        "style": Weights("outfits-style", "adapter folder: additive, of creatures and outfits", ("style",)),
        "style_creatures": Weights(
            "style-creatures", "adapter folder: additive, of creatures alone", ("style_creatures",)
        ),
        "style_gated": Weights("style-gated", "adapter folder: gated", ("style_gated",)),
        "style_concat": Weights("style-concat", "adapter folder: joint softmax", ("style_concat",)),
        "reference": Weights("style-reference", "adapter folder: IP-Adapter", ("reference_branch",)),
        "image_encoder": Weights(
            "creature-encoder", "folder of the encoder that --reference reads through", ("reference_branch",)
        ),
        "lora": Weights("style-lora", "folder of a LoRA that reads style names", ("lora",)),
    },
    backbone="tiny-diffusion",
    curve=("style_accuracy", "content_accuracy", "shape_consistency"),
)
