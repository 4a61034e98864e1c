"""Boxes, depth, prompts and envelopes reach the sound: alone, together, in time; without any it is the stock one."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from diffusers import StableAudioPipeline
from tiny_audio import (
    ACROSS,
    CHANNELS,
    DEPTH,
    LOUD,
    PROMPT,
    TIMES,
    TRACK,
    prompt_embeds,
    tiny_audio_pipe,
    tiny_transformer,
)
from tiny_audio import spatial_adapter as adapter

from weftwork.attention_processors.audio.conditions import AudioPrompt, BoxTrack, DepthClip, Envelope, warn_of_gaps
from weftwork.attention_processors.audio.control import aligned_boxes
from weftwork.attention_processors.audio.controlnet import StableAudioControlNetModel
from weftwork.attention_processors.encoders.audio_statistics import AudioStatistics
from weftwork.pipelines.audio.output import AudioOutput
from weftwork.pipelines.audio.pipeline import VideoToAudioPipeline
from weftwork.pipelines.audio.windows import Windows
from weftwork.pipelines.core.attach import attach, conditions

RATE = 16_000


@pytest.fixture
def pipe() -> Any:
    pipe = tiny_audio_pipe(VideoToAudioPipeline)
    net = StableAudioControlNetModel.from_transformer(pipe.transformer, 2)
    for part, std in ((net.control_out[0], 0.1), (net.control_out[1], 0.1), (net.control_in, 1.0)):
        torch.nn.init.normal_(part.weight, std=std)
    pipe.attach(spatial=adapter(pipe.transformer), controlnet=net.eval().requires_grad_(False))
    return pipe


def replaced(pipe: Any, spatial: Any, controlnet: Any = None) -> None:
    pipe.detach()
    pipe.attach(spatial=spatial, controlnet=controlnet)


def sound(pipe: Any, conditions: Any = (), seed: int = 0, **options: Any) -> np.ndarray[Any, Any]:
    options = {"seconds": 0.512, "num_inference_steps": 3, **options}
    noise = torch.Generator().manual_seed(seed)
    return pipe(conditions, prompt_embeds=prompt_embeds(), generator=noise, **options).audio


def stock_sound(pipe: Any, guidance_scale: float = 2.0) -> np.ndarray[Any, Any]:
    noise = torch.Generator().manual_seed(0)
    latents = torch.randn(1, CHANNELS, 32, generator=noise)
    return StableAudioPipeline.__call__(
        pipe, latents=latents, prompt_embeds=prompt_embeds(), audio_end_in_s=0.512, num_inference_steps=3,
        guidance_scale=guidance_scale, generator=noise, output_type="np",
    ).audios[0]  # fmt: skip


def test_without_conditions_it_is_the_stock_pipeline(pipe: Any) -> None:
    for scale in (1.0, 2.0):
        expected = stock_sound(pipe, scale)
        assert np.array_equal(sound(pipe, guidance_scale=scale), expected)
        off = [dataclasses.replace(c, weight=0.0) for c in (TRACK, DEPTH, PROMPT, LOUD)]
        assert np.array_equal(sound(pipe, off, guidance_scale=scale), expected)
    hooks = dict(pipe.transformer._forward_pre_hooks)
    pipe.detach()
    assert not hooks and np.array_equal(sound(pipe), stock_sound(pipe))
    assert all(type(p).__name__ == "StableAudioAttnProcessor2_0" for p in pipe.transformer.attn_processors.values())


def test_the_adapter_acts_in_any_pipeline_of_the_transformer() -> None:
    pipe = tiny_audio_pipe(StableAudioPipeline)
    expected = stock_sound(pipe)
    attach(pipe, spatial=adapter(pipe.transformer))
    for weight in (0.0, 1.0):
        with conditions(pipe, {"spatial": [dataclasses.replace(TRACK, weight=weight)]}):
            assert np.array_equal(stock_sound(pipe), expected) == (weight == 0)


@pytest.mark.parametrize("condition", [TRACK, DEPTH, PROMPT, LOUD], ids=["track", "depth", "prompt", "envelope"])
def test_each_condition_matters_with_its_weight_and_schedule(pipe: Any, condition: Any) -> None:
    nothing, full = sound(pipe), sound(pipe, [condition])
    assert not np.array_equal(nothing, full)
    half = sound(pipe, [dataclasses.replace(condition, weight=0.5)])
    late = sound(pipe, [dataclasses.replace(condition, start=0.5)])
    never = sound(pipe, [dataclasses.replace(condition, start=0.1, end=0.2)])
    assert not np.array_equal(half, full) and not np.array_equal(late, full) and not np.array_equal(late, nothing)
    assert np.array_equal(never, nothing)


def test_boxes_as_channels_are_aligned_in_time(pipe: Any) -> None:
    seen = aligned_boxes([TRACK, PROMPT], 64, 1.024, start=0.5)
    assert seen.shape == (5, 64) and seen[4].all()
    np.testing.assert_allclose(seen[0, 10], 2 * (0.1 + 0.3 * (0.5 + 10.5 * 0.016)) - 1, atol=1e-5)
    assert not aligned_boxes([PROMPT], 64, 1.024).any()
    late = aligned_boxes([BoxTrack([0.0, 0.1], ACROSS[:2])], 64, 1.024)
    assert late[4, 0] == 1 and not late[:, -1].any()
    small = BoxTrack(TIMES, ACROSS * 0.1)
    assert torch.equal(aligned_boxes([small, TRACK], 64, 1.024), aligned_boxes([TRACK], 64, 1.024))
    net = StableAudioControlNetModel.from_transformer(pipe.transformer, 1, CHANNELS + 5)
    torch.nn.init.eye_(net.control_out[0].weight)
    torch.nn.init.normal_(net.control_in.weight)
    deaf = adapter(pipe.transformer)
    replaced(pipe, deaf, net.eval().requires_grad_(False))
    for scale in (1.0, 2.0):
        plain = sound(pipe, guidance_scale=scale)
        track = sound(pipe, [dataclasses.replace(TRACK, layers={"all": 0.0})], guidance_scale=scale)  # channels alone
        assert not np.array_equal(plain, track)
        assert not np.array_equal(sound(pipe, [LOUD], guidance_scale=scale), plain)
        never = dataclasses.replace(TRACK, start=0.1, end=0.2)
        assert np.array_equal(sound(pipe, [never], guidance_scale=scale), plain)
        assert np.array_equal(sound(pipe, [dataclasses.replace(TRACK, weight=0.0)], guidance_scale=scale), plain)


def test_envelope_and_channels_keep_their_own_weights_and_schedules(pipe: Any) -> None:
    net = StableAudioControlNetModel.from_transformer(pipe.transformer, 1, CHANNELS + 5)
    torch.nn.init.eye_(net.control_out[0].weight)
    torch.nn.init.normal_(net.control_in.weight)
    replaced(pipe, adapter(pipe.transformer), net.eval().requires_grad_(False))
    track = dataclasses.replace(TRACK, layers={"all": 0.0})  # channels alone

    def heard(*given: Any, **changes: Any) -> Any:
        return sound(pipe, list(given), num_inference_steps=4, **changes)

    def changed(one: Any, **values: Any) -> Any:
        return dataclasses.replace(one, **values)

    both, seen, loud = heard(track, LOUD), heard(track), heard(LOUD)
    assert len({one.tobytes() for one in (both, seen, loud)}) == 3
    assert np.array_equal(heard(track, changed(LOUD, weight=0.0)), seen)
    assert np.array_equal(heard(changed(track, weight=0.0), LOUD), loud)
    assert not np.array_equal(heard(changed(track, start=0.5)), heard())
    halves = [heard(changed(track, end=0.5), changed(LOUD, start=0.5)), heard(track, changed(LOUD, start=0.5))]
    assert all(not np.array_equal(one, other) for one in halves for other in (both, seen, loud))
    near = heard(track, changed(LOUD, weight=1e-4))
    assert 0 < np.abs(near - seen).max() < 1e-2 * np.abs(both - seen).max()
    guided = [heard(changed(LOUD, cfg=cfg), guidance_scale=2.0) for cfg in ("both", "cond_only")]
    assert not np.array_equal(*guided)
    with pytest.raises(ValueError, match="layers: got some on an envelope"):
        heard(changed(LOUD, layers={"all": 0.5}))


def test_an_error_leaves_nothing_behind(pipe: Any) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("no sound")

    decode, pipe.vae.decode = pipe.vae.decode, broken
    with pytest.raises(RuntimeError, match="no sound"):
        sound(pipe, [TRACK])
    pipe.vae.decode = decode
    assert not pipe.transformer._forward_pre_hooks
    assert np.array_equal(sound(pipe), stock_sound(pipe))


def test_clipping_at_saving_logs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    AudioOutput(np.full((2, 16), 1.7, np.float32), [], RATE).save(tmp_path / "loud.wav")
    assert "reaches 1.70 and is clipped at 1" in caplog.text


def test_a_pipeline_that_was_moved_takes_its_modules_along(pipe: Any) -> None:
    replaced(pipe, made := adapter(pipe.transformer))
    heard = sound(pipe, [TRACK])
    pipe.to(torch.float64)
    assert np.isfinite(sound(pipe, [TRACK])).all()
    assert np.array_equal(sound(pipe.to(torch.float32), [TRACK]), heard)
    assert next(made.parameters()).dtype == torch.float32


def test_silence_is_no_envelope_and_short_audio_is_no_prompt(pipe: Any, caplog: pytest.LogCaptureFixture) -> None:
    dither = np.full((2, RATE), 1e-5, np.float32)
    assert not Envelope.from_audio(dither, RATE).values.any() and "got silence for an envelope" in caplog.text
    assert Envelope([1.0, 1.0], 2.0).signal(8, 8).all()
    with pytest.raises(ValueError, match=r"audio: got 0\.0006 s of audio, expected at least"):
        AudioStatistics(pipe.vae)(np.ones((2, 9), np.float32), RATE)
    made = adapter(pipe.transformer)
    batch = made.collate([[AudioPrompt(audio=np.ones((2, 4000), np.float32) * 0.1, sample_rate=RATE)]])
    with pytest.raises(ValueError, match=r"audio: got \(3,\) of the encoder, expected"):
        made.features(batch, {"audio": lambda *_: torch.ones(3)})


def test_depth_may_be_embedded_already_and_needs_no_unit(pipe: Any) -> None:
    maps = np.linspace(2, 8, 4)[:, None, None] * np.linspace(1, 2, 24 * 32).reshape(1, 24, 32)
    affine = [DepthClip(DEPTH.times, values, metric=False) for values in (maps, 0.1 * maps + 3)]
    np.testing.assert_allclose(sound(pipe, affine[:1]), sound(pipe, affine[1:]), atol=1e-4)
    assert not np.array_equal(sound(pipe, affine[:1]), sound(pipe, [DepthClip(DEPTH.times, maps)]))
    replaced(pipe, adapter(pipe.transformer, depth_dim=7))
    noise = np.random.default_rng(0)
    given = [DepthClip(DEPTH.times, embeds=noise.normal(size=(4, 7))) for _ in range(2)]
    heard = [sound(pipe), *(sound(pipe, [one]) for one in given)]
    assert len({one.tobytes() for one in heard}) == 3


def test_times_by_rotation_reach_the_sound(pipe: Any) -> None:
    replaced(pipe, adapter(pipe.transformer, time_code="rotary", projections="own"))
    turned = BoxTrack(TRACK.times, TRACK.boxes[::-1])
    assert len({sound(pipe, given).tobytes() for given in ([], [TRACK], [turned])}) == 3


def test_voices_are_summed(pipe: Any) -> None:
    noise = torch.Generator().manual_seed(0)
    out = pipe(
        [[TRACK], [TRACK.mirrored(), LOUD]],
        prompt_embeds=prompt_embeds(),
        seconds=0.512,
        num_inference_steps=3,
        generator=noise,
    )
    assert len(out.voices) == 2
    np.testing.assert_allclose(out.audio, out.voices[0] + out.voices[1], atol=1e-6)
    first = pipe([[TRACK], [TRACK.mirrored()]], prompt_embeds=prompt_embeds(), seconds=0.512, num_inference_steps=3,
                 generator=torch.Generator().manual_seed(0))  # fmt: skip
    np.testing.assert_allclose(out.voices[0], first.voices[0], atol=1e-5)
    assert not np.allclose(out.voices[1], first.voices[1], atol=1e-5)


def test_the_length_is_what_was_asked_for(pipe: Any) -> None:
    assert sound(pipe, seconds=0.3).shape == (2, 4800)
    assert sound(pipe, [LOUD], seconds=None, num_inference_steps=2).shape == (2, round(2.05 * RATE))
    assert sound(pipe, seconds=5.0, num_inference_steps=1).shape == (2, 5 * RATE)


def test_many_windows_are_drawn_in_groups(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same sound, and no more rows at once than allowed."""
    rows: list[int] = []
    pipe.transformer.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))

    def drawn() -> Any:
        noise = [torch.Generator().manual_seed(i) for i in range(10)]
        given = [[TRACK, LOUD], [TRACK.mirrored()]]
        options = {"seconds": 8.0, "num_inference_steps": 2, "guidance_scale": 1.0}
        return pipe(given, prompt_embeds=prompt_embeds(), generator=noise, **options).audio

    together = drawn()
    assert set(rows) == {10}
    monkeypatch.setattr("weftwork.pipelines.audio.pipeline.LATENTS_AT_ONCE", 4 * 128)
    rows.clear()
    np.testing.assert_allclose(drawn(), together, atol=1e-5)
    assert set(rows) == {4, 2}


