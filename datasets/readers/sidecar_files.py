"""Sidecar files of videos: boxes of any detector and depth of any depth model.

    <name>.boxes.npz      times [frame], boxes [frame, 4] or [track, frame, 4]
    <name>.depth.npz      times [frame], depth [frame, height, width], metric: whether it is in metres

Times are seconds from the video's beginning, increasing. A box is left, top, right, bottom as fractions of the image,
from its top left corner, or four NaN where nothing is seen. `numpy.savez` writes such files; JSON with the same names,
in `.json`, is read too, with null for NaN.
"""

import json
from pathlib import Path
from typing import Final, NamedTuple
from zipfile import is_zipfile

import numpy as np
from jaxtyping import Bool, Float, Float32

from weftwork.datasets.readers.errors import UserError

SIDECARS: Final = (".npz", ".json")

Times = Float[np.ndarray, " frame"]
Array = Float[np.ndarray, "..."]


class BoxFrames(NamedTuple):
    """One track: times and boxes."""

    times: Times
    boxes: Float[np.ndarray, "frame 4"]


class DepthFrames(NamedTuple):
    """Depth maps, in metres if `metric`, else up to a scale and a shift."""

    times: Times
    depth: Float32[np.ndarray, "frame height width"]
    metric: bool


def beside(base: Path, kind: str) -> Path | None:
    """Returns the sidecar file of a video or audio file, of its path without suffix; `ValueError` for two."""
    found = [one for suffix in SIDECARS if (one := base.with_name(f"{base.name}.{kind}{suffix}")).is_file()]
    if len(found) > 1:
        raise UserError(f"{found[0]}: got {found[1].name} beside it, expected one of them; remove one")
    return found[0] if found else None


def read_boxes(path: Path, start: float, seconds: float) -> tuple[BoxFrames, ...]:
    """Reads the tracks that are seen in a piece of a video, with times from its beginning.

    Raises:
        ValueError: a file of another format than this module's docstring describes.
    """
    times, boxes, _ = _read(path, "boxes")
    boxes = boxes[None] if boxes.ndim == 2 else boxes
    if boxes.ndim != 3 or boxes.shape[1:] != (len(times), 4):
        raise UserError(
            f"{path}: got boxes of shape {boxes.shape} for {len(times)} times, expected [frame, 4] or [track, frame, 4]"
        )
    seen = ~np.isnan(boxes).all(-1)
    _check_boxes(path, boxes[seen])
    here = _within(times, start, seconds)
    tracks = (BoxFrames(times[now] - start, track[now]) for track, now in zip(boxes, seen & here, strict=True))
    return tuple(track for track in tracks if len(track.times))


def read_depth(path: Path, start: float, seconds: float) -> DepthFrames:
    """Reads the depth maps of a piece of a video, with times from its beginning.

    Raises:
        ValueError: a file of another format than this module's docstring describes.
    """
    times, depth, metric = _read(path, "depth", "metric")
    if depth.ndim != 3 or len(depth) != len(times):
        raise UserError(
            f"{path}: got depth of shape {depth.shape} for {len(times)} times, expected [frame, height, width]"
        )
    if not np.isfinite(depth).all() or (metric and (depth <= 0).any()):
        raise UserError(f"{path}: got depth that is not finite or, in metres, not above 0; check its sign and unit")
    here = _within(times, start, seconds)
    return DepthFrames(times[here] - start, depth[here].astype(np.float32), metric)


def read_array(path: Path) -> Array:
    """Reads a file of `numpy.save`, never pickled code; `ValueError` unless it is an array of finite numbers."""
    packed = is_zipfile(path)  # its members may be of any size
    values = None if packed else load_arrays(path)
    if (
        not isinstance(values, np.ndarray)
        or not np.issubdtype(values.dtype, np.number)
        or not np.isfinite(values).all()
    ):
        raise UserError(f"{path}: got no array of finite numbers, expected one; save it again")
    return values.astype(np.float64)


def load_arrays(path: Path) -> Array | dict[str, Array]:
    """Loads an array, or arrays by name, never pickled code; `ValueError` for a file that cannot be read."""
    if path.suffix == ".json":
        return _from_json(path)
    try:
        with path.open("rb") as file:  # NumPy leaves files open that it cannot read
            values = np.load(file, allow_pickle=False)
            return values if isinstance(values, np.ndarray) else {name: values[name] for name in values.files}
    except Exception as error:  # damaged files raise anything
        raise UserError(
            f"{path}: got a file that numpy cannot read ({error}), expected arrays; save it again"
        ) from error


def _from_json(path: Path) -> dict[str, Array]:
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
        return {name: np.asarray(value, np.float64) for name, value in values.items()}  # null becomes NaN
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: got no JSON of arrays by name ({error}), expected such; save it again") from error


def _read(path: Path, name: str, flag: str | None = None) -> tuple[Times, Array, bool]:
    arrays = load_arrays(path)
    wanted = ("times", name, *([flag] if flag else []))
    found = list(arrays) if isinstance(arrays, dict) else []
    if not set(wanted) <= set(found):
        raise UserError(f"{path}: got {', '.join(found) or 'no names'}, expected {', '.join(wanted)}; save it with all")
    try:
        times, values = (np.asarray(arrays[one], np.float64) for one in wanted[:2])
        switch = {0.0: False, 1.0: True}[float(arrays[flag])] if flag else False
    except (KeyError, TypeError, ValueError) as error:
        got = f"values that are not numbers{f', or {flag} neither true nor false' if flag else ''}"
        expected = f"numbers{f', and {flag} true or false' if flag else ''}"
        raise UserError(f"{path}: got {got} ({error}), expected {expected}; save it again") from error
    if times.ndim != 1 or not np.isfinite(times).all() or (np.diff(times) <= 0).any():
        raise UserError(f"{path}: got times that do not increase, expected seconds [frame]; sort them")
    return times, values, switch


def _check_boxes(path: Path, boxes: Float[np.ndarray, "box 4"]) -> None:
    valid = (boxes[:, :2] >= 0).all(1) & (boxes[:, 2:] <= 1).all(1) & (boxes[:, :2] < boxes[:, 2:]).all(1)
    if not valid.all():
        raise UserError(
            f"{path}: got the box {boxes[int((~valid).argmax())].tolist()}, expected 0 <= left < right <= 1 and "
            "0 <= top < bottom <= 1, or four NaN; divide pixels by width and height"
        )


def _within(times: Times, start: float, seconds: float) -> Bool[np.ndarray, " frame"]:
    return (times >= start - 1e-9) & (times < start + seconds - 1e-9)
