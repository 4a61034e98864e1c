"""Walkers of a video: found by motion, their steps by gait, each heard where and while it is seen."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from remedies import check
from tiny_audio import prompt_embeds, spatial_adapter, tiny_audio_pipe

from weftwork.attention_processors.audio.conditions import AudioPrompt, BoxTrack, DepthClip, Envelope
from weftwork.datasets.synthetic.walks import sample
from weftwork.pipelines.audio import videos
from weftwork.pipelines.audio.gait import USUAL, gait, step_times
from weftwork.pipelines.audio.motion import MotionDetector, detector_named, smoothed, walkers
from weftwork.pipelines.audio.pipeline import VideoToAudioPipeline
from weftwork.pipelines.audio.videos import Video
from weftwork.pipelines.audio.voices import balanced, mixed, pan_correlation
from weftwork.pipelines.core import video_files
from weftwork.scripts.cli import main

SIZE, RATE = 96, 10
SECONDS = 5.0


def place(time: float, speed: float, start: float) -> float:
    """Left edge of a walker of 8 pixels."""
    return start + speed * time


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Video:
    """Two walkers over a textured ground: one to the right, one to the left from the second second on."""
    ground = np.random.default_rng(0).integers(60, 120, (SIZE, SIZE, 3)).astype(np.uint8)
    frames = []
    for time in np.arange(0, SECONDS, 1 / RATE):
        frame = ground.copy()
        left = round(place(time, 14, 8))
        frame[20:44, left : left + 8] = 230
        if time >= 2:
            left = round(place(time - 2, -20, 80))
            frame[60:84, left : left + 8] = 10
        frames.append(frame)
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    return Video.open(video_files.write_video(np.stack(frames), RATE, path))


def test_walkers_are_found_while_they_are_seen(clip: Video) -> None:
    one, other = walkers(clip, MotionDetector(clip))
    assert one.times[0] == pytest.approx(0, abs=0.11) and one.times[-1] == pytest.approx(4.9, abs=0.11)
    assert other.times[0] == pytest.approx(2, abs=0.11)
    for track, speed, start, begin in ((one, 14, 8, 0), (other, -20, 80, 2)):
        centers = track.boxes[:, [0, 2]].mean(1) * SIZE
        np.testing.assert_allclose(centers, place(track.times - begin, speed, start) + 4, atol=4)
        even = smoothed(track).boxes
        assert np.abs(np.diff(even[:, 0], 2)).mean() < np.abs(np.diff(track.boxes[:, 0], 2)).mean()


def test_what_stands_still_is_no_walker(tmp_path: Path) -> None:
    frames = np.full((30, SIZE, SIZE, 3), 90, np.uint8)
    frames[::2, 20:44, 40:48] = 230  # blinks
    still = Video.open(video_files.write_video(frames, RATE, tmp_path / "still.mp4"))
    lefts = iter(np.linspace(0, 0.5, 30))

    def crossing(frame: np.ndarray) -> dict[str, list[float]]:
        return {"it": [left := next(lefts), 0.0, left + 0.1, 1.0]}

    words = "expected one or more that move for .* s; pass --boxes, or another detector"
    check((words, lambda _: walkers(still, MotionDetector(still)), lambda _: walkers(still, crossing)), tmp_path)


def left_half(frame: np.ndarray) -> dict[str, list[float]]:
    return {"it": [0.0, 0.0, 0.5, 1.0]}


def test_detectors_are_functions_by_name(clip: Video, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(videos, "detect_left", left_half, raising=False)
    found = detector_named("weftwork.pipelines.audio.videos:detect_left", clip)
    assert found is left_half and isinstance(detector_named("motion", clip), MotionDetector)
    for name, message in (
        ("people", "got 'people', expected motion, or package.module:name of a function"),
        ("weftwork.pipelines.audio.videos:BOX_RATE", "expected motion, or package.module:name of a function"),
        ("weftwork.nothing:here", "got 'weftwork.nothing:here', which cannot be imported"),
        ("weftwork.pipelines.audio.videos:nobody", "which cannot be imported"),
    ):
        with pytest.raises(ValueError, match=message):
            detector_named(name, clip)


def walk(rate: float | None, seconds: float = 6.0) -> BoxTrack:
    """A track from the first second on whose box is widest at 1.2 s and every step after it."""
    times = np.arange(1, 1 + seconds, 0.1)
    width = 0.06 + (0 if rate is None else 0.02 * np.cos(2 * np.pi * rate * (times - 1.2)))
    center = 0.2 + 0.1 * (times - 1)
    zeros = np.zeros_like(times)
    return BoxTrack(times, np.stack([center - width / 2, zeros + 0.3, center + width / 2, zeros + 0.5], 1))


@pytest.mark.parametrize("rate", [1.5, 1.9, 2.3])
def test_steps_are_seen_where_feet_are_apart(rate: float) -> None:
    times, seen = step_times(walk(rate))
    assert seen and np.diff(times).mean() == pytest.approx(1 / rate, rel=0.03)
    late = (times - 1.2) * rate
    assert np.abs(late - np.round(late))[2:-2].max() < 0.15
    loud = gait(walk(rate))
    before = loud.values[0, : round(0.95 * loud.rate)]
    assert before.max() == 0 and loud.values.shape[1] / loud.rate == pytest.approx(6.9, abs=0.05)


def test_steps_that_are_not_seen_are_even() -> None:
    times, seen = step_times(walk(None))
    assert not seen and np.diff(times) == pytest.approx(1 / USUAL)


def test_voices_are_generated_while_they_are_seen_and_mixed() -> None:
    pipe = tiny_audio_pipe(VideoToAudioPipeline)
    pipe.attach(spatial=spatial_adapter(pipe.transformer))
    generate, spans = pipe.__class__.__call__, []

    class Recording:
        vae = pipe.vae

        def __call__(self, voices: Any, prompt: str, *, seconds: float, **options: Any) -> Any:
            spans.append((seconds, float(voices[0][0].times[0])))
            return generate(pipe, voices, prompt_embeds=prompt_embeds(), seconds=seconds, **options)

    tracks = [walk(None, 1.0), walk(None, 2.0)]
    tracks[1] = BoxTrack(tracks[1].times + 1, tracks[1].boxes)
    recording: Any = Recording()
    out = mixed(recording, [[one] for one in tracks], "", seconds=3.0, generator=None, num_inference_steps=1)  # pyright: ignore
    assert out.audio.shape == (2, 48_000) and len(out.voices) == 2
    np.testing.assert_allclose(out.audio, np.sum(out.voices, 0), atol=1e-6)
    first, second = out.voices
    assert not first[:, :15_990].any() and first[:, 16_000:30_000].any() and not first[:, 35_300:].any()
    assert not second[:, :31_990].any() and second[:, 32_000:46_000].any() and abs(second[:, -1]).max() < 1e-9
    assert (
        [start for _, start in spans] == [0, 0]
        and spans[0][0] == pytest.approx(1.2)
        and spans[1][0] == pytest.approx(1)
    )
    voices: Any = [[one] for one in tracks]
    for end in (1.5, 0.0):
        with pytest.raises(ValueError, match="got a track that begins at 2 s, expected one before"):
            mixed(recording, voices, "", seconds=end, generator=None, num_inference_steps=1)  # pyright: ignore
    mixed(recording, voices[:1], "", seconds=1.5, generator=None, num_inference_steps=1)  # pyright: ignore


def test_conditions_are_cut_to_a_span() -> None:
    depth = DepthClip([0.0, 1.0, 2.0], np.arange(1.0, 4)[:, None, None] * np.ones((1, 2, 2)))
    cut = depth.between(0.5, 1.5)
    assert isinstance(cut, DepthClip) and cut.times.tolist() == [0.5] and cut.depth is not None and cut.depth.max() == 2
    assert depth.between(2.5, 3) is None
    loud = Envelope(np.arange(10.0), 10).between(0.2, 0.5)
    assert isinstance(loud, Envelope) and loud.values.tolist() == [[2, 3, 4]]
    assert Envelope(np.arange(10.0), 10).between(2, 3) is None
    prompt = AudioPrompt(np.ones(3))
    assert prompt.between(1, 2) is prompt


def test_sides_of_a_voice_are_compared_with_those_of_its_track() -> None:
    clip = sample("test", 0, seconds=6.0)
    track = BoxTrack(clip.box_times, clip.boxes)
    assert pan_correlation(clip.audio, clip.sample_rate, track) > 0.95
    assert pan_correlation(clip.audio[::-1], clip.sample_rate, track) < -0.95
    assert np.isnan(pan_correlation(0 * clip.audio, clip.sample_rate, track))


def test_the_noise_at_the_begin_of_a_voice_is_no_step() -> None:
    clip = sample("test", 0, seconds=6.0)
    noise = 0.001 * np.random.default_rng(0).standard_normal((2, clip.sample_rate))
    voice = np.concatenate([np.zeros_like(noise), noise, clip.audio, np.zeros_like(noise)], 1)
    track = BoxTrack(np.append(1.0, clip.box_times + 2), np.concatenate([[[0.99, 0.2, 1.0, 0.8]], clip.boxes]))
    assert pan_correlation(voice, clip.sample_rate, track) > 0.95


def test_a_balanced_voice_is_heard_at_the_side_of_its_boxes() -> None:
    clip = sample("test", 0, seconds=6.0)
    heard, rate, track = clip.audio, clip.sample_rate, BoxTrack(clip.box_times, clip.boxes)
    mono = np.repeat(heard.mean(0, keepdims=True), 2, 0)
    for voice, one in ((heard, track.mirrored()), (mono, track)):
        assert not pan_correlation(voice, rate, one) > 0.5
        moved = balanced(voice, rate, one)
        assert pan_correlation(moved, rate, one) > 0.99 and moved.dtype == voice.dtype
        assert np.square(moved).sum() == pytest.approx(np.square(voice).sum(), rel=0.02)
        np.testing.assert_array_equal(balanced(voice, rate, replace(one, weight=0.0)), voice)
    assert not balanced(0 * heard, rate, track).any()


def test_a_track_that_stays_at_one_side_has_no_correlation() -> None:
    clip = sample("test", 0, seconds=6.0)
    still = BoxTrack(
        clip.box_times, np.linspace(0, 0.02, len(clip.boxes))[:, None] * [1, 0, 1, 0] + [0.4, 0.2, 0.5, 0.8]
    )
    assert np.isnan(pan_correlation(clip.audio, clip.sample_rate, still))


def test_the_command_finds_and_mixes_walkers(clip: Video, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sound", str(clip.path), "--detector", "motion", "--num_inference_steps", "1",
               "--output", str(tmp_path / "out")]  # fmt: skip
    assert main(command) == 0
    out = capsys.readouterr().out
    assert out.count("correlation of sides, heard and seen") == out.count("placed by gains") == 2
    assert Video.open(tmp_path / "out.mp4").seconds == pytest.approx(SECONDS, abs=0.1)
    assert main([*command, "--seconds", "1.5"]) == 0  # ends before the second begins
    said = capsys.readouterr()
    assert said.out.count("correlation of sides") == 1 and "left out 1 of 2 tracks, which begin after 1.5 s" in said.err
    assert main([*command, "--seconds", "0"]) == 2
    assert "seconds: got 0.0, before any track begins; raise it" in capsys.readouterr().err
    np.savez(tmp_path / "a.npz", times=[0.0, 1.0], boxes=[[0.1, 0.1, 0.2, 0.2]] * 2)
    assert main([*command, "--boxes", str(tmp_path / "a.npz")]) == 2
    assert "detector: got it without a video, or beside --boxes" in capsys.readouterr().err
    assert main([command[0], *command[2:]]) == 2
    capsys.readouterr()
    unheard = [*command[:2], "--no-balance", *command[4:]]
    assert main(unheard) == 2
    assert "balance: has no effect without --detector or --apart; pass one of them" in capsys.readouterr().err


@pytest.mark.filterwarnings("error::UserWarning")
def test_many_tracks_fit_into_a_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from weftwork.pipelines.audio.plots import plot_audio

    noise = np.random.default_rng(0).standard_normal((2, 32_000)).astype(np.float32) * 0.1
    assert plot_audio(noise, 16_000, [walk(None)] * 20, tmp_path / "many.png").is_file()
