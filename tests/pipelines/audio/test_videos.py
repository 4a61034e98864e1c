"""Videos: frames at their own times, detectors and depth models as callables, a new sound beside the old images."""

import argparse
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

av = pytest.importorskip("av")

from PIL import Image  # noqa: E402
from remedies import Make, Row, check, row, sound, table, text  # noqa: E402
from tiny_video import write_video  # noqa: E402

from weftwork.attention_processors.audio.conditions import BoxTrack, warn_of_gaps  # noqa: E402
from weftwork.pipelines.audio.output import AudioOutput  # noqa: E402
from weftwork.pipelines.audio.plots import plot_audio  # noqa: E402
from weftwork.pipelines.audio.videos import Video  # noqa: E402
from weftwork.pipelines.core import video_files  # noqa: E402
from weftwork.scripts import sound as command  # noqa: E402

NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 16_000)).astype(np.float32)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "clip.mp4", np.arange(30) / 30)


def detect(frame: Any) -> dict[str, Any]:
    """Boxes of what is white."""
    rows, columns = np.nonzero(frame.mean(-1) > 128)
    height, width = frame.shape[:2]
    edges = columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height
    return {"square": edges}


def test_a_detector_follows_what_moves(clip: Path) -> None:
    video = Video.open(clip)
    assert video.size == (32, 32) and abs(video.seconds - 1) < 0.01
    (track,) = video.tracks(detect)
    assert len(track.times) == 30
    np.testing.assert_allclose(np.diff(track.times), 1 / 30, atol=2e-3)
    np.testing.assert_allclose(track.boxes[:, 0], track.times * 30 / 29 * 24 / 32, atol=0.08)
    few = video.tracks(detect, rate=10)[0]
    assert len(few.times) == 10


def test_a_depth_model_sees_every_so_many_frames(clip: Path) -> None:
    depth = Video.open(clip).depth(lambda frame: frame[::4, ::4, 0] / 255 + 1.0, rate=4, metric=True)
    assert depth.depth.shape == (4, 8, 8) and depth.metric
    np.testing.assert_allclose(depth.times, [0, 0.25, 0.5, 0.75], atol=0.03)


def test_frames_keep_their_own_times_where_rates_vary(tmp_path: Path) -> None:
    times = np.array([0.0, 0.1, 0.15, 0.5, 0.9])
    video = Video.open(write_video(tmp_path / "slow.mp4", times))
    np.testing.assert_allclose([time for time, _ in video.frames(30)], times, atol=2e-3)
    assert abs(video.seconds - 0.933) < 0.01  # the last one is shown for as long as the file says


def test_a_new_sound_starts_with_the_first_image(tmp_path: Path) -> None:
    late = write_video(tmp_path / "late.mkv", 1.5 + np.arange(30) / 30)
    made = Video.open(late).with_audio(np.zeros((2, 16_000), np.float32), 16_000, tmp_path / "with.mkv")
    with av.open(str(made)) as container:
        first = {frame.__class__.__name__: frame.time for frame in reversed(list(container.decode()))}
    assert abs(first["VideoFrame"] - 1.5) < 0.01 and abs(first["AudioFrame"] - 1.5) < 0.08  # AAC has a delay


