"""The measurement of gates."""

from typing import Final

from weftwork.evaluation.core.measurement import Measurement, Weights

SHIPPED: Final = {"additive": "style-creatures", "gated": "style-gated", "exclusive": "", "affine": ""}
"""Fusions, and shipped adapters of styles with them."""

MEASUREMENT: Final = Measurement(
    "Measurement of gates: adapters of styles with each fusion, trained alike, on creatures.",
    "weftwork.evaluation.methods.gates:GatesEvaluation",
    {
        fusion: Weights(shipped or f"style-{fusion}", f"folders of style adapters: {fusion}", (fusion,), several=True)
        for fusion, shipped in SHIPPED.items()
    },
    backbone="tiny-diffusion",
)
