"""How well stereo sound follows what is seen: side, distance and time of its events, over many clips together.

Scores are pooled over the events of all clips, since one clip has about four. A step at which nothing is heard counts
as heard in the middle where sides are scored, and not at all for loudness and delays; when less than half of the steps
are heard, all these are NaN, as is every score that the data cannot give. A correlation with what does not vary is 0.

Source: Spatial AV-Align is the rule of SAVGBench, with the pan of onsets in place of a trained detector of events.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from jaxtyping import Bool, Float

from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.synthetic.walks.sounds import channel_gains, ear_delay
from weftwork.pipelines.audio.events import (
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
"""Seconds by which an onset may miss a step and still be it."""
STILL: Final = 0.05
"""Clips whose pans have a smaller standard deviation count for no correlation of pans."""
LEAST_HEARD: Final = 0.5
PICTURE: Final = 256
"""Width in pixels, in which the tolerances of Spatial AV-Align are given."""
LOOKS_PER_SECOND: Final = 4.0
"""Spatial AV-Align looks at boxes at this rate: at the moment nearest to an onset, and one before and after."""


class Truth(Protocol):
    """What is known of a clip; a `WalkSample` is one. Times are in seconds, boxes are fractions of the picture."""

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
class SoundScores:
    """Args:
    heard: the part of the steps at which something is heard.
    pan_correlation: of the pan heard at steps with the true one, over clips whose walker moves sideways.
    pan_motion: the same after the mean of each clip is taken off: what is right within clips.
    pan_error: mean of |pan - true pan|.
    ild_correlation: of the level of the right ear over the left in dB, with its truth, over the same clips.
    itd_error: mean error of the delay between the ears, in microseconds.
    distance_correlation, distance_slope: of loudness in dB over -20 log10(distance); both are 1 at best.
    onset_f1: of onsets within 50 ms of steps, one for one.
    onset_error: by how many milliseconds these miss.
    envelope_l1: mean of |envelope - true envelope|.
    envelope_correlation: mean over clips.
    av_align_20, av_align_40: the part of the onsets whose side is within so many pixels of 256 of a box.
    mirror: see `mirror`; NaN without sounds of mirrored clips.
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


def score_sounds(
    sounds: Sequence[Audio], truths: Sequence[Truth], *, mirrored: Sequence[Audio] | None = None
) -> SoundScores:
    """Scores of generated sounds.

    Args:
        sounds: [2, samples] each, one for each truth and as long as its audio, at its rate; never scaled one by one.
        mirrored: the sounds of the same clips with left and right exchanged in what is seen.

    Raises:
        ValueError: not as many sounds as truths, none at all, sounds of other lengths, or with NaN.
    """
    heard = _hear(sounds, truths)
    at = [onsets(sound, truth.sample_rate) for sound, truth in zip(sounds, truths, strict=True)]
    share = _heard_share(heard)
    enough = 1.0 if share >= LEAST_HEARD else float("nan")
    at_steps = {**_side_scores(heard, truths), **_distance_scores(heard, truths)}
    return SoundScores(
        heard=share,
        **{name: enough * value for name, value in at_steps.items()},
        **_onset_scores(at, truths),
        **_envelope_scores(sounds, truths),
        **{f"av_align_{pixels}": av_align(sounds, truths, pixels) for pixels in (20, 40)},
        mirror=float("nan") if mirrored is None else mirror(sounds, mirrored, truths),
    )


def mirror(sounds: Sequence[Audio], mirrored: Sequence[Audio], truths: Sequence[Truth]) -> float:
    """How far sounds follow when left and right are exchanged in what is seen: 1 wholly, -1 if they stay the same.

    Minus the correlation of the level differences between the ears, in dB, at the same steps of both sounds.

    Raises:
        ValueError: as `score_sounds`.
    """
    both = [_hear(sounds, truths), _hear(mirrored, truths)]
    if not min(map(_heard_share, both)) >= LEAST_HEARD:
        return float("nan")
    one, other = (_middle(_joined(heard.ild for heard in side)) for side in both)
    return float("nan") if one.std() < 1e-9 else 0.0 - correlation(other, one)


def signal_to_noise(sounds: Sequence[Audio], truths: Sequence[Audio]) -> float:
    """Power of the true waveform over that of what differs from it, in dB, as the mean over clips; below 0 for sounds
    that are as noisy and as loud as they should be, but other noise."""
    ratios = [
        np.square(true).sum() / np.square(sound[:, : true.shape[1]] - true).sum()
        for sound, true in zip(sounds, truths, strict=True)
    ]
    return float(np.mean(10 * np.log10(np.maximum(ratios, 1e-12))))


