"""Walks with recorded steps: exact times, sides and distances, rooms, unseen recordings."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_walks import standing

from weftwork.datasets.readers.footsteps import FootstepFolder
from weftwork.datasets.synthetic.walks import SAMPLE_RATE, combinations, frames, sample, sound
from weftwork.datasets.synthetic.walks.recordings import CRITICAL, LOUD, RecordedSteps, one_step
from weftwork.datasets.synthetic.walks.scenes import NEAREST
from weftwork.datasets.synthetic.walks.sounds import CREST, GAIN
from weftwork.evaluation.scores.audio import score_audio

FOLDER = FootstepFolder(Path(__file__).parents[3] / "examples/footsteps")
DRY = RecordedSteps(FOLDER, "train", rooms=False)
WET = RecordedSteps(FOLDER, "train")


@pytest.mark.parametrize("surface", FOLDER.surfaces)
def test_a_step_begins_at_its_onset_with_the_energy_of_all_steps(surface: str) -> None:
    for recording in FOLDER.of("train")[surface]:
        step = one_step(recording.path, SAMPLE_RATE)
        level = np.abs(step)
        assert np.argmax(level > 0.3 * level.max()) < 0.01 * SAMPLE_RATE and level[-1] < 0.02 * level.max()
    for seed in range(5):
        step = DRY.burst(surface, SAMPLE_RATE, np.random.default_rng(seed))
        energy = np.square(step[: round(LOUD * SAMPLE_RATE)]).sum() / SAMPLE_RATE
        peak = np.abs(step).max()
        assert peak <= CREST + 1e-9 and (energy == pytest.approx(1) or (energy < 1 and peak == pytest.approx(CREST)))


def test_sides_times_and_distances_are_those_of_the_walk() -> None:
    clips = [sample("test", index, steps=DRY) for index in range(40)]
    assert {clip.surface for clip in clips} <= set(FOLDER.surfaces)
    scores = score_audio([clip.audio for clip in clips], clips)
    assert scores.pan_correlation > 0.97 and scores.distance_slope == pytest.approx(1, abs=0.15)
    assert scores.onset_f1 > 0.85 and scores.onset_error < 5
    again = sample("test", 3, steps=RecordedSteps(FOLDER, "train", rooms=False))
    np.testing.assert_array_equal(again.audio, clips[3].audio)
    unseen = sample("test", 3, steps=RecordedSteps(FOLDER, "test", rooms=False))
    np.testing.assert_array_equal(unseen.boxes, clips[3].boxes)
    assert not np.allclose(unseen.audio, clips[3].audio, atol=1e-2)


def test_rooms_are_the_louder_the_farther_the_step() -> None:
    shares = []
    for depth in (2.0, 8.0):
        walk = standing(0.0, depth, "metal")
        wet, dry = (sound(walk, SAMPLE_RATE, steps=steps).astype(float) for steps in (WET, DRY))
        reverberation, direct = np.square(wet - dry).sum(), np.square(dry).sum()
        shares.append(reverberation / direct)
        assert reverberation / SAMPLE_RATE < (2 * GAIN / CRITICAL[0]) ** 2
    assert shares[1] > 4 * shares[0] > 0
    tails = [WET.room(SAMPLE_RATE, np.random.default_rng(seed)) for seed in range(20)]
    assert all(
        tail is not None and 1 / CRITICAL[1] < np.sqrt(np.square(tail).sum()) < 1 / CRITICAL[0] for tail in tails
    )


def test_nothing_clips_at_the_nearest_place() -> None:
    for index in range(40):
        for surface in FOLDER.surfaces:
            walk = replace(standing((index % 5 - 2) / 2, NEAREST, surface, 1.0), key=(index,))
            assert np.abs(sound(walk, SAMPLE_RATE, steps=WET)).max() < 0.999


def test_splits_of_walks_do_not_depend_on_which_surfaces_there_are() -> None:
    every = combinations("test", FOLDER.surfaces)
    assert every and set(combinations("test", ("ice",))) == {one for one in every if one.surface == "ice"}
    assert not set(every) & set(combinations("train", FOLDER.surfaces))


def test_unknown_surfaces_are_refused_and_others_have_colors() -> None:
    with pytest.raises(ValueError, match="surface: got 'gravel', expected one of hard, ice, metal, sand, snow, water"):
        sound(standing(surface="gravel"), SAMPLE_RATE, steps=DRY)
    ice, sand = (frames(standing(surface=name), 32, 1)[0, -1, 0] for name in ("ice", "sand"))
    assert (ice != sand).any()
