"""Measurement of spatial audio: side, distance and time of audible footsteps."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from weftwork.evaluation.core.measurement import Measurement, Weights

if TYPE_CHECKING:
    from weftwork.evaluation.methods.audio import SpatialAudioEvaluation

MODULES = "folder of trained modules"


class AudioMeasurement(Measurement):
    """Measures trained modules and their ablations."""

    num_inference_steps = 50
    guidance_scale = 2.0
    weights: ClassVar[Mapping[str, Weights]] = {
        "spatial": Weights("spatial-audio", MODULES),
        "tokens_only": Weights("spatial-audio-tokens", MODULES, ("tokens_only",)),
        "no_time_code": Weights("spatial-audio-no-time-code", MODULES, ("no_time_code",)),
        "own_projections": Weights("spatial-audio-own-projections", MODULES, ("own_projections",)),
    }

    def build(self, pipe: Any) -> "SpatialAudioEvaluation":
        from weftwork.attention_processors.encoders.audio_statistics import AudioStatistics
        from weftwork.evaluation.methods.audio import SpatialAudioEvaluation

        modules = {name: tuple(folders) for name, folders in self.folders().items()}
        pipe.set_encoders(audio=AudioStatistics(pipe.vae))
        return SpatialAudioEvaluation(pipe=pipe, modules=modules, **self.settings())
