"""The shipped sound models follow what is seen: sounds come from where the box is, and when it is loud."""

import json
from typing import Any

import numpy as np
import pytest
import torch

from weftwork.attention_processors.audio.conditions import Envelope
from weftwork.datasets.synthetic.walks import PROMPT, SECONDS, sample
from weftwork.datasets.synthetic.walks.scenes import Walk
from weftwork.pipelines.audio.events import hear, onsets, pan_of
from weftwork.pipelines.audio.pipeline import VideoToAudioPipeline
from weftwork.pretrained import available, shipped
from weftwork.training.data.audio import visual_conditions

pytestmark = pytest.mark.skipif("spatial-audio" not in available(), reason="the shipped models are not installed")


@pytest.fixture(scope="module")
def pipe() -> Any:
    pipe = VideoToAudioPipeline.from_pretrained(shipped("tiny-audio"), use_safetensors=True)
    pipe.load_adapter(shipped("spatial-audio"), "spatial")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def standing(x: float) -> Walk:
    return Walk(np.array([[x, 4.0], [x, 4.0]]), np.zeros(0), np.zeros(0), "metal", SECONDS)


def test_steps_are_heard_where_the_box_is_and_when_it_is_loud(pipe: Any) -> None:
    clip = sample("test", 0)
    loud = Envelope.from_audio(clip.audio, clip.sample_rate)
    pans = {}
    for side, x in (("left", -1.8), ("right", 1.8)):
        noise = torch.Generator().manual_seed(0)
        out = pipe([*visual_conditions(standing(x)), loud], "a person walks", num_inference_steps=12, generator=noise)
        found = onsets(out.audio, out.sample_rate)
        assert all(np.abs(found - step).min() < 0.06 for step in clip.walk.steps)
        pans[side] = np.nanmean(pan_of(hear(out.audio, out.sample_rate, clip.walk.steps).energies))
    assert pans["left"] < -0.2 and pans["right"] > 0.2


@pytest.mark.slow
def test_the_page_of_the_demo_is_heard_on_every_surface(pipe: Any) -> None:
    """With its defaults; the surface is that of its audio prompt, told by the mean frequency."""
    pytest.importorskip("gradio")
    from weftwork.scripts.demo.audio import PATHS, SURFACES, AudioStudio, audio_request

    studio, path, pitch = AudioStudio(pipe, "tiny-audio"), json.dumps(next(iter(PATHS.values()))), {}
    for surface in SURFACES:
        (conditions,) = studio.voices(audio_request(path, surface, 2.0, None, None))
        audio = pipe(conditions, PROMPT, num_inference_steps=10, generator=torch.Generator().manual_seed(1)).audio
        assert np.abs(audio).max() > 0.1  # -20 dB
        power = np.abs(np.fft.rfft(audio.mean(0))) ** 2
        pitch[surface] = float((power * np.arange(len(power))).sum() / power.sum())
    assert pitch["wood"] < pitch["snow"] < pitch["gravel"]
