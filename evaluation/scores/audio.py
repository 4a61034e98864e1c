"""Scores of stereo audio against video: side, distance and time of events, pooled over clips.

Scores are pooled over the events of all clips, since one clip has about four. A step that is not audible counts as
centred in scores of sides, and is ignored in scores of loudness and delay; these scores are NaN if less than half of
the steps are audible, as is every score that the data do not define. The correlation of a constant estimate is 0.

Source: Spatial AV-Align follows SAVGBench, with the pan of onsets instead of a trained event detector.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from jaxtyping import Bool, Float

from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.synthetic.walks.sounds import channel_gains, ear_delay
from weftwork.pipelines.audio.events import (
    STILL,
    Audio,
    Events,
    Heard,
    check_audio,
    envelope,
    hear,
    level_difference,
    onsets,
)

NEAR: Final = 0.050
"""Tolerance in seconds between an onset and its step."""
LEAST_HEARD: Final = 0.5
IMAGE_WIDTH: Final = 256
"""Image width in pixels to which the tolerances of Spatial AV-Align refer."""
FRAME_RATE: Final = 4.0
"""Frames per second of Spatial AV-Align, which uses the frame nearest to an onset, the one before and after."""


class Truth(Protocol):
    """Ground truth of a clip, for example a `WalkSample`. Times are in seconds, boxes in fractions of the image."""

    @property
    def audio(self) -> Audio: ...
    @property
    def sample_rate(self) -> int: ...
    @property
    def steps(self) -> Events: ...
    @property
    def pan(self) -> Events: ...
    @property
    def distance(self) -> Events: ...
    @property
    def box_times(self) -> Float[np.ndarray, " frame"]: ...
    @property
    def boxes(self) -> Float[np.ndarray, "frame 4"]: ...


@dataclass(frozen=True)
class AudioScores:
    """Scores of generated audio.

    Args:
        heard: fraction of steps that are audible.
        pan_correlation: correlation of the pan at steps with the true one, over clips whose walker moves sideways.
        pan_motion: the same after subtracting the mean of each clip.
        pan_error: mean of |pan - true pan|.
        ild_correlation: correlation of the interaural level difference (right over left, dB), over the same clips.
        itd_error: mean error of the interaural time difference, in microseconds.
        distance_correlation, distance_slope: of loudness in dB over -20 log10(distance); both are 1 at best.
        onset_f1: F1 of onsets matched one to one with steps, within 50 ms.
        onset_error: mean error of the matched onsets, in milliseconds.
        envelope_l1: mean of |envelope - true envelope|.
        envelope_correlation: mean over clips.
        av_align_20, av_align_40: fraction of onsets whose side is within 20 or 40 pixels (of 256) of a box.
        mirror: see `mirror`; NaN without audio of mirrored clips.
    """

    heard: float
    pan_correlation: float
    pan_motion: float
    pan_error: float
    ild_correlation: float
    itd_error: float
    distance_correlation: float
    distance_slope: float
    onset_f1: float
    onset_error: float
    envelope_l1: float
    envelope_correlation: float
    av_align_20: float
    av_align_40: float
    mirror: float


def score_audio(
    audio: Sequence[Audio], truths: Sequence[Truth], *, mirrored: Sequence[Audio] | None = None
) -> AudioScores:
    """Scores generated audio.

    Args:
        audio: [2, samples] per truth, of its length and sample rate; not normalised per clip.
        mirrored: audio of the same clips with left and right exchanged in the video.

    Raises:
        ValueError: the numbers of clips and truths differ or are 0, lengths differ, or samples are not finite.
    """
    heard = _hear(audio, truths)
    at = [onsets(clip, truth.sample_rate) for clip, truth in zip(audio, truths, strict=True)]
    share = _heard_share(heard)
    enough = 1.0 if share >= LEAST_HEARD else float("nan")
    at_steps = {**_side_scores(heard, truths), **_distance_scores(heard, truths)}
    return AudioScores(
        heard=share,
        **{name: enough * value for name, value in at_steps.items()},
        **_onset_scores(at, truths),
        **_envelope_scores(audio, truths),
        **{f"av_align_{pixels}": av_align(audio, truths, pixels) for pixels in (20, 40)},
        mirror=float("nan") if mirrored is None else mirror(audio, mirrored, truths),
    )


def mirror(audio: Sequence[Audio], mirrored: Sequence[Audio], truths: Sequence[Truth]) -> float:
    """Response of audio to mirrored video: 1 if the sides are exchanged, -1 if they stay the same.

    This is the negative correlation of the interaural level differences, in dB, at the same steps of both; `ValueError`
    as `score_audio`.
    """
    both = [_hear(audio, truths), _hear(mirrored, truths)]
    if not min(map(_heard_share, both)) >= LEAST_HEARD:
        return float("nan")
    one, other = (_middle(_joined(heard.ild for heard in side)) for side in both)
    return float("nan") if one.std() < 1e-9 else 0.0 - correlation(other, one)


def signal_to_noise(audio: Sequence[Audio], truths: Sequence[Audio]) -> float:
    """Signal-to-noise ratio in dB, averaged over clips; below 0 for noise of the right loudness but other samples."""
    ratios = [
        np.square(true).sum() / np.square(clip[:, : true.shape[1]] - true).sum()
        for clip, true in zip(audio, truths, strict=True)
    ]
    return float(np.mean(10 * np.log10(np.maximum(ratios, 1e-12))))


def level_change(audio: Sequence[Audio], farther: Sequence[Audio], truths: Sequence[Truth]) -> float:
    """Mean change of the level of steps in dB, from `audio` to `farther`; ideally -6.02 at twice the distance.

    Averaged over steps audible in both; NaN if these are less than half; `ValueError` as `score_audio`.
    """
    before, after = (_joined(heard.level for heard in _hear(side, truths)) for side in (audio, farther))
    change = after - before
    known = np.isfinite(change)
    return float(change[known].mean()) if known.size and known.mean() >= LEAST_HEARD else float("nan")


def av_align(audio: Sequence[Audio], truths: Sequence[Truth], pixels: float) -> float:
    """Fraction of onsets whose side is within `pixels` (of 256) of a box; NaN without any onset.

    It requires neither audible steps nor their times. Centred audio meets most walkers if the tolerance is large, so
    compare with the score of a mono baseline.
    """
    hits: list[bool] = []
    for clip, truth in zip(audio, truths, strict=True):
        times = onsets(clip, truth.sample_rate)
        for time, pan in zip(times, hear(clip, truth.sample_rate, times).pan, strict=True):
            if np.isfinite(pan):
                hits.append(_meets(truth, time, (pan + 1) / 2, pixels / IMAGE_WIDTH))
    return float(np.mean(hits)) if hits else float("nan")


def match_onsets(found: Events, true: Events, near: float = NEAR) -> list[tuple[int, int]]:
    """Matches onsets greedily by distance in time, each once, within `near` seconds; returns pairs of indices."""
    gaps = np.abs(np.subtract.outer(found, true))
    pairs: list[tuple[int, int]] = []
    for flat in np.argsort(gaps, axis=None, kind="stable"):
        i, j = divmod(int(flat), len(true))
        if gaps[i, j] <= near and all(i != a and j != b for a, b in pairs):
            pairs.append((i, j))
    return pairs


def correlation(estimate: Events, truth: Events) -> float:
    """Pearson correlation; 0 for a constant estimate, NaN for a constant truth or fewer than three pairs."""
    if len(truth) < 3 or truth.std() < 1e-9:
        return float("nan")
    return 0.0 if estimate.std() < 1e-9 else float(np.corrcoef(estimate, truth)[0, 1])


# -- scores at the steps ---------------------------------------------------------------------------------------


def _hear(audio: Sequence[Audio], truths: Sequence[Truth]) -> list[Heard]:
    if len(audio) != len(truths) or not len(truths):
        raise UserError(
            f"audio: got {len(audio)} for {len(truths)} truths, expected one each and at least one; pass as many"
        )
    for i, (clip, truth) in enumerate(zip(audio, truths, strict=True)):
        got, expected = check_audio(clip, f"audio[{i}]").shape[1], truth.audio.shape[1]
        if got != expected:
            raise UserError(
                f"audio[{i}]: got {got} samples, expected {expected} as in its truth; cut or pad it, at its rate"
            )
    return [hear(clip, truth.sample_rate, truth.steps) for clip, truth in zip(audio, truths, strict=True)]


def _heard_share(heard: Sequence[Heard]) -> float:
    levels = _joined(one.level for one in heard)
    return float(np.isfinite(levels).mean()) if levels.size else float("nan")


def _side_scores(heard: Sequence[Heard], truths: Sequence[Truth]) -> dict[str, float]:
    pans, true_pans = [_middle(one.pan) for one in heard], [truth.pan for truth in truths]
    pan, true_pan = _joined(pans), _joined(true_pans)
    moving = _moving(true_pans)
    motion, true_motion = (_joined(p - p.mean() for p in side if p.size) for side in (pans, true_pans))
    ild, true_ild = _middle(_joined(one.ild for one in heard)), level_difference(channel_gains(true_pan) ** 2)
    itd_errors = np.abs(_joined(one.itd for one in heard) - ear_delay(true_pan))
    return {
        "pan_correlation": correlation(pan[moving], true_pan[moving]),
        "pan_motion": correlation(motion[moving], true_motion[moving]),
        "pan_error": _mean(np.abs(pan - true_pan)),
        "ild_correlation": correlation(ild[moving], true_ild[moving]),
        "itd_error": 1e6 * _mean(itd_errors[np.isfinite(itd_errors)]),
    }


def _distance_scores(heard: Sequence[Heard], truths: Sequence[Truth]) -> dict[str, float]:
    level, near = _joined(one.level for one in heard), -20 * np.log10(_joined(truth.distance for truth in truths))
    known = np.isfinite(level)
    level, near = level[known], near[known]
    alike = correlation(level, near)
    slope = alike * level.std() / near.std() if np.isfinite(alike) else float("nan")
    return {"distance_correlation": alike, "distance_slope": float(slope)}


# -- scores of whole clips -------------------------------------------------------------------------------------


def _onset_scores(found: Sequence[Events], truths: Sequence[Truth]) -> dict[str, float]:
    missed: list[float] = []
    for times, truth in zip(found, truths, strict=True):
        missed += [abs(times[i] - truth.steps[j]) for i, j in match_onsets(times, truth.steps)]
    events = sum(map(len, found)) + sum(len(truth.steps) for truth in truths)
    f1 = 2 * len(missed) / events if events else float("nan")
    return {"onset_f1": f1, "onset_error": 1e3 * _mean(np.array(missed))}


def _envelope_scores(audio: Sequence[Audio], truths: Sequence[Truth]) -> dict[str, float]:
    pairs = [
        (envelope(clip, truth.sample_rate), envelope(truth.audio, truth.sample_rate))
        for clip, truth in zip(audio, truths, strict=True)
    ]
    alike = np.array([correlation(*pair) for pair in pairs])
    return {
        "envelope_l1": _mean(_joined(np.abs(one - true) for one, true in pairs)),
        "envelope_correlation": _mean(alike[np.isfinite(alike)]),
    }


def _meets(truth: Truth, time: float, place: float, tolerance: float) -> bool:
    times = (np.round(time * FRAME_RATE) + np.arange(-1, 2)) / FRAME_RATE
    rows = np.abs(np.subtract.outer(times, truth.box_times)).argmin(1)
    left, right = truth.boxes[rows, 0], truth.boxes[rows, 2]
    return bool(((place + tolerance >= left) & (place - tolerance <= right)).any())


# -- arrays ----------------------------------------------------------------------------------------------------


def _joined(arrays: Iterable[Events]) -> Events:
    return np.concatenate([np.zeros(0), *arrays])


def _middle(values: Events) -> Events:
    """Replaces inaudible steps (NaN) by the centre, 0."""
    return np.where(np.isfinite(values), values, 0.0)


def _moving(pans: Sequence[Events]) -> Bool[np.ndarray, " event"]:
    return _joined(np.full(len(pan), pan.size > 0 and pan.std() >= STILL) for pan in pans) > 0


def _mean(values: Events) -> float:
    return float(values.mean()) if values.size else float("nan")
