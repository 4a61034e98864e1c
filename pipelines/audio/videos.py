"""Video files: frames by time, tracks and depth from models, and copies with new audio (PyAV)."""

import math
import reprlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from jaxtyping import Float, UInt8

from weftwork.attention_processors.audio.conditions import BoxTrack, DepthClip, OverTime, Timed
from weftwork.datasets.readers.atomic import atomic_path
from weftwork.datasets.readers.errors import UserError
from weftwork.pipelines.core.video_files import installed_av

if TYPE_CHECKING:
    from av import VideoFrame

Frame = UInt8[np.ndarray, "height width 3"]
Detector = Callable[[Frame], Mapping[Hashable, Sequence[float]]]
"""Function from a frame to boxes by track: left, top, right, bottom in fractions of the frame."""
DepthModel = Callable[[Frame], Float[np.ndarray, "height width"]]
BOX_RATE, DEPTH_RATE = 30.0, 4.0
FORMATS = {".mp4": "mp4", ".mkv": "matroska"}
MP4_CODECS = ("h264", "hevc", "mpeg4", "av1", "vp9")
"""Codecs that players support in MP4."""


@dataclass(frozen=True)
class Video:
    """A video file that can be read to its end; frames are turned upright as players do it.

    Args:
        seconds: duration from its first frame to the end of its last.
        size: height and width of the frames.
    """

    path: Path
    seconds: float
    size: tuple[int, int]

    @property
    def codec(self) -> str:
        """Codec of the frames."""
        with installed_av().open(str(self.path)) as container:
            return container.streams.video[0].codec_context.name

    @property
    def container(self) -> str:
        """Suffix of a file for these frames and audio; `ValueError` if none can hold them, as the frames of a GIF."""
        av, suffix = installed_av(), ".mp4" if self.codec in MP4_CODECS else ".mkv"
        try:
            with av.open(str(self.path)) as source, av.open(BytesIO(), "w", format=FORMATS[suffix]) as target:
                target.add_stream_from_template(source.streams.video[0])
        except ValueError as error:
            raise UserError(
                f"{self.path}: got frames of the codec {self.codec}, which no video with audio can hold; convert it to "
                "MP4 first"
            ) from error
        return suffix

    @classmethod
    def open(cls, path: str | Path, *, longest: float = math.inf, largest: float = math.inf) -> Self:
        """Reads the times of all frames; rates may vary.

        Args:
            longest: maximum seconds to decode.
            largest: maximum pixels of all frames together to decode.

        Raises:
            ValueError: no file, no video in it, one that is too long or large, one whose frames cannot be decoded, or
                times that do not increase.
            UserError: PyAV is not installed.
        """
        path = Path(path)
        times, size, last = [], (0, 0), 0.0
        with _decoded(path) as frames:
            for time, frame in frames:
                if time > longest:
                    raise UserError(f"{path}: got a video of more than {longest:g} s, expected a shorter one; cut it")
                times.append(time)
                upright = _quarters(path, frame) % 2 == 0
                size = (frame.height, frame.width) if upright else (frame.width, frame.height)
                last = float((frame.duration or 0) * (frame.time_base or 0))
                if len(times) * frame.height * frame.width > largest:
                    raise UserError(
                        f"{path}: got a video of more than {largest / 1e6:.0f} million pixels in all its frames "
                        f"({size[1]}x{size[0]}), expected a smaller one; scale it down, or drop frames"
                    )
        if not times:
            raise UserError(f"{path}: got a video without frames, expected at least one; export it again")
        if (np.diff(times) <= 0).any():
            raise UserError(f"{path}: got frames whose times do not increase; export the video again")
        if not last:  # the container has no duration of the last frame
            last = float(np.median(np.diff(times))) if len(times) > 1 else 1 / BOX_RATE
        return cls(path, times[-1] + last, size)

    def frames(self, rate: float) -> Iterator[tuple[float, Frame]]:
        """Yields RGB frames with their times, about `rate` per second: the first after 0, 1 / rate, 2 / rate, …"""
        due = 0.0
        with _decoded(self.path) as frames:
            for time, frame in frames:
                if time >= due - 0.1 / rate:  # times in files are rounded
                    yield time, np.rot90(frame.to_ndarray(format="rgb24"), _quarters(self.path, frame))
                    due = max(due + 1 / rate, time + 0.5 / rate)

    def tracks(self, detect: Detector, rate: float = BOX_RATE) -> list[BoxTrack]:
        """Returns a detector's tracks, largest first; `ValueError` for none, or boxes inverted or beyond the frame."""
        found: dict[Hashable, list[tuple[float, Sequence[float]]]] = {}
        for time, frame in self.frames(rate):
            boxes = detect(frame)
            if not isinstance(boxes, Mapping) or any(np.shape(box) != (4,) for box in boxes.values()):
                raise UserError(
                    f"detector: got {reprlib.repr(boxes)} of a frame, expected a mapping from tracks to boxes (left, "
                    "top, right, bottom); return one"
                )
            for name, box in boxes.items():
                found.setdefault(name, []).append((time, box))
        tracks = [BoxTrack(*map(np.array, zip(*rows, strict=True))) for rows in found.values()]
        return sorted(tracks, key=lambda track: track.area, reverse=True)

    def depth(self, model: DepthModel, rate: float = DEPTH_RATE, *, metric: bool = False) -> DepthClip:
        """Returns the depth of a depth model; `ValueError` for maps that are not finite or, in metres, not above 0."""
        times, maps = zip(*((time, model(frame)) for time, frame in self.frames(rate)), strict=True)
        return DepthClip(np.array(times), np.stack(maps), metric=metric)

    def check(self, conditions: Sequence[OverTime]) -> None:
        """Raises `ValueError` unless conditions end before the video does, naming the first that does not."""
        for one in conditions:
            if isinstance(one, Timed) and one.times[-1] > self.seconds + 1e-3:
                raise UserError(
                    f"times: got a {type(one).__name__} up to {one.times[-1]:.2f} s for a video of {self.seconds:.2f} "
                    "s; cut it, or take the video it belongs to"
                )

    def with_audio(self, audio: Float[np.ndarray, "2 sample"], sample_rate: int, path: str | Path) -> Path:
        """Writes a copy with new audio, atomically, frames as they are; `ValueError` if no such file can hold them."""
        av, path = installed_av(), Path(path)
        try:
            with atomic_path(path) as partial, av.open(str(self.path)) as source, av.open(str(partial), "w") as target:
                images = source.streams.video[0]
                copied = target.add_stream_from_template(images)
                turn = next(iter(source.decode(images))).rotation
                if turn:
                    copied.set_display_rotation(turn)
                source.seek(0)
                track = target.add_stream("aac", rate=sample_rate, layout="stereo")
                for packet in source.demux(images):
                    if packet.size:  # the last one is empty, and Matroska has no decoding times of the first ones
                        packet.stream = copied
                        target.mux(packet)
                frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(audio), format="fltp", layout="stereo")
                begin = round((images.start_time or 0) * images.time_base * sample_rate)
                frame.sample_rate, frame.pts, frame.time_base = sample_rate, begin, Fraction(1, sample_rate)
                for packet in [*track.encode(frame), *track.encode(None)]:
                    target.mux(packet)
        except (av.error.FFmpegError, ValueError) as error:
            raise UserError(f"{path}: cannot be written ({error}); choose a name that ends in .mkv") from error
        return path


def _quarters(path: Path, frame: "VideoFrame") -> int:
    """Quarter turns, counterclockwise, by which players turn a frame: phones store upright clips on their side.

    Raises:
        ValueError: another angle.
    """
    if frame.rotation % 90:
        raise UserError(
            f"{path}: got frames that are turned by {frame.rotation} degrees, expected quarters; export it upright"
        )
    return frame.rotation // 90


@contextmanager
def _decoded(path: Path) -> Iterator[Iterator[tuple[float, "VideoFrame"]]]:
    """Yields an iterator over frames, with their times since the first one."""
    av = installed_av()
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise UserError(f"{path}: got a file without frames, expected a video; choose another")
            first: list[float] = []

            def timed() -> Iterator[tuple[float, "VideoFrame"]]:
                for frame in container.decode(video=0):
                    if frame.time is None:
                        raise UserError(f"{path}: got frames without times, expected a video; convert it to MP4")
                    first.append(frame.time)
                    yield frame.time - first[0], frame

            yield timed()
    except (av.error.FFmpegError, OSError) as error:
        raise UserError(
            f"{path}: got what cannot be decoded ({error}), expected a video; copy it again, or convert it to MP4"
        ) from error