def test_windows_cover_and_fade() -> None:
    windows = Windows.plan(5.0, 2.0, 0.25, 256, RATE)
    assert windows.starts == [0.0, 1.5, 3.0] and windows.latents == 125
    noise = np.random.default_rng(0)
    parts = [noise.standard_normal((2, 2 * RATE)).astype(np.float32) for _ in windows.starts]
    joined = windows.joined(parts)
    assert joined.shape == (2, 5 * RATE)
    power = (joined**2).reshape(2, 50, -1).mean((0, 2))
    assert power.min() > 0.85 and power.max() < 1.15
    np.testing.assert_array_equal(joined[:, :RATE], parts[0][:, :RATE])
    short = Windows.plan(0.1, 2.0, 0.25, 256, RATE)
    assert short.starts == [0.0] and short.latents == 7
    for total, overlap, message in ((0.0, 0.25, "seconds: got 0.0"), (1.0, 0.6, "overlap: got 0.6")):
        with pytest.raises(ValueError, match=message):
            Windows.plan(total, 2.0, overlap, 256, RATE)


def test_a_window_reads_its_own_stretch() -> None:
    made = adapter()
    late = made.collate([[TRACK]], seconds=0.5, starts=[1.0]).parts[0].values
    shifted = BoxTrack(TIMES[:30], ACROSS[30:60])
    early = made.collate([[shifted]], seconds=0.5).parts[0].values
    np.testing.assert_allclose(late[..., :4], early[..., :4], atol=1e-6)


