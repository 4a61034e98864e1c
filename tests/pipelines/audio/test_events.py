"""Onsets, pans and envelopes of audio are measured where steps are."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from weftwork.datasets.synthetic.walks import WalkSample, render, sample, sound
from weftwork.datasets.synthetic.walks.sounds import NOISE, channel_gains
from weftwork.evaluation.scores.audio import match_onsets, score_audio
from weftwork.pipelines.audio.events import (
    envelope,
    hear,
    level_difference,
    loudness_curve,
    onsets,
    pan_curve,
    pan_of,
)

Array = np.ndarray[Any, np.dtype[Any]]
RATE = 16_000


@cache
def clips() -> list[WalkSample]:
    return [sample("test", index) for index in range(10)]


def noise(clip: WalkSample, seed: int = 9) -> Array:
    rng = np.random.default_rng([seed, *clip.walk.key])
    return (NOISE * rng.standard_normal(clip.audio.shape)).astype(np.float32)


def test_pan_is_the_inverse_of_panning() -> None:
    pans = np.linspace(-1, 1, 41)
    np.testing.assert_allclose(pan_of(np.square(channel_gains(pans)) * 0.01), pans, atol=1e-12)
    np.testing.assert_allclose(
        level_difference(np.square(channel_gains(pans[8:-8]))),
        20 * np.log10(np.tan(np.pi / 4 * (1 + pans[8:-8]))),
        atol=0.1,
    )
    assert np.isnan(level_difference(np.full((2, 1), np.nan))).all()


def test_onsets_are_found_where_steps_are() -> None:
    for clip in clips():
        found = onsets(clip.audio, RATE)
        np.testing.assert_allclose(found, clip.steps, atol=0.008)
    other = render(clips()[0].walk, 44_100)
    np.testing.assert_allclose(onsets(other.audio, 44_100), other.steps, atol=0.008)
    assert not onsets(np.zeros((2, RATE)), RATE).size and not onsets(np.zeros((2, 10)), RATE).size
    assert not onsets(np.ones((2, RATE)) * 0.1, RATE)[1:].size


def test_onsets_match_one_for_one_the_nearest_first() -> None:
    true = np.array([0.1, 0.5, 1.0])
    assert match_onsets(np.array([0.49, 0.52, 1.06]), true) == [(0, 1)]
    assert sorted(match_onsets(np.array([0.08, 0.13, 0.46, 1.04]), true)) == [(0, 0), (2, 1), (3, 2)]
    assert match_onsets(np.zeros(0), true) == match_onsets(true, np.zeros(0)) == []
    clip = clips()[0]
    doubled = clip.audio + np.roll(clip.audio, RATE // 5, axis=1)
    found = onsets(doubled, RATE)
    expected = 2 * len(clip.steps) / (len(found) + len(clip.steps))
    assert len(found) > len(clip.steps) and score_audio([doubled], [clip]).onset_f1 == pytest.approx(expected)


def test_events_are_heard_apart_from_the_noise_in_each_channel() -> None:
    """Much noise on the left does not move a step on the right."""
    knots = np.array([[0.6 * 5 * np.tan(np.radians(35)), 5.0]] * 2)
    clip = render(replace(clips()[0].walk, knots=knots, surface="gravel"))
    louder = clip.audio + np.array([[6.0], [0.0]]) * noise(clip)
    np.testing.assert_allclose(hear(louder, RATE, clip.steps).pan, 0.6, atol=0.02)


def test_what_may_be_noise_is_not_heard() -> None:
    clip = clips()[0]
    quiet = hear(clip.audio, RATE, clip.steps - 0.1)
    assert np.isnan(quiet.pan).all() and np.isnan(quiet.level).all() and np.isnan(quiet.itd).all()
    assert hear(clip.audio, RATE, np.zeros(0)).pan.shape == (0,)


def test_curves_follow_the_walker() -> None:
    for clip in clips()[:5]:
        times, pan = pan_curve(clip.audio, RATE)
        _, level = loudness_curve(clip.audio, RATE)
        assert times.shape == pan.shape == level.shape and times[-1] == pytest.approx(2.04)
        assert np.isnan(pan).any() and -62 < level.min() < -55
        for step, true in zip(clip.steps, clip.pan, strict=True):
            near = np.abs(times - step - 0.03) < 0.02
            np.testing.assert_allclose(pan[near], true, atol=0.03)
            assert level[near].min() > np.median(level)
    silent = np.zeros((2, RATE))
    assert np.isnan(pan_curve(silent, RATE)[1]).all() and (loudness_curve(silent, RATE)[1] == -90).all()


def test_the_envelope_is_blind_to_the_delay_between_the_ears() -> None:
    clip = clips()[0]
    one, other = (envelope(sound(clip.walk, RATE, delay=delay), RATE) for delay in (True, False))
    assert np.abs(one - other).mean() < 5e-5 < np.abs(one - 2 * other).mean()
    assert len(one) == (32_768 - 512) // 128 + 1
    np.testing.assert_allclose(envelope(np.full((2, RATE), 0.25), RATE), 0.25)
