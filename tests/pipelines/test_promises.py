"""Promises of pipelines whose errors name no remedy: type and words of the error, and a call that is right."""

from pathlib import Path
from typing import Any

import numpy as np
from remedies import Row, check, given, row, table
from tiny import paired_adapter, tiny_unet
from tiny_audio import TRACK, prompt_embeds, spatial_adapter, tiny_audio_pipe, tiny_transformer
from tiny_video import write_video
from variants import SD, run

from weftwork.attention_processors import SketchTextPair
from weftwork.pipelines.audio.events import hear, loudness_curve, pan_curve
from weftwork.pipelines.audio.pipeline import VideoToAudioPipeline
from weftwork.pipelines.audio.videos import Video
from weftwork.pipelines.core.attach import attach, detach
from weftwork.pipelines.core.hardware import device_named

NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 8000))
PAIR = SketchTextPair(text="a")


def heard(**options: Any) -> Any:
    pipe = tiny_audio_pipe(VideoToAudioPipeline)
    pipe.attach(spatial=spatial_adapter(pipe.transformer))
    return pipe([TRACK], num_inference_steps=1, prompt_embeds=prompt_embeds(), **{"seconds": 0.256, **options})


def loaded(transformer: Any) -> Any:
    def make(folder: Path) -> Path:
        spatial_adapter(transformer).save_pretrained(folder / "adapter")
        return folder

    return make


def video(folder: Path) -> Video:
    return Video.open(write_video(folder / "clip.mp4", np.arange(3) / 10))


def weights(**given: Any) -> Any:
    pipe = SD.attached()
    pipe.set_weights(**given)
    return run(pipe, conditions={"it": [PAIR]})


SOUNDS = [
    row(
        lambda one: hear(one, 8000, np.array([0.2])), given(NOISE[:1]), r"expected floats \[2, samples\]", given(NOISE)
    ),
    row(lambda one: pan_curve(one, 8000), given(NOISE * np.nan), "expected finite ones; check their", given(NOISE)),
    row(lambda one: loudness_curve(one, 8000), given(NOISE[0]), r"expected floats \[2, samples\]", given(NOISE)),
    row(lambda one: heard(seconds=one), given(0), "seconds: got 0, expected a number above 0", given(0.256)),
    row(lambda one: heard(overlap=one), given(0.9), r"overlap: got 0.9, expected a share .* in \[0, 0.5\]", given(0.5)),
    row(
        lambda folder: tiny_audio_pipe(VideoToAudioPipeline).load_adapter(folder, "spatial"),
        loaded(tiny_transformer(num_key_value_attention_heads=4)),
        "base: got width 64",
        loaded(tiny_transformer()),
    ),
    (
        "boxes: got .*, expected 0 <= left < right <= 1",
        lambda folder: video(folder).tracks(lambda _: {"it": (0.9, 0, 0.1, 1)}),
        lambda folder: video(folder).tracks(lambda _: {"it": (0.1, 0, 0.9, 1)}),
    ),
    (
        "depth: got numbers that are not finite",
        lambda folder: video(folder).depth(lambda frame: frame[..., 0] * np.nan),
        lambda folder: video(folder).depth(lambda frame: frame[..., 0] + 1.0),
    ),
]
CORE = [
    row(
        lambda one: attach(SD.attached(), other=one) or one,
        given("x"),
        "is a str, expected an Adapter",
        given(paired_adapter(tiny_unet())),
    ),
    row(lambda name: [detach(SD.attached(), name)], given("other"), "got 'other'", given("it")),
    row(device_named, given("tpu"), "device: got 'tpu', expected cpu or a device of this machine", given("cpu")),
    row(lambda one: weights(**one), given({"other": 1}), "got 'other'", given({"it": 1})),
    row(lambda one: weights(**one), given({"it": -1}), "expected a finite number of at least 0", given({"it": 0})),
    row(
        lambda one: run(SD.attached(), conditions={"it": one}),
        given("a"),
        r"conditions\['it'\]: got a str, expected SketchTextPair",
        given(PAIR),
    ),
    row(
        lambda one: run(SD.attached(), conditions=one), given({"other": PAIR}), "attached are: it", given({"it": PAIR})
    ),
]


@table(*SOUNDS, *CORE)
def test_the_promised_error_comes_with_its_words(row: Row, tmp_path: Path) -> None:
    check(row, tmp_path)
