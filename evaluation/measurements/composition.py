"""The measurement of several methods on one image."""

from typing import Final

from weftwork.evaluation.core.measurement import Measurement, Weights

MEASUREMENT: Final = Measurement(
    "Measurement of several methods on one image: pairs, a style and a ControlNet, alone and together.",
    "weftwork.evaluation.methods.composition:CompositionEvaluation",
    {
        "paired": Weights("outfits-paired", "folder of the paired adapter"),
        "style": Weights("outfits-style", "folder of the style adapter"),
        "controlnet": Weights(
            "sketch-controlnet", "folder of the ControlNet", ("controlnet", "pairs_controlnet", "together")
        ),
    },
    backbone="tiny-diffusion",
)
