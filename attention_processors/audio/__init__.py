"""Spatial audio for video (StereoSync, Stable-V2A)."""

from typing import Final

from weftwork.attention_processors.core.method import Method

TIME_CODES: Final = ("sinusoidal", "rotary", "none")
PROJECTIONS: Final = ("frozen", "own")

METHOD = Method(
    name="spatial-audio",
    summary="stereo audio that follows boxes, depth and loudness",
    adapters=("weftwork.attention_processors.audio.adapter:SpatialAudioAdapter",),
    modalities=("audio",),
    conditions=(
        "weftwork.attention_processors.audio.conditions:BoxTrack",
        "weftwork.attention_processors.audio.conditions:DepthClip",
        "weftwork.attention_processors.audio.conditions:AudioPrompt",
        "weftwork.attention_processors.audio.conditions:Envelope",
    ),
    trainer="weftwork.training.trainers.audio:AudioTrainer",
    pipeline="weftwork.pipelines.audio.pipeline:VideoToAudioPipeline.from_pretrained",
    evaluation="weftwork.evaluation.measurements.audio:MEASUREMENT",
    demo_page="weftwork.scripts.demo.audio:AudioPage",
    validation={"walks": ("weftwork.evaluation.methods.audio:validate", "modules", "footsteps", "prompt")},
    example="weftwork.attention_processors.audio.example:example",
    usage=(
        "from weftwork.attention_processors.audio.conditions import BoxTrack",
        "track = BoxTrack.along([0.0, 2.0], [[0.0, 0.2, 0.2, 0.9], [0.7, 0.2, 0.9, 0.9]])  # left, top, right, bottom",
        'pipe([track], "a person walks", num_inference_steps=20).save("steps.wav")',
    ),
)