def test_what_mp4_does_not_hold_goes_to_matroska(clip: Path, tmp_path: Path) -> None:
    assert Video.open(clip).container == ".mp4"
    packed = tmp_path / "clip.webm"
    with av.open(str(packed), "w") as container:
        stream = container.add_stream("libvpx", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    video = Video.open(packed)
    assert video.codec == "vp8" and video.container == ".mkv"
    made = video.with_audio(np.zeros((2, 4_800), np.float32), 16_000, tmp_path / "with.mkv")
    assert Video.open(made).size == (32, 32)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_matroska_without_decoding_times_keeps_its_first_frames(tmp_path: Path, suffix: str) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), np.uint8)
    with av.open(str(tmp_path / "clip.mkv"), "w") as container:  # H.264 with frames that are not in order
        stream = container.add_stream("h264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for one in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(one, format="rgb24")))
        container.mux(stream.encode(None))
    video = Video.open(tmp_path / "clip.mkv")
    made = video.with_audio(np.zeros((2, 4_800), np.float32), 16_000, tmp_path / f"with{suffix}")
    before, after = ([frame for _, frame in one.frames(10)] for one in (video, Video.open(made)))
    assert len(before) == 12
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_video_gets_a_new_sound(clip: Path, tmp_path: Path, suffix: str) -> None:
    tone = 0.3 * np.sin(np.arange(16_000) * 0.2)[None] * np.array([[1.0], [0.1]])
    path = Video.open(clip).with_audio(tone.astype(np.float32), 16_000, tmp_path / f"new{suffix}")
    with av.open(str(path)) as container:
        sound = np.concatenate([f.to_ndarray() for f in container.decode(audio=0)], 1)
    assert container and abs(sound.shape[1] - 16_000) < 2_100
    left, right = np.abs(sound).mean(1)
    assert abs(right / left - 0.1) < 0.03
    pictures = [[f.to_ndarray(format="rgb24") for _, f in zip(range(30), c.decode(video=0), strict=False)]
                for c in (av.open(str(clip)), av.open(str(path)))]  # fmt: skip
    np.testing.assert_array_equal(*pictures)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_bad_files_are_refused_and_leave_nothing(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "broken.mp4").write_bytes(clip.read_bytes()[:300])
    for name in ("text.mp4", "broken.mp4", "missing.mp4"):
        with pytest.raises(ValueError, match=f"{name}: got what cannot be decoded"):
            Video.open(tmp_path / name)
    video = Video.open(clip)
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(ValueError, match=r"new\.txt: cannot be written"):
        video.with_audio(np.zeros((2, 100), np.float32), 16_000, tmp_path / "new.txt")
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    with pytest.raises(ValueError, match=r"times: got a BoxTrack up to 2.00 s for a video of 1.00"):
        video.check([BoxTrack([0.0, 2.0], [[0, 0, 1, 1]] * 2)])


def test_sound_without_images_is_no_video(tmp_path: Path) -> None:
    import soundfile

    soundfile.write(tmp_path / "only.wav", np.zeros((100, 2)), 16_000)
    with pytest.raises(ValueError, match="got a file without frames"):
        Video.open(tmp_path / "only.wav")


def test_a_path_is_drawn_from_few_boxes() -> None:
    path = BoxTrack.along([0.0, 3.0], [[0, 0.2, 0.2, 0.8], [0.8, 0.2, 1, 0.8]], weight=0.5)
    boxes, seen = path.at(np.array([0.0, 1.5, 3.0]))
    assert seen.all() and path.weight == 0.5
    np.testing.assert_allclose(boxes[1], [0.4, 0.2, 0.6, 0.8])
    with pytest.raises(ValueError, match="rate: got 0"):
        BoxTrack.along([0.0], [[0, 0, 1, 1]], rate=0)


def turned(turn: int) -> Make:
    """A clip that players turn, as phones store it."""

    def make(folder: Path) -> Path:
        with av.open(str(folder / "side.mp4"), "w") as container:
            stream = container.add_stream("mpeg4", rate=10)
            stream.width, stream.height = (64, 32) if turn % 180 == 0 else (32, 64)
            stream.set_display_rotation(turn)
            for step in range(10):
                upright = np.zeros((32, 64, 3), np.uint8)
                upright[8:16, 4 + 4 * step : 12 + 4 * step] = 255
                stored = np.ascontiguousarray(np.rot90(upright, -turn // 90))
                container.mux(stream.encode(av.VideoFrame.from_ndarray(stored, format="rgb24")))
            container.mux(stream.encode(None))
        return folder / "side.mp4"

    return make


@pytest.mark.parametrize("turn", [90, 180, -90])
def test_clips_that_lie_on_their_side_are_read_upright(turn: int, tmp_path: Path) -> None:
    """As phones store them; a copy with new audio is shown as the original."""
    video = Video.open(turned(turn)(tmp_path))
    copy = Video.open(video.with_audio(np.zeros((2, 8000), np.float32), 8000, tmp_path / "copy.mp4"))
    for one in (video, copy):
        assert one.size == (32, 64)
        (track,) = one.tracks(detect)
        np.testing.assert_allclose(track.boxes[:, 1], 0.25, atol=0.04)
        np.testing.assert_allclose(track.boxes[[0, -1], 0], [4 / 64, 40 / 64], atol=0.04)


def test_frames_that_cannot_be_copied_are_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    from weftwork.scripts.cli import main

    images = [Image.new("L", (32, 32), 40 * i) for i in range(5)]
    images[0].save(tmp_path / "clip.gif", save_all=True, append_images=images[1:], duration=100)
    assert main(["sound", str(tmp_path / "clip.gif"), "--output", str(tmp_path / "out")]) == 2
    assert (
        "got frames of the codec gif, which no video with audio can hold; convert it to MP4" in capsys.readouterr().err
    )
    assert main(["sound", "--output", str(tmp_path / "out")]) == 2
    assert "sound: got nothing to follow; pass a video, --prompt or one of --boxes" in capsys.readouterr().err
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("write", [
    lambda folder: AudioOutput(NOISE, [NOISE], 16_000).save(folder / "a.wav"),
    lambda folder: plot_audio(NOISE, 16_000, [], folder / "a.png"),
], ids=["audio", "plot"])  # fmt: skip
def test_a_full_disk_is_an_error_that_names_the_file(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(OSError, match=r"a\.(wav|png): cannot be written \(File too large\); make room"):
            write(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())
    assert write(tmp_path).is_file()


def made(seconds: float = 1.0, size: int = 32) -> Make:
    return lambda folder: write_video(folder / "clip.mp4", np.arange(round(10 * seconds)) / 10, size)


def animated(folder: Path) -> Path:
    images = [Image.new("L", (32, 32), 40 * i) for i in range(5)]
    images[0].save(folder / "clip.gif", save_all=True, append_images=images[1:], duration=100)
    return folder / "clip.gif"


def backwards(folder: Path) -> Path:
    """Two frames at one time."""
    with av.open(str(folder / "clip.mkv"), "w") as container:
        stream = container.add_stream("mjpeg", rate=10, options={})
        stream.width = stream.height = 32
        stream.pix_fmt = "yuvj420p"
        for _ in range(2):
            for packet in stream.encode(av.VideoFrame(32, 32, "yuvj420p")):
                packet.pts = packet.dts = 0
                container.mux(packet)
    return folder / "clip.mkv"


EVERYWHERE = [0.0, 0.0, 1.0, 1.0]


def without_times(folder: Path) -> Path:
    with av.open(str(folder / "raw.h264"), "w") as container:
        stream = container.add_stream("h264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    return folder / "raw.h264"


def converted(folder: Path) -> Path:
    """The frames of that file, as MP4."""
    with av.open(str(folder / "raw.h264")) as container:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    return video_files.write_video(frames, 10, folder / "converted.mp4")


def without_frames(folder: Path) -> Path:
    with av.open(str(folder / "clip.avi"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        container.start_encoding()
    return folder / "clip.avi"


def followed(seconds: float) -> Make:
    track = BoxTrack([0.0, seconds], np.array([[0, 0, 1, 1]] * 2))
    return lambda folder: Video.open(made()(folder)).check([track]) or folder


def with_audio(name: str) -> Make:
    silence = np.zeros((2, 8000), np.float32)
    return lambda folder: Video.open(made()(folder)).with_audio(silence, 8000, folder / name)


def encoded(side: int) -> Make:
    return lambda folder: video_files.write_video(np.zeros((2, side, side, 3), np.uint8), 10, folder / "new.mp4")


@table(
    row(Video.open, text("x", "clip.mp4"), "expected a video; copy it again, or convert it to MP4", made()),
    row(Video.open, sound(np.zeros(99)), "got a file without frames, expected a video; choose another", made()),
    row(lambda path: Video.open(path, longest=2), made(3), "more than 2 s, expected a shorter one; cut it", made(1)),
    row(lambda path: Video.open(path, largest=8e3), made(), "scale it down", made(size=16)),
    row(lambda path: Video.open(path, largest=2e4), made(3), "or drop frames", made(1)),
    row(lambda path: Video.open(path).container, animated, "codec gif, .*; convert it to MP4 first", made()),
    row(Video.open, turned(45), "turned by 45.* degrees, expected quarters; export it upright", turned(0)),
    row(Video.open, without_frames, "a video without frames, expected at least one; export it again", made()),
    row(Video.open, without_times, "got frames without times, expected a video; convert it to MP4", converted),
    row(Video.open, backwards, "got frames whose times do not increase; export the video again", made()),
    ("up to 2.00 s for a video of 0.93 s; cut it", followed(2), followed(0.9)),
    (
        "detector: got .* of a frame, expected a mapping from tracks to boxes .*; return one",
        lambda folder: Video.open(made()(folder)).tracks(lambda _: [EVERYWHERE]),  # pyright: ignore[reportArgumentType]
        lambda folder: Video.open(folder / "clip.mp4").tracks(lambda _: {"it": EVERYWHERE}),
    ),
    ("cannot be written .*; choose a name that ends in .mkv", with_audio("a.xyz"), with_audio("a.mkv")),
    ("got 33x33, expected even sides; crop a line", encoded(33), encoded(32)),
)
def test_remedies_of_videos(row: Row, tmp_path: Path) -> None:
    check(row, tmp_path)


def test_the_remedy_of_gaps_for_the_command(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "boxes.npz"
    np.savez(path, times=np.array([0.0, 2.0]), boxes=np.array([[0.0, 0.2, 0.2, 0.9], [0.7, 0.2, 0.9, 0.9]]))
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    for options, gaps in (([], True), (["--keyframes"], False)):
        caplog.clear()
        _, tracks = command._conditions(parser.parse_args(["--boxes", str(path), *options]))
        warn_of_gaps(tracks)
        assert ("or --keyframes of weftwork sound" in caplog.text) == gaps
        boxes, seen = tracks[0].at(np.array([1.0]))
        assert seen[0] != gaps and boxes[0].tolist() == pytest.approx([0.35, 0.2, 0.55, 0.9])
