"""The measurement of sketch-text pairs."""

from typing import Final

from weftwork.evaluation.core.measurement import Measurement, Weights

MEASUREMENT: Final = Measurement(
    "Measurement of sketch-text pairs: attributes and outlines of garments, pair by pair.",
    "weftwork.evaluation.methods.paired:PairedEvaluation",
    {
        "adapter": Weights("outfits-paired", "adapter folder"),
        "baseline": Weights(
            "paired-global-sketch",
            "adapter folder of the global-sketch baseline",
            ("global_sketch", "global_sketch_unnamed"),
            beside="adapter",
        ),
    },
    backbone="tiny-diffusion",
)
