"""Video files without audio, written by PyAV."""

from fractions import Fraction
from pathlib import Path
from types import ModuleType

import numpy as np
from jaxtyping import UInt8

from weftwork.datasets.readers.atomic import atomic_path
from weftwork.datasets.readers.errors import UserError, check_installed


def write_video(frames: UInt8[np.ndarray, "frame height width 3"], rate: float, path: str | Path) -> Path:
    """Write RGB frames as an MP4 without audio, atomically.

    Args:
        rate: frames per second.

    Raises:
        ValueError: sides that are odd, which H.264 cannot have.
        UserError: PyAV is not installed.
    """
    av, path = installed_av(), Path(path)
    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        raise UserError(f"frames: got {width}x{height}, expected even sides; crop a line")
    with atomic_path(path) as partial, av.open(str(partial), "w", format="mp4") as target:
        stream = target.add_stream("h264", rate=Fraction(rate).limit_denominator(1001))
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for frame in frames:
            target.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        target.mux(stream.encode(None))
    return path


def installed_av() -> ModuleType:
    """Imports PyAV; `UserError` if it is not installed."""
    check_installed("video", "av")
    import av

    return av
