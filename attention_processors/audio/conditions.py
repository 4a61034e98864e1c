"""Conditions for spatial audio: box tracks, depth, audio prompts and envelopes."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

import numpy as np
from jaxtyping import Bool, Float, Float32
from numpy.typing import ArrayLike
from scipy.ndimage import uniform_filter1d

from weftwork.attention_processors.core.condition import Condition
from weftwork.attention_processors.core.regions import on_canvas
from weftwork.datasets.readers.errors import UserError

LONGEST_GAP = 0.5
"""Longest gap in seconds over which a track is interpolated, and extended at its ends."""
PEAK = 0.5
MEAN_SECONDS, SMOOTH_SECONDS = 10_000 / 44_100, 2_000 / 44_100
"""Envelopes: length of the causal mean, and width of the low-pass after it (Stable-V2A's code)."""

FULL_SCALE = 0.999
CLIPPED_SHARE = 1e-3
"""Audio with a larger share of samples amid three at full scale counts as clipped."""
LOUDEST_SAMPLE = 8.0
"""A larger peak means that the samples are not floats in [-1, 1]."""
QUIETEST = 1e-4
"""-80 dB; a lower peak is silence."""

logger = logging.getLogger(__name__)
Times = Float[np.ndarray, " time"]
Boxes = Float[np.ndarray, "time 4"]
Samples = Float32[np.ndarray, "channel sample"]


@dataclass(frozen=True, eq=False, kw_only=True)
class OverTime(Condition):
    """Base of conditions for audio; `weight`, schedule, `layers` and `cfg` are those of `Condition`.

    Raises:
        ValueError: a region, which only images have; and as for `Condition`.
    """

    refused: ClassVar[Mapping[str, str]] = {
        "region": "got one, expected none for audio; set the condition's own times instead"
    }

    @property
    def last_time(self) -> float | None:
        """Time in seconds where the condition ends; None without times."""
        return None

    def between(self, first: float, last: float) -> Self | None:
        """Returns the condition from one second to another, with times from `first`; None if it has nothing there."""
        return self


@dataclass(frozen=True, eq=False)
class Timed(OverTime):
    """Base of conditions with one row of numbers per time; `ValueError` unless times are finite and increase from 0."""

    times: Times

    def __post_init__(self) -> None:
        super().__post_init__()
        times = np.asarray(self.times, np.float64)
        if times.ndim != 1 or not len(times):
            raise UserError(f"times: got shape {times.shape}, expected [time] with at least one")
        if not np.isfinite(times).all() or times[0] < 0 or (np.diff(times) <= 0).any():
            where = int(np.concatenate([[not times[0] >= 0], ~(np.diff(times) > 0)]).argmax())
            where = int((~np.isfinite(times)).argmax()) if not np.isfinite(times).all() else where
            raise UserError(
                f"times: got {times[where]} at place {where}, expected seconds of at least 0 that increase; sort them, "
                "and drop invalid ones"
            )
        object.__setattr__(self, "times", times)

    @property
    def last_time(self) -> float:
        return float(self.times[-1])

    def between(self, first: float, last: float) -> Self | None:
        kept = (self.times >= first) & (self.times <= last)
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        rows: dict[str, Any] = {name: rows[kept] for name, rows in values.items() if isinstance(rows, np.ndarray)}
        return replace(self, **rows | {"times": rows["times"] - first}) if kept.any() else None


@dataclass(frozen=True, eq=False)
class BoxTrack(Timed):
    """Bounding boxes of one object in the video, over time.

    Args:
        times: in seconds from the start of the clip, increasing.
        boxes: left, top, right, bottom in fractions of the image, one row per time. Between times that are at most half
            a second apart boxes are interpolated; in longer gaps the object is not seen.

    Raises:
        ValueError: times that do not increase, another number of boxes than times, or boxes that are inverted or reach
            beyond the image.
    """

    boxes: Boxes

    def __post_init__(self) -> None:
        super().__post_init__()
        times, boxes = self.times, on_canvas(self.boxes)
        if boxes.shape != (len(times), 4):
            raise UserError(
                f"boxes: got shape {boxes.shape} for {len(times)} times, expected ({len(times)}, 4): left, top, right, "
                "bottom at each time"
            )
        valid = (boxes[:, :2] >= 0).all(1) & (boxes[:, 2:] <= 1).all(1) & (boxes[:, :2] < boxes[:, 2:]).all(1)
        if not valid.all():
            where = int((~valid).argmax())
            raise UserError(
                f"boxes: got {boxes[where].tolist()} at {times[where]:.3f} s, expected 0 <= left < right <= 1 and "
                "0 <= top < bottom <= 1 (fractions of the image); divide pixels by width and height"
            )
        object.__setattr__(self, "boxes", boxes)

    @property
    def longest_gap(self) -> float:
        """Seconds between the two times that are farthest apart, above `LONGEST_GAP` with the object not seen."""
        return float(np.diff(self.times).max(initial=0.0))

    @classmethod
    def along(cls, times: ArrayLike, boxes: ArrayLike, *, rate: float = 30.0, **options: Any) -> Self:
        """Makes a track by interpolation between boxes, however far apart in time; `ValueError` as `BoxTrack`."""
        if not rate > 0:
            raise UserError(f"rate: got {rate}, expected boxes per second, above 0")
        drawn = cls(np.asarray(times), np.asarray(boxes), **options)
        every = np.append(np.arange(drawn.times[0], drawn.times[-1], 1 / rate), drawn.times[-1])
        every = every[np.append(np.diff(every) > 1e-9, True)]
        return replace(
            drawn, times=every, boxes=np.stack([np.interp(every, drawn.times, s) for s in drawn.boxes.T], -1)
        )

    def at(self, times: Times) -> tuple[Boxes, Bool[np.ndarray, " time"]]:
        """Returns boxes at any times, and a mask of times at which the object is seen (other boxes: undefined)."""
        boxes = np.stack([np.interp(times, self.times, side) for side in self.boxes.T], -1)
        before, after = np.searchsorted(self.times, times, "right") - 1, np.searchsorted(self.times, times, "left")
        known = np.concatenate([self.times, [0.0]])
        earlier = np.where(before < 0, times, known[before])
        later = np.where(after == len(self.times), times, known[after])
        return boxes, later - earlier <= LONGEST_GAP

    @property
    def area(self) -> float:
        """Mean share of the image."""
        left, top, right, bottom = self.boxes.T
        return float(((right - left) * (bottom - top)).mean())

    def mirrored(self) -> Self:
        """Returns a copy with left and right exchanged."""
        left, top, right, bottom = self.boxes.T
        return replace(self, boxes=np.stack([1 - right, top, 1 - left, bottom], -1))


@dataclass(frozen=True, eq=False)
class DepthClip(Timed):
    """Depth maps of the video, or their embeddings, over time.

    Args:
        times: of the frames, in seconds from the start of the clip, increasing.
        depth: maps [time, height, width], in metres if `metric`, else up to a factor and an offset of the clip.
        embeds: an image encoder's embedding of each map, [time, dim], instead of maps.
        metric: whether `depth` is in metres.

    Raises:
        ValueError: neither or both of depth and embeds, a number of them that differs from the times, numbers that are
            not finite, or metric depth that is not above 0.
    """

    depth: Float32[np.ndarray, "time height width"] | None = None
    embeds: Float32[np.ndarray, "time dim"] | None = None
    metric: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.depth is None) == (self.embeds is None):
            raise UserError("depth, embeds: got neither or both; pass the maps or their embeddings")
        name, dims = ("depth", 3) if self.embeds is None else ("embeds", 2)
        values = np.asarray(getattr(self, name), np.float32)
        if values.ndim != dims or len(values) != len(self.times):
            raise UserError(
                f"{name}: got shape {values.shape} for {len(self.times)} times, expected {dims} dimensions with "
                f"{len(self.times)} first"
            )
        if not np.isfinite(values).all() or (name == "depth" and self.metric and values.min() <= 0):
            raise UserError(f"{name}: got numbers that are not finite or, in metres, not above 0; correct the maps")
        object.__setattr__(self, name, values)

    def mirrored(self) -> Self:
        """Returns a copy with left and right exchanged; `ValueError` if the clip has embeddings only."""
        if self.depth is None:
            raise UserError("depth: got embeddings, which cannot be mirrored; pass maps")
        return replace(self, depth=self.depth[..., ::-1].copy())