def level_change(sounds: Sequence[Audio], farther: Sequence[Audio], truths: Sequence[Truth]) -> float:
    """By how many dB the steps of other sounds of the same clips are louder; -6.02 at best when all is twice as far.

    The mean over steps heard in both; NaN when these are less than half.

    Raises:
        ValueError: as `score_sounds`.
    """
    before, after = (_joined(heard.level for heard in _hear(side, truths)) for side in (sounds, farther))
    change = after - before
    known = np.isfinite(change)
    return float(change[known].mean()) if known.size and known.mean() >= LEAST_HEARD else float("nan")


def av_align(sounds: Sequence[Audio], truths: Sequence[Truth], pixels: float) -> float:
    """The part of the onsets whose side, give or take so many pixels of 256, meets a box. NaN without any onset.

    It is a recall of what is seen: it asks neither that steps are heard, nor when. A sound in the middle meets most
    walkers when the tolerance is large, so that its score belongs beside each.
    """
    hits: list[bool] = []
    for sound, truth in zip(sounds, truths, strict=True):
        times = onsets(sound, truth.sample_rate)
        for time, pan in zip(times, hear(sound, truth.sample_rate, times).pan, strict=True):
            if np.isfinite(pan):
                hits.append(_meets(truth, time, (pan + 1) / 2, pixels / PICTURE))
    return float(np.mean(hits)) if hits else float("nan")


def match_onsets(found: Events, true: Events, near: float = NEAR) -> list[tuple[int, int]]:
    """Pairs of indices, the nearest in time first, each used once, none farther apart than `near` seconds."""
    gaps = np.abs(np.subtract.outer(found, true))
    pairs: list[tuple[int, int]] = []
    for flat in np.argsort(gaps, axis=None, kind="stable"):
        i, j = divmod(int(flat), len(true))
        if gaps[i, j] <= near and all(i != a and j != b for a, b in pairs):
            pairs.append((i, j))
    return pairs


def correlation(estimate: Events, truth: Events) -> float:
    """Pearson's, 0 for an estimate that does not vary; NaN for a truth that does not, or fewer than three pairs."""
    if len(truth) < 3 or truth.std() < 1e-9:
        return float("nan")
    return 0.0 if estimate.std() < 1e-9 else float(np.corrcoef(estimate, truth)[0, 1])


# -- scores at the steps ---------------------------------------------------------------------------------------


def _hear(sounds: Sequence[Audio], truths: Sequence[Truth]) -> list[Heard]:
    if len(sounds) != len(truths) or not len(truths):
        raise UserError(f"sounds: got {len(sounds)} for {len(truths)} truths, expected one each; pass as many, not 0")
    for i, (sound, truth) in enumerate(zip(sounds, truths, strict=True)):
        got, expected = check_audio(sound, f"sounds[{i}]").shape[1], truth.audio.shape[1]
        if got != expected:
            raise UserError(
                f"sounds[{i}]: got {got} samples, expected the {expected} of its truth; cut or pad it, at its rate"
            )
    return [hear(sound, truth.sample_rate, truth.steps) for sound, truth in zip(sounds, truths, strict=True)]


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


def _envelope_scores(sounds: Sequence[Audio], truths: Sequence[Truth]) -> dict[str, float]:
    pairs = [
        (envelope(sound, truth.sample_rate), envelope(truth.audio, truth.sample_rate))
        for sound, truth in zip(sounds, truths, strict=True)
    ]
    alike = np.array([correlation(*pair) for pair in pairs])
    return {
        "envelope_l1": _mean(_joined(np.abs(one - true) for one, true in pairs)),
        "envelope_correlation": _mean(alike[np.isfinite(alike)]),
    }


def _meets(truth: Truth, time: float, place: float, tolerance: float) -> bool:
    looks = (np.round(time * LOOKS_PER_SECOND) + np.arange(-1, 2)) / LOOKS_PER_SECOND
    rows = np.abs(np.subtract.outer(looks, truth.box_times)).argmin(1)
    left, right = truth.boxes[rows, 0], truth.boxes[rows, 2]
    return bool(((place + tolerance >= left) & (place - tolerance <= right)).any())


# -- arrays ----------------------------------------------------------------------------------------------------


def _joined(arrays: Iterable[Events]) -> Events:
    return np.concatenate([np.zeros(0), *arrays])


def _middle(values: Events) -> Events:
    """What is not heard, as if in the middle."""
    return np.where(np.isfinite(values), values, 0.0)


def _moving(pans: Sequence[Events]) -> Bool[np.ndarray, " event"]:
    return _joined(np.full(len(pan), pan.size > 0 and pan.std() >= STILL) for pan in pans) > 0


def _mean(values: Events) -> float:
    return float(values.mean()) if values.size else float("nan")