def test_folders_stay_stock_and_bring_everything_back(pipe: Any, tmp_path: Path) -> None:
    expected = sound(pipe, [TRACK, LOUD])
    pipe.save_pretrained(tmp_path / "model")
    pipe.spatial.save_pretrained(tmp_path / "spatial/adapter")
    pipe.controlnet.save_pretrained(tmp_path / "spatial/controlnet")
    index = (tmp_path / "model/model_index.json").read_text()
    assert "CosineDPMSolverMultistepScheduler" in index and '"StableAudioDiTModel"' in index and "weftwork" not in index
    again = VideoToAudioPipeline.from_pretrained(tmp_path / "model")
    again.set_progress_bar_config(disable=True)
    again.load_adapter(tmp_path / "spatial", "spatial")
    np.testing.assert_allclose(sound(again, [TRACK, LOUD]), expected, atol=1e-5)


def test_a_sound_is_saved_whole(pipe: Any, tmp_path: Path) -> None:
    out = pipe([TRACK], prompt_embeds=prompt_embeds(), seconds=0.2, num_inference_steps=1)
    path = out.save(tmp_path / "new" / "a.wav")
    audio, rate = soundfile.read(path)
    assert rate == RATE and audio.shape == (3200, 2)
    with pytest.raises(ValueError, match=r"path: got 'a.txt'"):
        out.save(tmp_path / "a.txt")
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["a.wav"]


