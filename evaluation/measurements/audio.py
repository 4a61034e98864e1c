"""The measurement of spatial audio."""

from typing import Final

from weftwork.evaluation.core.measurement import Measurement, Weights


def _audio(name: str, *rows: str) -> Weights:
    return Weights(name, "folder of trained modules", rows)


MEASUREMENT: Final = Measurement(
    "Measurement of spatial audio: side, distance, time and surface of audible footsteps.",
    "weftwork.evaluation.methods.audio:SpatialAudioEvaluation",
    {
        "spatial": _audio("spatial-audio"),
        "tokens_only": _audio("spatial-audio-tokens", "tokens_only"),
        "no_time_code": _audio("spatial-audio-no-time-code", "no_time_code"),
        "own_projections": _audio("spatial-audio-own-projections", "own_projections"),
    },
    backbone="tiny-audio",
    num_inference_steps=50,
    guidance_scale=2.0,
    places={"footsteps": (None, "folder of recorded footsteps (default: synthetic ones)")},
)
