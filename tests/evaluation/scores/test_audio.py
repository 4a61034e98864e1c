"""Audio scores: each drops for its own property and for no other, and silence scores nothing."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from weftwork.datasets.synthetic.walks import WalkSample, mirrored, render, sample, sound
from weftwork.datasets.synthetic.walks.sounds import NOISE, ear_delay
from weftwork.evaluation.scores.audio import (
    AudioScores,
    av_align,
    correlation,
    level_change,
    mirror,
    score_audio,
    signal_to_noise,
)
from weftwork.pipelines.audio.events import (
    pan_curve,
)

Array = np.ndarray[Any, np.dtype[Any]]
RATE = 16_000
COUNT = 30
AT_STEPS = [
    "pan_correlation",
    "pan_motion",
    "pan_error",
    "ild_correlation",
    "itd_error",
    "distance_correlation",
    "distance_slope",
]


@cache
def clips() -> list[WalkSample]:
    return [sample("test", index) for index in range(COUNT)]


def noise(clip: WalkSample, seed: int = 9) -> Array:
    rng = np.random.default_rng([seed, *clip.walk.key])
    return (NOISE * rng.standard_normal(clip.audio.shape)).astype(np.float32)


def late(clip: WalkSample) -> Array:
    """Delays the steps by 100 ms, after noise."""
    samples = RATE // 10
    return np.concatenate([noise(clip)[:, :samples], clip.audio[:, :-samples]], 1)


def elsewhere(index: int) -> Array:
    """Renders the steps of this clip on the path of the next."""
    walk = clips()[index].walk
    return sound(replace(walk, knots=clips()[(index + 1) % COUNT].walk.knots), RATE)


CASES: dict[str, Callable[[int], Array]] = {
    "truth": lambda i: clips()[i].audio,
    "other_draw": lambda i: sound(clips()[i].walk, RATE, draw=1),
    "no_delay": lambda i: sound(clips()[i].walk, RATE, delay=False),
    "middle": lambda i: sound(clips()[i].walk, RATE, pan=False),
    "mono": lambda i: np.repeat(clips()[i].audio.mean(0, keepdims=True), 2, 0),
    "swapped": lambda i: clips()[i].audio[::-1],
    "no_distance": lambda i: sound(clips()[i].walk, RATE, distance=False),
    "elsewhere": elsewhere,
    "late": lambda i: late(clips()[i]),
    "noise": lambda i: noise(clips()[i]),
    "silence": lambda i: np.zeros((2, 32_768), np.float32),
}


@cache
def scores(case: str) -> AudioScores:
    return score_audio([CASES[case](i) for i in range(COUNT)], clips())


@pytest.mark.parametrize("case", ["truth", "other_draw"])
def test_the_truth_scores_highest(case: str) -> None:
    got = scores(case)
    assert got.heard == 1 and got.onset_f1 > 0.99 and got.onset_error < 4
    assert min(got.pan_correlation, got.pan_motion, got.ild_correlation) > 0.999 and got.pan_error < 0.005
    assert got.itd_error < 35
    assert got.distance_correlation > 0.95 and 0.95 < got.distance_slope < 1.05
    assert got.av_align_20 == got.av_align_40 == 1
    assert got.envelope_l1 < 0.001 and got.envelope_correlation > 0.97


@pytest.mark.parametrize(
    ("case", "falls"),
    [
        ("no_delay", {"itd_error"}),
        ("middle", {"pan", "itd_error", "av_align"}),
        ("mono", {"pan", "itd_error", "av_align", "envelope_l1", "distance_correlation"}),
        ("swapped", {"pan", "itd_error", "av_align"}),
        ("no_distance", {"distance_correlation", "distance_slope", "envelope_l1", "envelope_correlation"}),
        (
            "elsewhere",
            {
                "pan",
                "itd_error",
                "av_align",
                "distance_correlation",
                "distance_slope",
                "envelope_l1",
                "envelope_correlation",
            },
        ),
    ],
)
def test_scores_fall_only_for_what_they_are_named_after(case: str, falls: set[str]) -> None:
    got = scores(case)
    good = {
        "pan": min(got.pan_correlation, got.pan_motion, got.ild_correlation) > 0.99 and got.pan_error < 0.01,
        "itd_error": got.itd_error < 35,
        "distance_correlation": got.distance_correlation > 0.95,
        "distance_slope": 0.95 < got.distance_slope < 1.05,
        "onset_f1": got.onset_f1 > 0.99 and got.onset_error < 4,
        "envelope_l1": got.envelope_l1 < 0.001,
        "envelope_correlation": got.envelope_correlation > 0.97,
        "av_align": got.av_align_20 == got.av_align_40 == 1,
        "heard": got.heard == 1,
    }
    assert {name for name, passed in good.items() if not passed} == falls


def test_wrong_sides_are_told_apart() -> None:
    middle, mono, swapped, other = (scores(case) for case in ("middle", "mono", "swapped", "elsewhere"))
    assert abs(middle.pan_correlation) < 0.25 and mono.pan_correlation == mono.pan_motion == mono.ild_correlation == 0
    true = np.concatenate([clip.pan for clip in clips()])
    assert middle.pan_error == pytest.approx(np.abs(true).mean(), abs=0.01)
    assert max(swapped.pan_correlation, swapped.pan_motion, swapped.ild_correlation) < -0.99
    assert swapped.pan_error == pytest.approx(2 * np.abs(true).mean(), abs=0.01)
    assert abs(other.pan_correlation) < 0.4 and other.pan_error > 0.3
    delays = 1e6 * np.abs(ear_delay(true)).mean()
    assert middle.itd_error == pytest.approx(delays, abs=10)
    assert swapped.itd_error == pytest.approx(2 * delays, abs=20)


def test_the_right_place_without_motion_scores_for_the_place_alone() -> None:
    truths, sounds = clips()[:30], []
    for clip in truths:
        depth = clip.walk.knots[:, 1].mean()
        place = np.array([[clip.pan.mean() * depth * np.tan(np.radians(35)), depth]] * 2)
        sounds.append(sound(replace(clip.walk, knots=place), RATE))
    got = score_audio(sounds, truths)
    assert 0.6 < got.pan_correlation < 0.85 and abs(got.pan_motion) < 0.3


def test_a_wide_tolerance_takes_the_middle_for_right() -> None:
    """Scores of this rule need the mono and swapped baselines."""
    middle, swapped = scores("middle"), scores("swapped")
    assert 0.4 < middle.av_align_20 + 0.05 < middle.av_align_40 < 0.95
    assert swapped.av_align_20 < swapped.av_align_40 < middle.av_align_40 - 0.2


def test_without_the_law_of_distance_loudness_says_nothing() -> None:
    got = scores("no_distance")
    assert abs(got.distance_correlation) < 0.25 and abs(got.distance_slope) < 0.05
    assert abs(scores("elsewhere").distance_slope) < 0.35


def test_what_is_late_or_never_heard_scores_nothing() -> None:
    for case in ("late", "noise", "silence"):
        got = asdict(scores(case))
        assert got["heard"] == 0 and got["onset_f1"] == 0 and np.isnan(got["onset_error"])
        assert all(np.isnan(got[name]) for name in AT_STEPS)
        assert got["envelope_correlation"] < 0.1 and got["envelope_l1"] > 0.003
    assert scores("late").av_align_20 == 1  # the rule ignores the times of steps
    assert np.isnan(scores("noise").av_align_40) and np.isnan(scores("silence").av_align_40)


def test_half_the_steps_left_out_cost_more_than_they_hide() -> None:
    """Audible steps are perfect, so scores drop; with less than half of the steps they are NaN."""
    truths = clips()[:20]

    def some(keep: slice) -> AudioScores:
        walks = [replace(clip.walk, steps=clip.steps[keep], levels=clip.walk.levels[keep]) for clip in truths]
        return score_audio([sound(walk, RATE) for walk in walks], truths)

    most, few = some(np.s_[:-1]), some(np.s_[:1])
    assert 0.6 < most.heard < 0.8 and most.pan_correlation < 0.95 and most.pan_error > 0.05 and most.onset_f1 < 0.9
    assert few.heard < 0.4 and all(np.isnan(asdict(few)[name]) for name in AT_STEPS) and few.onset_f1 < 0.5


# Counterfactuals


def test_mirror_is_1_for_sound_that_follows_and_minus_1_for_sound_that_does_not() -> None:
    truths = clips()[:20]
    sounds, others = [clip.audio for clip in truths], [mirrored(clip).audio for clip in truths]
    fresh = [sound(clip.walk.mirrored(), RATE, draw=1) for clip in truths]
    assert mirror(sounds, others, truths) == pytest.approx(1) and mirror(sounds, fresh, truths) > 0.99
    assert score_audio(sounds, truths, mirrored=others).mirror == pytest.approx(1)
    assert mirror(sounds, sounds, truths) == pytest.approx(-1)
    assert abs(mirror(sounds, [CASES["middle"](i) for i in range(20)], truths)) < 0.5
    flat = [CASES["mono"](i) for i in range(20)]
    assert mirror(sounds, flat, truths) == 0 and np.isnan(mirror(flat, sounds, truths))
    assert np.isnan(mirror(sounds, [0 * one for one in sounds], truths)) and np.isnan(scores("truth").mirror)


def test_twice_as_far_is_6_dB_less() -> None:
    near = [clip for clip in clips() if clip.walk.knots[:, 1].max() < 5.9]
    assert len(near) >= 5
    sounds, farther = [clip.audio for clip in near], [render(clip.walk.farther(2)).audio for clip in near]
    assert level_change(sounds, farther, near) == pytest.approx(-6.02, abs=0.1)
    assert level_change(sounds, sounds, near) == 0
    assert np.isnan(level_change(sounds, [0 * one for one in sounds], near))


# Events


def test_correlations_know_what_does_not_vary() -> None:
    true = np.array([1.0, 2, 3, 5])
    assert correlation(true * -2, true) == pytest.approx(-1) and correlation(np.ones(4), true) == 0
    assert np.isnan(correlation(true, np.ones(4))) and np.isnan(correlation(true[:2], true[:2]))


# Clips with handmade ground truth


@dataclass(frozen=True)
class Known:
    audio: Array
    sample_rate: int
    steps: Array
    pan: Array
    distance: Array
    box_times: Array
    boxes: Array


def test_clips_without_steps_have_no_scores_at_steps() -> None:
    clip, none = clips()[0], np.zeros(0)
    known = Known(clip.audio, RATE, none, none, none, clip.box_times, clip.boxes)
    got = asdict(score_audio([clip.audio], [known]))
    assert all(np.isnan(got[name]) for name in [*AT_STEPS, "heard", "onset_error"]) and got["onset_f1"] == 0
    assert np.isnan(score_audio([np.zeros_like(clip.audio)], [known]).onset_f1)


def test_clips_that_stand_still_count_for_no_correlation_of_pans() -> None:
    still = [replace(clip.walk, knots=clip.walk.knots[[0, 0]]) for clip in clips()[:8]]
    truths = [render(walk) for walk in still]
    got = score_audio([truth.audio for truth in truths], truths)
    assert np.isnan(got.pan_correlation) and np.isnan(got.pan_motion) and got.pan_error < 0.01


def test_av_align_looks_at_boxes_around_the_onset() -> None:
    """A box that disappears is met one frame later, not after that, and only within the tolerance."""
    clip = render(
        replace(clips()[0].walk, knots=np.array([[0.0, 3], [0, 3]]), steps=np.array([1.0]), levels=np.zeros(1))
    )

    def score(gone_at: float, right: float, pixels: float) -> float:
        boxes = np.tile([right - 0.1, 0.2, right, 0.8], (len(clip.box_times), 1))
        boxes[clip.box_times > gone_at] = (0.9, 0.2, 1, 0.8)
        known = Known(clip.audio, RATE, clip.steps, clip.pan, clip.distance, clip.box_times, boxes)
        return av_align([clip.audio], [known], pixels)

    assert score(2.0, 0.5, 20) == score(0.8, 0.5, 20) == 1 and score(0.7, 0.5, 20) == 0
    assert score(2.0, 0.5 - 25 / 256, 20) == 0 and score(2.0, 0.5 - 25 / 256, 40) == 1


# Bad input


@pytest.mark.parametrize(
    ("sounds", "message"),
    [
        ([], "audio: got 0 for 1 truths"),
        ([np.zeros((2, 100))], r"audio\[0\]: got 100 samples, expected 32768 as in its truth"),
        ([np.zeros(32_768)], r"audio\[0\]: got float64 of shape \(32768,\), expected floats \[2, samples\]"),
        ([np.zeros((2, 32_768), np.int16)], r"audio\[0\]: got int16"),
        ([np.full((2, 32_768), np.nan)], r"audio\[0\]: got NaN or infinite samples"),
    ],
)
def test_bad_sounds_are_refused(sounds: Sequence[Array], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score_audio(sounds, clips()[:1])
    with pytest.raises(ValueError, match="audio: got 0 for 0 truths"):
        score_audio([], [])
    with pytest.raises(ValueError, match="audio: got"):
        pan_curve(np.zeros(5), RATE)


def test_the_signal_is_compared_with_what_differs() -> None:
    rng = np.random.default_rng(0)
    true = [rng.normal(size=(2, 4000)).astype(np.float32) for _ in range(2)]
    near = [one + 0.1 * rng.normal(size=one.shape).astype(np.float32) for one in true]
    assert signal_to_noise(near, true) == pytest.approx(20, abs=0.3)
    assert signal_to_noise([np.zeros_like(one) for one in true], true) == pytest.approx(0)
    assert signal_to_noise([-one for one in true], true) == pytest.approx(-6.02, abs=0.01)
