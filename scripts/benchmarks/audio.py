"""Cost of audio conditions: a transformer step with tokens, with a ControlNet, with both; and longer audio.

The transformer is Stable Audio Open's with fewer layers and random weights; times do not depend on weights. Rows
`length_N` are stock steps of N latents; 43 latents are two seconds. `command` is `weftwork sound` for two seconds with
the shipped models, including start-up; `sound_Ns` is the generation alone, of N seconds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from diffusers import StableAudioDiTModel
from torch import Tensor

from weftwork.attention_processors.audio.adapter import SpatialAudioAdapter
from weftwork.attention_processors.audio.conditions import AudioPrompt, BoxTrack, DepthClip
from weftwork.attention_processors.audio.controlnet import StableAudioControlNetModel
from weftwork.attention_processors.audio.stable_audio import Rotary, rotary_embedding_for
from weftwork.attention_processors.core.conditioning import Conditioning
from weftwork.attention_processors.core.processor import attention_layers, conditioned, install, install_inputs
from weftwork.attention_processors.core.strength import GUIDED, Layout
from weftwork.datasets.synthetic.walks import sample
from weftwork.pipelines.audio.pipeline import VideoToAudioPipeline
from weftwork.pretrained import shipped
from weftwork.scripts.benchmarks.timing import interleaved, ratios, timed_command

TRANSFORMERS: Mapping[str, Mapping[str, Any]] = {
    "full": {"num_layers": 10},
    "tiny": {
        "num_layers": 5,
        "attention_head_dim": 16,
        "num_attention_heads": 4,
        "num_key_value_attention_heads": 2,
        "cross_attention_dim": 32,
    },
}
"""Differences from the config of Stable Audio Open, by size."""
LATENTS = 43
LENGTHS = (1, 2, 4)
TEXT = 130
"""Tokens of the stock context: text, start and end seconds."""


@torch.inference_mode()
def measure(size: str, rounds: int) -> dict[str, dict[str, float]]:
    """Returns the rows of the report; `both` is relative to transformer and ControlNet without tokens."""
    torch.manual_seed(0)
    stock = StableAudioDiTModel(**TRANSFORMERS[size]).eval().requires_grad_(False)
    model = StableAudioDiTModel(**TRANSFORMERS[size]).eval().requires_grad_(False)
    net = StableAudioControlNetModel.from_transformer(model, model.config["num_layers"] // 5).eval()
    install(model)
    install_inputs(model, net.blocks)
    conditioning = _conditioning(model)
    given = _inputs(model, LATENTS)

    def step(control: Sequence[Tensor] = ()) -> None:
        inputs = dict(zip(net.blocks, control, strict=False))
        with conditioned(model, replace(conditioning, inputs=inputs)):
            model(**given)

    def controlled(conditions: Conditioning | None = None) -> list[Tensor]:
        with conditioned(net, conditions or Conditioning({})):
            return net(**given, control=torch.zeros(2, model.config["in_channels"], LATENTS))

    seconds = interleaved(
        rounds,
        stock=lambda: stock(**given),
        tokens=step,
        stock_and_controlnet=lambda: (stock(**given), controlled()),
        both=lambda: step(controlled(conditioning)),
    )
    rows = ratios(seconds, "stock")
    rows["both"] = ratios(seconds, "stock_and_controlnet")["both"]
    longer = [_inputs(model, LATENTS * times) for times in LENGTHS]
    lengths = {
        f"length_{LATENTS * times}": lambda given=given: stock(**given)
        for times, given in zip(LENGTHS, longer, strict=True)
    }
    rows |= ratios(interleaved(rounds, **lengths), f"length_{LATENTS}")
    return {**rows, **_shipped(rounds, 50 if size == "full" else 1)}


def _shipped(rounds: int, steps: int) -> dict[str, dict[str, float]]:
    """Times the command and generation with the shipped models on a track of the test split."""
    clip = sample("test", 0)
    with TemporaryDirectory() as folder:
        np.savez(f"{folder}/boxes.npz", times=clip.box_times, boxes=clip.boxes)
        words = ["sound", "--boxes", f"{folder}/boxes.npz", "--seconds", "2", "--output", f"{folder}/out"]
        command = timed_command([*words, "--num_inference_steps", str(steps)], rounds)
    pipe = VideoToAudioPipeline.from_pretrained(shipped("tiny-audio"))
    pipe.load_adapter(shipped("spatial-audio"), "spatial")
    pipe.set_progress_bar_config(disable=True)
    track = BoxTrack(clip.box_times, clip.boxes)
    tasks = {
        f"sound_{2 * times}s": lambda seconds=2.0 * times: pipe([track], seconds=seconds, num_inference_steps=steps)
        for times in LENGTHS
    }
    return {"command": command, **ratios(interleaved(rounds, **tasks), "sound_2s")}


def _inputs(model: StableAudioDiTModel, latents: int) -> dict[str, Tensor | Rotary]:
    config = model.config
    return {
        "hidden_states": torch.randn(2, config["in_channels"], latents),
        "timestep": torch.tensor([0.5]),
        "encoder_hidden_states": torch.randn(2, TEXT, config["cross_attention_input_dim"]),
        "global_hidden_states": torch.randn(2, 1, config["global_states_input_dim"]),
        "rotary_embedding": rotary_embedding_for(model, latents),
    }


def _conditioning(model: StableAudioDiTModel) -> Conditioning:
    """Encodes a track, depth and a prompt of a two-second clip, with guidance."""
    adapter = SpatialAudioAdapter.for_denoiser(model, input_dim=model.config["cross_attention_input_dim"])
    conditions = [
        AudioPrompt(torch.ones(512).numpy()),
        DepthClip(np.array([0.0, 1.0]), torch.ones(2, 32, 32).numpy()),
        BoxTrack.along([0.0, 2.0], [[0.0, 0.0, 0.2, 1.0], [0.8, 0.0, 1.0, 1.0]]),
    ]
    adapter.bind(model)
    encoded = adapter(adapter.features(adapter.collate([conditions]), {}))
    levels = dict.fromkeys(attention_layers(model), 0)
    return Conditioning.of({"spatial": encoded}, Layout(levels, (1, LATENTS), halves=GUIDED))
