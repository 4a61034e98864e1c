"""Small videos."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np


def write_video(path: Path, times: Any, size: int = 32) -> Path:
    """A white square that moves from left to right over a black ground, a frame at each time."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width = stream.height = size
        stream.codec_context.time_base = Fraction(1, 1000)
        for time in times:
            picture = np.zeros((size, size, 3), np.uint8)
            left = int(time / times[-1] * (size - 8)) if times[-1] else 0
            picture[12:20, left : left + 8] = 255
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return path
