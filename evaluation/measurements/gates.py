"""The measurement of gates."""

from typing import Final

from weftwork.evaluation.core.measurement import Measurement, Weights
from weftwork.evaluation.measurements.drawings import ORACLE, PLACES, SPLITS

FUSIONS: Final = ("additive", "gated", "concat", "exclusive", "affine")

MEASUREMENT: Final = Measurement(
    "Measurement of gates: adapters of designers' styles with each fusion, trained alike, on the drawings of "
    "`weftwork evaluate drawings`.",
    "weftwork.evaluation.methods.gates:GatesEvaluation",
    {
        "oracle": ORACLE,
        **{fusion: Weights("", f"folders of style adapters: {fusion}", (fusion,), several=True) for fusion in FUSIONS},
    },
    splits=SPLITS,
    places=PLACES,
)
