"""The measurement of parts."""

from typing import Final

from weftwork.evaluation.core.measurement import Measurement, Weights

MEASUREMENT: Final = Measurement(
    "Measurement of ControlNets on small hands: errors of fingertips, which are read by their colours, with and "
    "without the local view of training (docs/parts.md).",
    "weftwork.evaluation.methods.parts:PartEvaluation",
    {
        "parts": Weights("", "folders of ControlNets that were trained on both views", ("parts",), several=True),
        "global_only": Weights(
            "", "folders of ControlNets that were trained with --local_weight 0", ("global_only",), several=True
        ),
        "cross_gated": Weights(
            "", "folders of ControlNets that were trained with --cross_gates", ("cross_gated",), several=True
        ),
    },
    backbone="tiny-diffusion",
)