@dataclass(frozen=True, eq=False)
class AudioPrompt(OverTime):
    """Reference audio, or its embedding.

    Args:
        embeds: embedding of an audio encoder (CLAP), [dim].
        audio: reference audio instead, [channel, sample] in [-1, 1].
        sample_rate: of `audio`, in Hz.

    Raises:
        ValueError: neither or both of embeds and audio, a wrong shape, silence, or a rate that is not above 0.
    """

    embeds: Float32[np.ndarray, " dim"] | None = None
    audio: Samples | None = None
    sample_rate: int = 44_100

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.embeds is None) == (self.audio is None):
            raise UserError("embeds, audio: got neither or both; pass audio or its embedding")
        if self.audio is not None:
            object.__setattr__(self, "audio", checked_audio(self.audio, self.sample_rate))
            return
        embeds = np.asarray(self.embeds, np.float32)
        if embeds.ndim != 1 or not np.isfinite(embeds).all():
            raise UserError(f"embeds: got shape {embeds.shape}, expected [dim], all finite; pass one vector")
        object.__setattr__(self, "embeds", embeds)


@dataclass(frozen=True, eq=False)
class Envelope(OverTime):
    """Loudness over time, relative to the loudest moment.

    Args:
        values: amplitudes of at least 0, [time], or [2, time] for left and right, which then set the panning.
        rate: of the values, in Hz.

    Raises:
        ValueError: a wrong shape, negative numbers or ones that are not finite, or a rate that is not above 0.
    """

    values: Float32[np.ndarray, "*side time"]
    rate: float

    def __post_init__(self) -> None:
        super().__post_init__()
        values = np.atleast_2d(np.asarray(self.values, np.float32))
        if values.ndim != 2 or values.shape[0] not in (1, 2) or not values.shape[1]:
            raise UserError(f"values: got shape {values.shape}, expected [time] or [2, time]")
        if not np.isfinite(values).all() or values.min() < 0 or not self.rate > 0:
            raise UserError("values, rate: got numbers that are negative or not finite; pass amplitudes and Hz")
        object.__setattr__(self, "values", values)

    @property
    def last_time(self) -> float:
        return self.values.shape[1] / self.rate

    def between(self, first: float, last: float) -> Self | None:
        values = self.values[:, round(first * self.rate) : round(last * self.rate)]
        return replace(self, values=values) if values.size else None

    @classmethod
    def from_audio(cls, audio: ArrayLike, sample_rate: int, *, stereo: bool = False, **options: Any) -> Self:
        """Computes the envelope of audio: root of a causal mean of squares, smoothed.

        Args:
            audio: [channel, sample] in [-1, 1].
            stereo: keep left and right apart, which keeps the panning; by default both get their common energy.

        Raises:
            ValueError: as for `AudioPrompt`.
        """
        squares = checked_audio(audio, sample_rate, silent=True) ** 2
        if squares.max() < QUIETEST**2:
            logger.warning("audio: got silence for an envelope, which is 0 everywhere; pass audible audio")
            squares = np.zeros_like(squares)
        if not stereo:
            squares = squares.mean(0, keepdims=True)
        width, smooth = (max(1, round(seconds * sample_rate)) for seconds in (MEAN_SECONDS, SMOOTH_SECONDS))
        padded = np.pad(squares.astype(np.float64), ((0, 0), (width, 0))).cumsum(-1)
        means = np.maximum(padded[:, width:] - padded[:, :-width], 0) / width
        smoothed = uniform_filter1d(np.sqrt(means), smooth, mode="constant")  # its running sum rounds below 0
        return cls(np.maximum(smoothed, 0).astype(np.float32), sample_rate, **options)

    def signal(self, samples: int, sample_rate: int, start: float = 0.0) -> Float[np.ndarray, "2 sample"]:
        """Samples the envelope at a rate from a second on, scaled to a maximum of `PEAK`; 0 beyond its end."""
        times = start + np.arange(samples) / sample_rate
        rows = self.values if len(self.values) == 2 else self.values.repeat(2, 0)
        own = np.arange(rows.shape[1] + 1) / self.rate  # the last value holds for one more period
        held = np.concatenate([rows, rows[:, -1:]], 1) * (PEAK / max(float(rows.max()), 1e-12))
        return np.stack([np.interp(times, own, row, left=0.0, right=0.0) for row in held]).astype(np.float32)


