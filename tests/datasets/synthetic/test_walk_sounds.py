"""Footsteps of the synthetic walks: stereo, delays, loudness and surfaces."""

from dataclasses import replace

import numpy as np
import pytest
from tiny_walks import Array, standing, steps_alone

from weftwork.datasets.synthetic.walks import (
    SAMPLE_RATE,
    SURFACES,
    sound,
)
from weftwork.datasets.synthetic.walks.scenes import NEAREST
from weftwork.datasets.synthetic.walks.sounds import GAIN, NOISE, USUAL, burst


def lag(left: Array, right: Array, low: float, high: float) -> float:
    """Seconds that left is later than right: the slope of the phase between them, where both are loud."""
    frequencies = np.fft.rfftfreq(len(left), 1 / SAMPLE_RATE)
    band = (frequencies > low) & (frequencies < high)
    cross = (np.fft.rfft(left) * np.conj(np.fft.rfft(right)))[band]
    weights, turns = np.abs(cross), 2 * np.pi * frequencies[band]
    return float(-(weights * turns * np.angle(cross)).sum() / (weights * turns**2).sum())


@pytest.mark.parametrize("surface", SURFACES)
def test_power_is_the_same_at_every_pan_and_falls_by_6_dB_per_doubling(surface: str) -> None:
    for pan in (-1.0, -0.5, 0.0, 0.3, 0.99):
        walk = standing(pan, 3.0, surface, -0.5)
        energy = np.square(steps_alone(walk)).sum() / SAMPLE_RATE
        expected = (GAIN * 10 ** (-0.5 / 20) / walk.distance[0]) ** 2
        assert 10 * np.log10(energy / expected) == pytest.approx(0, abs=0.02)
        near, far = (np.square(steps_alone(one)).sum() for one in (walk, walk.farther(2)))
        assert 10 * np.log10(far / near) == pytest.approx(-6.0206, abs=1e-3)


def test_channels_are_cosine_and_sine_of_the_pan() -> None:
    for pan in (-0.8, -0.2, 0.0, 0.7):
        left, right = np.square(steps_alone(standing(pan))).sum(1)
        assert 4 / np.pi * np.arctan2(np.sqrt(right), np.sqrt(left)) - 1 == pytest.approx(pan, abs=1e-3)


@pytest.mark.parametrize("pan", [-0.8, -0.3, 0.0, 0.1, 0.8])
def test_the_far_ear_hears_later(pan: float) -> None:
    walk = standing(pan)
    angle = np.arctan2(*walk.position(walk.steps)[0])
    left, right = steps_alone(walk)
    assert lag(left, right, 300, 650) == pytest.approx(0.0875 / 343 * (angle + np.sin(angle)), abs=2e-7)
    near, middle = (right if pan > 0 else left), steps_alone(standing(0.0))[0]
    assert lag(near, middle, 300, 650) == pytest.approx(0, abs=2e-7)


def test_steps_are_heard_when_they_are_made() -> None:
    """Also between samples: the same burst, later by as much."""
    walk = standing(0.0, 2.0, "gravel")
    one, other = (steps_alone(replace(walk, steps=np.array([time])))[0] for time in (0.5, 0.5 + 0.4 / SAMPLE_RATE))
    loud = np.flatnonzero(np.abs(one) > 0.02 * np.abs(one).max())
    assert 0 <= loud[0] - 0.5 * SAMPLE_RATE < 0.001 * SAMPLE_RATE
    assert lag(other, one, 2000, 5000) == pytest.approx(0.4 / SAMPLE_RATE, abs=2e-7)


def test_the_late_end_of_a_step_is_cut_off() -> None:
    walk = replace(standing(surface="metal"), steps=np.array([0.0, 0.99]), levels=np.zeros(2))
    heard = steps_alone(walk)
    assert heard.shape == (2, SAMPLE_RATE) and np.abs(heard[:, :100]).max() > 0.01 < np.abs(heard[:, -100:]).max()


def test_parts_of_the_sound_can_be_left_out() -> None:
    walk = replace(standing(0.6), knots=np.array([[1.0, 2], [1.0, 8]]), steps=np.array([0.1, 0.9]), levels=np.zeros(2))
    middle = steps_alone(walk, pan=False)
    np.testing.assert_allclose(middle[0], middle[1], atol=1e-6)
    whole = steps_alone(walk)
    np.testing.assert_allclose(np.square(middle).sum(), np.square(whole).sum(), rtol=1e-3)
    still = steps_alone(standing(0.6), delay=False)
    np.testing.assert_allclose(still[1], still[0] * np.tan(np.pi / 4 * 1.6), atol=1e-6)
    early, late = (np.square(steps_alone(walk, distance=False)[:, part]).sum() for part in (np.s_[:8000], np.s_[8000:]))
    assert early / SAMPLE_RATE == pytest.approx((GAIN / USUAL) ** 2, rel=1e-3) == late / SAMPLE_RATE


def test_noise_is_soft_differs_between_the_ears_and_is_drawn_again() -> None:
    silent = replace(standing(), steps=np.zeros(0), levels=np.zeros(0))
    noise = sound(silent, SAMPLE_RATE)
    np.testing.assert_allclose(noise.std(1), NOISE, rtol=0.03)
    assert abs(np.corrcoef(noise)[0, 1]) < 0.03
    again = sound(silent, SAMPLE_RATE, draw=1)
    assert abs(np.corrcoef(noise[0], again[0])[0, 1]) < 0.03
    one, other = sound(standing(), SAMPLE_RATE), sound(standing(), SAMPLE_RATE, draw=1)
    assert abs(np.corrcoef(one[0], other[0])[0, 1]) < 0.5


def test_nothing_clips_at_the_nearest_place() -> None:
    for index in range(60):
        for surface in SURFACES:
            walk = standing((index % 5 - 2) / 2, NEAREST, surface, 1.0)
            assert np.abs(sound(replace(walk, key=(index,)), SAMPLE_RATE)).max() < 0.99


@pytest.mark.parametrize("surface", SURFACES)
def test_surfaces_sound_as_they_are_said_to(surface: str) -> None:
    said, power, frequencies = SURFACES[surface], np.zeros(2**13 + 1), np.fft.rfftfreq(2**14, 1 / 32_000)
    decays = []
    for index in range(30):
        one = burst(said, 32_000, np.random.default_rng(index))
        assert np.square(one).sum() / 32_000 == pytest.approx(1)
        power += np.square(np.abs(np.fft.rfft(one, 2**14)))
        early, late = (np.square(one[int(t * 32_000) :][:800]).mean() for t in (0.005, 0.005 + said.decay))
        decays.append(10 * np.log10(early / late))
    octaves, weights = np.log2(frequencies[1:] / said.center), power[1:] / power[1:].sum()
    # the band is of amplitudes, so that power has half its variance; by hertz, its mean is ln 2 variances higher
    variance, mean = (said.octaves / 2) ** 2 / 2, (weights * octaves).sum()
    assert mean == pytest.approx(np.log(2) * variance, abs=0.03)
    assert np.sqrt((weights * (octaves - mean) ** 2).sum()) == pytest.approx(np.sqrt(variance), rel=0.1)
    assert np.mean(decays) == pytest.approx(20, abs=1.5)
