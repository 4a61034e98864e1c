"""Video files: their frames by time, what detectors and depth models say of them, and a new sound for them (PyAV)."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import numpy as np
from jaxtyping import Float, UInt8

from weftwork.attention_processors.audio.conditions import BoxTrack, DepthClip, OverTime
from weftwork.datasets.readers.atomic import atomic_path

Frame = UInt8[np.ndarray, "height width 3"]
Detector = Callable[[Frame], Mapping[Any, Sequence[float]]]
"""From a frame to boxes by track: left, top, right, bottom in fractions of the picture."""
DepthModel = Callable[[Frame], Float[np.ndarray, "height width"]]
BOX_RATE, DEPTH_RATE = 30.0, 4.0
MP4_CODECS = ("h264", "hevc", "mpeg4", "av1", "vp9")
"""Those that players expect in MP4."""


@dataclass(frozen=True)
class Video:
    """A video file that can be read to its end.

    Args:
        seconds: from its first frame to the end of its last.
        size: height and width of its frames.
    """

    path: Path
    seconds: float
    size: tuple[int, int]

    @property
    def codec(self) -> str:
        """What its frames are encoded in."""
        with _av().open(str(self.path)) as container:
            return container.streams.video[0].codec_context.name

    @property
    def container(self) -> str:
        """The suffix of a file that holds its pictures and a sound."""
        return ".mp4" if self.codec in MP4_CODECS else ".mkv"

    @classmethod
    def open(cls, path: str | Path, *, longest: float = math.inf, largest: float = math.inf) -> Self:
        """Reads the times of all frames; rates may vary.

        Args:
            longest: seconds; no more is decoded.
            largest: pixels of all frames together; no more is decoded.

        Raises:
            ValueError: no file, no video in it, one that is too long or large, one whose frames cannot be decoded, or
                times that do not increase.
            RuntimeError: PyAV is not there.
        """
        path = Path(path)
        times, size, last = [], (0, 0), 0.0
        with _decoded(path) as frames:
            for time, frame in frames:
                if time > longest:
                    raise ValueError(f"{path}: got a video of more than {longest:g} s, expected a shorter one; cut it")
                times.append(time)
                size = frame.height, frame.width
                last = float((frame.duration or 0) * frame.time_base)
                if len(times) * frame.height * frame.width > largest:
                    raise ValueError(
                        f"{path}: got a video of more than {largest / 1e6:.0f} million pixels in all its frames "
                        f"({size[1]}x{size[0]}), expected a smaller one; scale it down, or drop frames"
                    )
        if not times:
            raise ValueError(f"{path}: got a video without frames, expected at least one; export it again")
        if (np.diff(times) <= 0).any():
            raise ValueError(f"{path}: got frames whose times do not increase; export the video again")
        if not last:  # the container does not say how long it is shown
            last = float(np.median(np.diff(times))) if len(times) > 1 else 1 / BOX_RATE
        return cls(path, times[-1] + last, size)

    def frames(self, rate: float) -> Iterator[tuple[float, Frame]]:
        """The first frames from the times 0, 1 / rate, 2 / rate, … on, with their own times; RGB."""
        due = 0.0
        with _decoded(self.path) as frames:
            for time, frame in frames:
                if time >= due - 0.1 / rate:  # times in files are rounded
                    yield time, frame.to_ndarray(format="rgb24")
                    due = max(due + 1 / rate, time + 0.5 / rate)

    def tracks(self, detect: Detector, rate: float = BOX_RATE) -> list[BoxTrack]:
        """What a detector sees, by track, largest first.

        Raises:
            ValueError: boxes that are inverted or reach beyond the picture.
        """
        found: dict[Any, list[tuple[float, Sequence[float]]]] = {}
        for time, frame in self.frames(rate):
            for name, box in detect(frame).items():
                found.setdefault(name, []).append((time, box))
        tracks = [BoxTrack(*zip(*rows, strict=True)) for rows in found.values()]
        return sorted(tracks, key=lambda track: track.area, reverse=True)

    def depth(self, model: DepthModel, rate: float = DEPTH_RATE, *, metric: bool = False) -> DepthClip:
        """What a depth model sees.

        Raises:
            ValueError: maps that are not finite or, in metres, not above 0.
        """
        times, maps = zip(*((time, model(frame)) for time, frame in self.frames(rate)), strict=True)
        return DepthClip(times, np.stack(maps), metric=metric)

    def check(self, conditions: Sequence[OverTime]) -> None:
        """Raise if a condition speaks of times beyond the video.

        Raises:
            ValueError: names the first.
        """
        for one in conditions:
            if isinstance(one, BoxTrack | DepthClip) and one.times[-1] > self.seconds + 1e-3:
                raise ValueError(
                    f"times: got a {type(one).__name__} up to {one.times[-1]:.2f} s for a video of {self.seconds:.2f} "
                    "s; cut it, or take the video it belongs to"
                )

    def with_sound(self, audio: Float[np.ndarray, "2 sample"], sample_rate: int, path: str | Path) -> Path:
        """The video, its pictures copied as they are, with a new sound; whole or not at all.

        Raises:
            ValueError: a suffix that no container has, or one that cannot hold these pictures.
        """
        av, path = _av(), Path(path)
        try:
            with atomic_path(path) as partial, av.open(str(self.path)) as source, av.open(str(partial), "w") as target:
                pictures = source.streams.video[0]
                copied = target.add_stream_from_template(pictures)
                sound = target.add_stream("aac", rate=sample_rate, layout="stereo")
                for packet in source.demux(pictures):
                    if packet.dts is not None:
                        packet.stream = copied
                        target.mux(packet)
                frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(audio), format="fltp", layout="stereo")
                begin = round((pictures.start_time or 0) * pictures.time_base * sample_rate)
                frame.sample_rate, frame.pts, frame.time_base = sample_rate, begin, Fraction(1, sample_rate)
                for packet in [*sound.encode(frame), *sound.encode(None)]:
                    target.mux(packet)
        except (av.error.FFmpegError, ValueError) as error:
            raise ValueError(f"{path}: cannot be written ({error}); choose a name that ends in .mkv") from error
        return path


def write_video(frames: UInt8[np.ndarray, "frame height width 3"], rate: float, path: str | Path) -> Path:
    """RGB frames as a silent MP4; whole or not at all.

    Args:
        rate: of the frames, a second.

    Raises:
        ValueError: sides that are odd, which H.264 cannot have.
        RuntimeError: PyAV is not there.
    """
    av, path = _av(), Path(path)
    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        raise ValueError(f"frames: got {width}x{height}, expected even sides; crop a line")
    with atomic_path(path) as partial, av.open(str(partial), "w", format="mp4") as target:
        stream = target.add_stream("h264", rate=Fraction(rate).limit_denominator(1001))
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for frame in frames:
            target.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        target.mux(stream.encode(None))
    return path


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise RuntimeError("video: got no PyAV; install it with pip install av") from error
    return av


@contextmanager
def _decoded(path: Path) -> Iterator[Iterator[tuple[float, Any]]]:
    """Frames with their times from the first one on."""
    av = _av()
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{path}: got a file without pictures, expected a video; choose another")
            first: list[float] = []

            def timed() -> Iterator[tuple[float, Any]]:
                for frame in container.decode(video=0):
                    if frame.time is None:
                        raise ValueError(f"{path}: got pictures without times, expected a video; convert it to MP4")
                    first.append(frame.time)
                    yield frame.time - first[0], frame

            yield timed()
    except (av.error.FFmpegError, OSError) as error:
        raise ValueError(
            f"{path}: got what cannot be decoded ({error}), expected a video; copy it again, or convert it to MP4"
        ) from error
