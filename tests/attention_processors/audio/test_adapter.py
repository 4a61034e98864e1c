"""Conditions of audio and the tokens, keys and values that the adapter makes of them."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import attend
from tiny_audio import (
    ACROSS,
    PROMPT,
    TRACK,
    tiny_transformer,
)
from tiny_audio import spatial_adapter as adapter

from weftwork.attention_processors.audio.adapter import SpatialAudioAdapter
from weftwork.attention_processors.audio.conditions import AudioPrompt, BoxTrack, DepthClip, Envelope
from weftwork.attention_processors.core.branch import OwnAttention
from weftwork.attention_processors.core.processor import attention_layers
from weftwork.attention_processors.core.strength import Layout
from weftwork.datasets.readers.audio_files import resampled

RATE = 16_000


# Conditions


def test_a_track_is_interpolated_held_and_lost() -> None:
    track = BoxTrack([1.0, 1.4, 3.0], [[0, 0, 0.2, 1], [0.4, 0, 0.6, 1], [0.8, 0, 1, 1]])
    boxes, seen = track.at(np.array([0.4, 0.6, 1.0, 1.2, 1.4, 2.0, 3.0, 3.4, 3.6]))
    assert seen.tolist() == [False, True, True, True, True, False, True, True, False]
    np.testing.assert_allclose(boxes[3], [0.2, 0, 0.4, 1])
    np.testing.assert_allclose(boxes[7], [0.8, 0, 1, 1])
    np.testing.assert_allclose(track.mirrored().boxes[1], [0.4, 0, 0.6, 1])
    np.testing.assert_allclose(track.mirrored().mirrored().boxes, track.boxes)


def test_an_envelope_is_the_causal_loudness() -> None:
    audio = np.zeros((2, RATE), np.float32)
    audio[0, 4000:] = 0.5
    mono, stereo = Envelope.from_audio(audio, RATE), Envelope.from_audio(audio, RATE, stereo=True)
    assert mono.values.shape == (1, RATE) and stereo.values.shape == (2, RATE)
    assert not stereo.values[1].any() and mono.values[0, :3600].max() == 0
    np.testing.assert_allclose(mono.values[0, 10_000], 0.5 / np.sqrt(2), rtol=1e-3)
    np.testing.assert_allclose(stereo.values[0, 10_000], 0.5, rtol=1e-3)
    direct = np.sqrt(np.convolve(audio[0] ** 2, np.ones(3628) / 3628)[:RATE])
    smooth = np.convolve(direct, np.ones(726) / 726, mode="same")
    np.testing.assert_allclose(stereo.values[0, 1000:-1000], smooth[1000:-1000], atol=2e-3)
    signal = mono.signal(8000, 8000, start=0.25)
    np.testing.assert_allclose(signal[0], signal[1])
    np.testing.assert_allclose(signal[0, 2000], mono.values[0, 8000] * 0.5 / mono.values.max(), atol=1e-5)
    louder = Envelope(mono.values * 3, RATE).signal(8000, 8000, start=0.25)
    np.testing.assert_allclose(louder, signal, atol=1e-6)
    assert not signal[0, -1500:].any()


def test_a_resampled_tone_is_the_tone() -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(44_100) / 44_100)[None].astype(np.float32)
    low = resampled(tone, 44_100, RATE)
    expected = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    np.testing.assert_allclose(low[0, 200:-200], expected[200:-200], atol=2e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BoxTrack([0.0], [[0.5, 0, 0.4, 1]]), "boxes: got .*0.5.* at 0.000 s, expected 0 <= left < right"),
        (lambda: BoxTrack([0.0], [[50, 10, 90, 200]]), "divide pixels by width and height"),
        (lambda: BoxTrack([0.0, 1.0], [[0, 0, 1, 1]]), r"boxes: got shape \(1, 4\) for 2 times"),
        (lambda: BoxTrack([1.0, 1.0], [[0, 0, 1, 1]] * 2), "times: got 1.0 at place 1, expected seconds"),
        (lambda: BoxTrack([], []), "times: got shape"),
        (lambda: BoxTrack([0.0], [[0, 0, 1, 1]], region=(0, 0, 1, 1)), "region: got one, expected none for audio"),
        (lambda: DepthClip([0.0]), "depth, embeds: got neither or both"),
        (lambda: DepthClip([0.0], np.zeros((1, 4, 4))), "not finite or, in metres, not above 0"),
        (lambda: DepthClip([0.0], np.ones((2, 4, 4))), r"depth: got shape \(2, 4, 4\) for 1 times"),
        (lambda: AudioPrompt(), "embeds, audio: got neither or both"),
        (lambda: AudioPrompt(audio=np.zeros((2, 9)), sample_rate=8), "audio: got silence"),
        (lambda: AudioPrompt(audio=np.full((2, 9), 20_000), sample_rate=8), "audio: got samples up to 20000"),
        (lambda: AudioPrompt(audio=np.ones(9), sample_rate=8), r"audio: got shape \(9,\), expected \[channel"),
        (lambda: Envelope([-1.0], 10), "values, rate: got numbers that are negative"),
        (lambda: Envelope([1.0], 0), "values, rate"),
        (lambda: Envelope.from_audio(np.full((2, 9), np.nan), 8), "not finite"),
    ],
)  # fmt: skip
def test_bad_conditions_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# The adapter


def conditioning(made: SpatialAudioAdapter, rows: list[list[Any]], transformer: Any, **options: Any) -> Any:
    made.bind(transformer)
    return made(made.features(made.collate(rows, **options), {}))


def test_tokens_carry_their_time_unless_told_not_to() -> None:
    transformer = tiny_transformer()
    times = np.linspace(0, 2.048, len(ACROSS))
    forwards, backwards = BoxTrack(times, ACROSS), BoxTrack(times, ACROSS[::-1])
    for code, ordered in (("none", False), ("sinusoidal", True)):
        made = adapter(transformer, time_code=code, box_rate=30 / 2.048)
        bags = []
        for track in (forwards, backwards):
            key = conditioning(made, [[track]], transformer).key_value["transformer_blocks.0.attn2"][0][0]
            bags.append(key[key[:, 0].argsort()])
        same = torch.allclose(*bags, atol=1e-2)
        assert same is not ordered


def test_frozen_projections_are_the_layers_own() -> None:
    transformer = tiny_transformer()
    made = adapter(transformer)
    assert not any("to_key" in name for name in made.state_dict())
    encoded = conditioning(made, [[PROMPT]], transformer)
    block = transformer.transformer_blocks[1]
    token = made.readers[0].projection(torch.from_numpy(PROMPT.embeds)[None, None])
    expected = block.attn2.to_v(transformer.cross_attention_proj(token))
    torch.testing.assert_close(encoded.key_value["transformer_blocks.1.attn2"][1], expected)
    own = adapter(transformer, projections="own")
    again = conditioning(own, [[PROMPT]], transformer).key_value["transformer_blocks.1.attn2"][1]
    assert again.shape == expected.shape and "to_value.transformer_blocks-1-attn2.weight" in own.state_dict()


def test_a_design_is_the_same_beside_others() -> None:
    transformer = tiny_transformer()
    made = adapter(transformer)
    layout = Layout(dict.fromkeys(attention_layers(transformer), 0), (1, 32))
    alone = conditioning(made, [[TRACK]], transformer).build(layout)[0]["transformer_blocks.0.attn2"]
    beside = conditioning(made, [[TRACK], [PROMPT, TRACK, TRACK.mirrored()], []], transformer).build(layout)[0]
    row = beside["transformer_blocks.0.attn2"]
    query = torch.randn(3, 33, 4, 16, generator=torch.Generator().manual_seed(0))
    key, value = torch.zeros(3, 2, 2, 16), torch.ones(3, 2, 2, 16)
    own = OwnAttention(key, value, None, attend(query, key, value))
    out = row.mix(query, own.out, attend, own)
    single = OwnAttention(key[:1], value[:1], None, own.out[:1])
    torch.testing.assert_close(alone.mix(query[:1], own.out[:1], attend, single), out[:1], atol=1e-5, rtol=1e-5)
    assert torch.equal(out[2], own.out[2]) and not torch.equal(out[1], own.out[1])


def test_rotary_times_see_differences_only() -> None:
    transformer = tiny_transformer()
    made = adapter(transformer, time_code="rotary", projections="own")
    layout = Layout(dict.fromkeys(attention_layers(transformer), 0), (1, 128))
    branch = conditioning(made, [[TRACK]], transformer).build(layout)[0]["transformer_blocks.0.attn2"]
    tokens = len(branch.times)
    key = torch.randn(1, 1, 32, generator=torch.Generator().manual_seed(0)).expand(1, tokens, 32)
    one = dataclasses.replace(branch, key=key, value=key, bias=None)
    scores: Any = []

    def attend(query: Any, key: Any, value: Any, mask: Any) -> Any:
        scores.append(torch.einsum("rqhd,rkhd->hqk", query, key.repeat_interleave(2, 2))[0])
        return query

    query = torch.randn(1, 1, 4, 16, generator=torch.Generator().manual_seed(1)).expand(1, 129, 4, 16)
    one.added(query, attend, None)
    places = (torch.arange(128) + 0.5) / 62.5
    distance = (places[:, None] - branch.times[None]).round(decimals=4)
    near = [scores[0][1:][distance == value] for value in distance.unique()[::40]]
    assert max(float(values.max() - values.min()) for values in near) < 1e-3
    assert scores[0][1:].std() > 0.1
    with pytest.raises(ValueError, match="time_code: got 'rotary' on frozen projections"):
        adapter(transformer, time_code="rotary")


def test_an_adapter_comes_back_from_disk(tmp_path: Path) -> None:
    transformer = tiny_transformer()
    made = adapter(transformer, projections="own")
    made.save_pretrained(tmp_path / "one")
    again = SpatialAudioAdapter.from_pretrained(tmp_path / "one")
    again.save_pretrained(tmp_path / "two")
    for name in ("config.json", "diffusion_pytorch_model.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