def test_calls_that_cannot_be_are_refused(pipe: Any) -> None:
    with pytest.raises(ValueError, match="got 2 envelopes for one voice"):
        sound(pipe, [LOUD, LOUD])
    with pytest.raises(ValueError, match="conditions: got a str"):
        sound(pipe, ["left"])
    with pytest.raises(ValueError, match=r"audio encoder: got audio as prompt, .*; call pipe.set_encoders\(audio="):
        sound(pipe, [AudioPrompt(audio=np.ones((2, 9)), sample_rate=RATE)])
    pipe.set_encoders(audio=lambda audio, rate: torch.full((6,), float(audio.mean())))
    assert not np.array_equal(sound(pipe, [AudioPrompt(audio=np.ones((2, 9)), sample_rate=RATE)]), sound(pipe))
    replaced(pipe, pipe.spatial)
    with pytest.raises(ValueError, match="there is no ControlNet"):
        sound(pipe, [LOUD])
    pipe.detach()
    with pytest.raises(ValueError, match=r"call load_adapter\(folder, 'spatial'\) first"):
        sound(pipe, [TRACK])
    other = adapter(tiny_transformer(num_key_value_attention_heads=4))
    with pytest.raises(ValueError, match="base: got width 64"):
        pipe.attach(spatial=other)


