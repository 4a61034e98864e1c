"""Windows, conditions and a ControlNet at the rate and lengths of Stable Audio Open: 44.1 kHz, 1024 latents of 2048."""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderOobleck, StableAudioDiTModel
from diffusers.pipelines.stable_audio.modeling_stable_audio import StableAudioProjectionModel
from tiny_audio import CHANNELS, CONTEXT, prompt_embeds, tiny_audio_pipe

from weftwork.attention_processors.audio.adapter import SpatialAudioAdapter
from weftwork.attention_processors.audio.conditions import BoxTrack, Envelope
from weftwork.attention_processors.audio.controlnet import StableAudioControlNetModel
from weftwork.attention_processors.audio.stable_audio import rotary_embedding_for
from weftwork.attention_processors.core.conditioning import Conditioning
from weftwork.attention_processors.core.processor import conditioned, install, install_inputs
from weftwork.pipelines.audio.pipeline import VideoToAudioPipeline

RATE, HOP, LATENTS = 44_100, 2048, 1024
LONGEST = LATENTS * HOP / RATE
TRACK = BoxTrack.along([0.0, 110.0], [[0.0, 0.2, 0.2, 0.9], [0.7, 0.2, 0.9, 0.9]])


def published_rate() -> Any:
    """A pipeline of few channels, with the rate, window and hop of the published one."""
    pipe = tiny_audio_pipe(VideoToAudioPipeline, sample_size=LATENTS, num_layers=1)
    torch.manual_seed(5)
    pipe.projection_model = StableAudioProjectionModel(CONTEXT, CONTEXT, 0, 512).eval()
    pipe.vae = AutoencoderOobleck(
        encoder_hidden_size=2 * CHANNELS,
        downsampling_ratios=[2, 4, 4, 8, 8],
        channel_multiples=[1, 1, 1, 1, 1],
        decoder_channels=4,
        decoder_input_channels=CHANNELS,
        audio_channels=2,
        sampling_rate=RATE,
    ).eval()
    adapter = SpatialAudioAdapter.for_denoiser(
        pipe.transformer, input_dim=CONTEXT, seconds=LONGEST, audio_dim=6, depth_size=16
    )
    torch.nn.init.normal_(adapter.null)
    pipe.attach(spatial=adapter.eval())
    return pipe


@pytest.mark.slow
def test_long_audio_is_made_of_windows_at_the_published_rate() -> None:
    pipe = published_rate()
    rows: list[tuple[int, int]] = []
    pipe.transformer.register_forward_pre_hook(lambda _, args: rows.append((len(args[0]), args[0].shape[-1])))
    options = {"prompt_embeds": prompt_embeds(), "seconds": 110.0, "num_inference_steps": 1, "guidance_scale": 1.0}
    out = pipe([TRACK], generator=torch.Generator().manual_seed(0), **options).audio
    plain = pipe([], generator=torch.Generator().manual_seed(0), **options).audio
    assert rows == [(2, LATENTS), (1, LATENTS)] * 2  # three windows, two at once
    assert out.shape == plain.shape == (2, 110 * RATE) and np.isfinite(out).all()
    for begin in (0, 50, 100):  # the track reaches every window
        stretch = slice(begin * RATE, (begin + 5) * RATE)
        assert not np.allclose(out[:, stretch], plain[:, stretch])


def test_a_loudness_envelope_is_encoded_at_the_published_rate() -> None:
    pipe = published_rate()
    net = StableAudioControlNetModel.from_transformer(pipe.transformer, 1)
    torch.nn.init.normal_(net.control_out[0].weight)
    torch.nn.init.normal_(net.control_in.weight)
    pipe.attach(controlnet=net.eval())
    options = {"prompt_embeds": prompt_embeds(), "seconds": 3.0, "num_inference_steps": 1, "guidance_scale": 1.0}
    rising = np.linspace(0, 1, 300)
    up, down = (
        pipe([Envelope(values, 100)], generator=torch.Generator().manual_seed(0), **options).audio
        for values in (rising, rising[::-1])
    )
    assert up.shape == (2, 3 * RATE) and not np.allclose(up, down)


@torch.no_grad()
@pytest.mark.parametrize("projections", ["frozen", "own"])
def test_the_published_size(projections: str) -> None:
    """All 24 layers with boxes and a ControlNet, without memory for their tensors."""
    with torch.device("meta"):
        transformer = StableAudioDiTModel()
        net = StableAudioControlNetModel.from_transformer(transformer, control_channels=64 + 5)
        install(transformer)
        install_inputs(transformer, net.blocks)
        adapter = SpatialAudioAdapter.for_denoiser(transformer, seconds=LONGEST, projections=projections)
    assert transformer.config["num_layers"] == 24 and len(net.blocks) == 4
    batch = adapter.collate([[TRACK]], seconds=LONGEST).to("meta")
    encoded = adapter(batch)
    tokens = round(15 * LONGEST)  # boxes per second
    assert {one.shape for pair in encoded.key_value.values() for one in pair} == {(1, tokens, 768)}
    with torch.device("meta"):
        inputs: dict[str, Any] = {
            "hidden_states": torch.empty(2, 64, LATENTS),
            "timestep": torch.empty(2),
            "encoder_hidden_states": torch.empty(2, 130, 768),
            "global_hidden_states": torch.empty(2, 1, 1536),
            "rotary_embedding": rotary_embedding_for(transformer, LATENTS),
        }
        added = net(**inputs, control=torch.empty(2, 69, LATENTS))
    assert {part.shape for part in added} == {(2, LATENTS + 1, 1536)}
    with conditioned(transformer, Conditioning({}, inputs=dict(zip(net.blocks, added, strict=True)))):
        assert transformer(**inputs).sample.shape == (2, 64, LATENTS)
