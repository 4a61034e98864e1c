"""Remedies in errors of the pipelines of audio, videos and views: the same call succeeds after them."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from remedies import Row, check, given, row, table, text
from tiny import tiny_pipe
from tiny_audio import LOUD, TRACK, prompt_embeds, spatial_adapter, tiny_audio_pipe
from tiny_views import REFERENCES, TARGET

from weftwork.attention_processors.audio.conditions import Envelope
from weftwork.attention_processors.audio.controlnet import StableAudioControlNetModel
from weftwork.attention_processors.core import method
from weftwork.attention_processors.views.adapter import AlignedViews
from weftwork.datasets.readers.cameras import Camera
from weftwork.pipelines.audio.events import onsets
from weftwork.pipelines.audio.output import AudioOutput
from weftwork.pipelines.audio.pipeline import VideoToAudioPipeline
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline
from weftwork.pipelines.core.opening import open_conditioned
from weftwork.pipelines.views.pipeline import AlignedViewsPipeline
from weftwork.pretrained import available, shipped

SILENCE = np.zeros((2, 800))
NOISY = AudioOutput(SILENCE.astype(np.float32), [], 8000)


def audio(*, spatial: bool = True, controlnet: bool = False) -> Any:
    pipe = tiny_audio_pipe(VideoToAudioPipeline)
    net = StableAudioControlNetModel.from_transformer(pipe.transformer, 2) if controlnet else None
    if spatial:
        pipe.attach(spatial=spatial_adapter(pipe.transformer), controlnet=net)
    return pipe


def heard(pipe: Any, *conditions: Any) -> Any:
    return pipe(conditions, seconds=0.256, num_inference_steps=1, prompt_embeds=prompt_embeds())


def loaded(folder: Path) -> Any:
    spatial_adapter().save_pretrained(folder / "adapter")
    pipe = audio(spatial=False)
    pipe.load_adapter(folder, "spatial")
    return pipe


AUDIO: list[Row] = [
    row(
        lambda one: onsets(one, 8000), given(SILENCE * np.nan), "expected finite.*; check their source", given(SILENCE)
    ),
    row(
        NOISY.save, lambda folder: folder / "a.txt", "ends in .wav or .flac; change it", lambda folder: folder / "a.wav"
    ),
    (
        "got 2 envelopes for one voice, expected at most 1; pass one list per voice",
        lambda _: heard(audio(controlnet=True), LOUD, LOUD),
        lambda _: heard(audio(controlnet=True), [LOUD], [LOUD]),
    ),
    (
        "layers: got some on an envelope, which a ControlNet reads; give it a weight instead",
        lambda _: heard(audio(controlnet=True), replace(LOUD, layers={"all": 0.5})),
        lambda _: heard(audio(controlnet=True), replace(LOUD, weight=0.5)),
    ),
    (
        "there is no ControlNet; load one beside the adapter",
        lambda _: heard(audio(), LOUD),
        lambda _: heard(audio(controlnet=True), LOUD),
    ),
    (
        r"without an adapter; call load_adapter\(folder, 'spatial'\) first",
        lambda _: heard(audio(spatial=False), TRACK),
        lambda folder: heard(loaded(folder), TRACK),
    ),
    (
        "got a str, expected BoxTrack, DepthClip, AudioPrompt or Envelope; pass these",
        lambda _: heard(audio(), "left"),
        lambda _: heard(audio(), TRACK),
    ),
]


def views(*names: str) -> Any:
    pipe: Any = tiny_pipe(AlignedViewsPipeline)
    for name in names:
        pipe.attach(**{name: AlignedViews.for_denoiser(pipe.unet, rank=1)})
    return pipe


@cache
def ready() -> Any:
    return views("views")


def seen(pipe: Any, references: Any = REFERENCES, camera: Camera = TARGET.camera, **options: Any) -> Any:
    quick = {"num_inference_steps": 1, "mesh": False, "blend_latents": False, "blend_pixels": False}
    return pipe(references, camera, **quick, **options)


def weighted(weight: float) -> Any:
    pipe = ready()
    pipe.set_weights(views=weight)
    return seen(pipe)


@cache
def doubled() -> Any:
    return views("one", "two")


def one_of_two(_: Path) -> Any:
    doubled().detach("two")
    return seen(doubled())


SMALL = replace(REFERENCES[0], image=REFERENCES[0].image[::2, ::2], points=REFERENCES[0].points[::2, ::2])
BEHIND = Camera.looking(TARGET.camera.position, 2 * TARGET.camera.position - (2.0, 1.0, 1.0))
BESIDE = replace(TARGET.camera, center=(9.0, 0.5))
VIEWS: list[Row] = [
    row(lambda kind: seen(ready(), output_type=kind), given("latent"), "expected 'pil' or 'np'; pass one", given("np")),
    row(
        lambda some: seen(ready(), some), given([]), "at least one view; pass at least one image", given(REFERENCES[:1])
    ),
    row(
        lambda some: seen(ready(), some),
        given([REFERENCES[0], SMALL]),
        "got images of 32x32, 64x64, expected 64x64 for all; resize images and depth",
        given(REFERENCES),
    ),
    row(lambda one: seen(ready(), camera=one), given(BESIDE), "sees nothing of .*; turn it", given(TARGET.camera)),
    row(lambda one: seen(ready(), camera=one), given(BEHIND), "in front of it; turn or move it", given(TARGET.camera)),
    (
        r"weight: got 2.0 for 'views', expected 1; call set_weights\(views=1\)",
        lambda _: weighted(2),
        lambda _: weighted(1),
    ),
    (
        r"got 0 adapters .*; call load_adapter\(folder, 'views'\) first",
        lambda _: seen(views()),
        lambda _: seen(ready()),
    ),
    ("got 2 adapters of views, .*, and detach others", lambda _: seen(doubled()), one_of_two),
    (
        "expected a name that ends in .ply, .glb or .xyz; change it",
        lambda folder: seen(ready()).save_point_cloud(folder / "a.png"),
        lambda folder: seen(ready()).save_point_cloud(folder / "a.ply"),
    ),
]


def opened(folder: Path) -> Any:
    tiny_pipe(ConditionedStableDiffusionPipeline).save_pretrained(folder / "model")
    return open_conditioned(folder / "model")


MODELS: list[Row] = [
    row(
        open_conditioned,
        lambda folder: text('{"_class_name": "DanceDiffusionPipeline"}', "model_index.json")(folder).parent,
        "got a DanceDiffusionPipeline, expected Stable Diffusion.*; choose another folder",
        lambda folder: tiny_pipe(ConditionedStableDiffusionPipeline).save_pretrained(folder / "it") or folder / "it",
    ),
    row(shipped, given("nothing"), "expected one of: .*; pass the path of a folder", given(available()[0])),
]


@table(*AUDIO, *VIEWS, *MODELS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_remedies_of_pipelines(row: Row, tmp_path: Path) -> None:
    check(row, tmp_path)


LOUDER = AudioOutput(np.full((2, 800), 2, np.float32), [], 8000)
NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 8000))


def heard_as(audio: Any) -> Envelope:
    return Envelope.from_audio(audio, 8000)


def registered(load: Callable[[], object]) -> Any:
    entry = SimpleNamespace(load=load, value="package:METHOD")
    with patch.object(method, "entry_points", lambda **_: [entry]):
        return method.methods.__wrapped__()


@table(
    ("got silence for an envelope, .*; pass audible audio", lambda _: heard_as(SILENCE), lambda _: heard_as(NOISE)),
    (
        "audio that is clipped in .*; record it at a lower level",
        lambda _: heard_as((4 * NOISE).clip(-1, 1)),
        lambda _: heard_as(NOISE),
    ),
    (
        "the audio reaches 2.00 and is clipped at 1; pass fewer voices, or scale it",
        lambda folder: LOUDER.save(folder / "a.wav"),
        lambda folder: replace(LOUDER, audio=LOUDER.audio / 2).save(folder / "b.wav"),
    ),
    (
        "entry point .* cannot be loaded .*; update or remove the package",
        lambda _: registered(lambda: 1 / 0),
        lambda _: registered(lambda: replace(method.methods()["style"], name="another")),
    ),
)
def test_remedies_of_warnings(row: Row, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    words, wrong, right = row
    assert wrong(tmp_path) is not None and re.search(words, caplog.text)
    caplog.clear()
    assert right(tmp_path) is not None and not caplog.text
