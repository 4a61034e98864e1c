"""The measurement of attention control."""

from typing import Final

from weftwork.evaluation.core.measurement import Measurement

MEASUREMENT: Final = Measurement(
    "Measurement of attention control: shares of the garments of a prompt that appear, with and without it, and its "
    "time per image.",
    "weftwork.evaluation.methods.attention_control:AttentionControlEvaluation",
    {},
    backbone="tiny-diffusion",
)