def test_each_step_is_told_and_may_stop_the_sound(pipe: Any) -> None:
    told: list[int] = []
    sound(pipe, [TRACK], callback=lambda step, time, latents: told.append(step))
    assert told == [0, 1, 2]
    with pytest.raises(ZeroDivisionError):
        sound(pipe, [TRACK], callback=lambda *_: 1 / 0)
    assert not pipe.transformer._forward_pre_hooks


def test_clipped_audio_logs_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    wave = np.sin(np.arange(0, 60, 0.1))[None]
    AudioPrompt(audio=wave, sample_rate=8000)
    assert not caplog.records
    AudioPrompt(audio=np.clip(2 * wave, -1, 1), sample_rate=8000)
    assert "audio that is clipped in 6" in caplog.text


def test_envelopes_of_audio_with_digital_silence() -> None:
    """The filter's running sum rounds below 0 there."""
    for seed in range(50):
        rng = np.random.default_rng(seed)
        audio = rng.normal(0, 0.1, (2, 16_000)).astype(np.float32)
        for start in rng.integers(0, 14_000, 4):
            audio[:, start : start + 2000] = 0
        assert Envelope.from_audio(audio, 16_000).values.min() >= 0


def test_gaps_between_keyframes_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    boxes = [[0.0, 0.0, 0.2, 1.0], [0.8, 0.0, 1.0, 1.0]]
    for track, gaps in ((BoxTrack([0.0, 1.0], boxes), 1), (BoxTrack.along([0.0, 1.0], boxes), 0)):
        warn_of_gaps([track])
        assert caplog.text.count("boxes: got a gap of 1.00 s between times") == gaps
        caplog.clear()
