"""The measurement of several methods on one image."""

from typing import Final

from weftwork.evaluation.core.measurement import Measurement, Weights

MEASUREMENT: Final = Measurement(
    "Measurement of several methods on one image: pairs, a style, a LoRA and a ControlNet, alone and together.",
    "weftwork.evaluation.methods.composition:CompositionEvaluation",
    {
        "paired": Weights("outfits-paired", "folder of the paired adapter"),
        "style": Weights("outfits-style", "folder of the style adapter"),
        "lora": Weights("style-lora", "folder of the LoRA", ("lora", "pairs_lora", "together")),
        "controlnet": Weights(
            "sketch-controlnet", "folder of the ControlNet", ("controlnet", "pairs_controlnet", "together")
        ),
    },
    backbone="tiny-diffusion",
)