def warn_of_gaps(conditions: Sequence[OverTime]) -> None:
    """Logs a warning for tracks whose times are too far apart to be interpolated."""
    longest = max((one.longest_gap for one in conditions if isinstance(one, BoxTrack)), default=0.0)
    if longest > LONGEST_GAP:
        logger.warning(
            "boxes: got a gap of %.2f s between times, in which the object is not seen (above %.1f s); "
            "interpolate between keyframes by BoxTrack.along, or --keyframes of weftwork sound",
            longest,
            LONGEST_GAP,
        )


def checked_audio(given: ArrayLike, sample_rate: int, *, silent: bool = False) -> Samples:
    """Returns audio as floats.

    Raises:
        ValueError: a shape other than [channel, sample], numbers that are not finite or not floats, silence unless it
            is allowed, or a rate that is not above 0.

    Logs a warning if the audio is clipped.
    """
    audio = np.asarray(given, np.float32)
    if not audio.size:
        raise UserError(f"audio: got no samples in shape {audio.shape}, expected some; check where it comes from")
    if audio.ndim != 2 or audio.shape[0] > 8:
        raise UserError(f"audio: got shape {audio.shape}, expected [channel, sample]; transpose it or add a dimension")
    if not np.isfinite(audio).all() or not sample_rate > 0:
        raise UserError(f"audio: got numbers that are not finite, or a rate of {sample_rate} Hz; correct the audio")
    if not silent and not audio.any():
        raise UserError("audio: got silence, expected audible samples; pass other audio, or leave it out")
    peak = float(np.abs(audio).max())
    if peak > LOUDEST_SAMPLE:
        raise UserError(
            f"audio: got samples up to {peak:g}, expected floats in [-1, 1]; divide integers by their range"
        )
    full = np.abs(audio) >= max(FULL_SCALE, FULL_SCALE * peak)
    cut = (full[:, 2:] & full[:, 1:-1] & full[:, :-2]).sum() / audio.size
    if cut > CLIPPED_SHARE:
        logger.warning(
            "audio: got audio that is clipped in %.1f %% of its samples; record it at a lower level", 100 * cut
        )
    return audio
