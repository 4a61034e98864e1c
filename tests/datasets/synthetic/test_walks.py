"""Walks: what is seen, what is heard and what is said of both are the same."""

from dataclasses import replace
from itertools import combinations as pairs_of
from typing import Any

import numpy as np
import pytest
from tiny_walks import standing, steps_alone

from weftwork.datasets.readers.cameras import Camera
from weftwork.datasets.synthetic.walks import (
    SECONDS,
    SPLITS,
    SURFACES,
    Combination,
    Walk,
    WalkSample,
    combinations,
    frames,
    mirrored,
    render,
    sample,
    split_of,
    walk_of,
)
from weftwork.datasets.synthetic.walks.images import WALL_COLOR
from weftwork.datasets.synthetic.walks.scenes import EYE, FIELD_OF_VIEW, WALKER, WALL


@pytest.fixture(scope="module")
def clips() -> list[WalkSample]:
    return [sample("train", index) for index in range(40)]


# What is seen


def test_the_same_arguments_give_the_same_walk() -> None:
    one, other = sample("train", 3), sample("train", 3)
    for name in ("audio", "boxes", "depth", "steps", "pan", "distance"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert np.array_equal(walk_of("train", 3).knots, one.walk.knots) and walk_of("train", 3).key == one.walk.key
    different = [sample("train", 4), sample("train", 3, seed=1), sample("test", 3)]
    assert not any(np.array_equal(one.audio, clip.audio) or np.array_equal(one.boxes, clip.boxes) for clip in different)


def test_shapes_and_times(clips: list[WalkSample]) -> None:
    for clip in clips:
        assert clip.audio.shape == (2, 32_768) and clip.audio.dtype == np.float32
        assert clip.boxes.shape == (62, 4) and clip.depth.shape == (9, 32, 32) and clip.depth.dtype == np.float32
        np.testing.assert_allclose(np.diff(clip.box_times), 1 / 30)
        np.testing.assert_allclose(np.diff(clip.depth_times), 1 / 4)
        assert clip.box_times[0] == clip.depth_times[0] == 0 and clip.box_times[-1] < SECONDS
        assert len(clip.steps) == len(clip.pan) == len(clip.distance) == len(clip.walk.levels)
    assert sample("train", 0, seconds=4.0, sample_rate=44_100).audio.shape == (2, 176_400)
    assert len(sample("train", 0, seconds=2.0).boxes) == 60


def test_boxes_are_what_a_camera_sees_of_the_walker(clips: list[WalkSample]) -> None:
    camera = Camera.looking((0, EYE, 0), (0, EYE, -1), field_of_view=FIELD_OF_VIEW)
    for clip in clips:
        for corner, (side, up) in {(0, 1): (-0.5, 1), (2, 3): (0.5, 0)}.items():
            x, z = clip.walk.position(clip.box_times).T
            points = np.stack([x + side * WALKER[0], np.full_like(x, up * WALKER[1]), -z], 1)
            places, depth = camera.project(points)
            np.testing.assert_allclose(depth, z)
            np.testing.assert_allclose(clip.boxes[:, corner], np.clip(places, 0, 1), atol=1e-9)
        assert (clip.boxes[:, 2:] > clip.boxes[:, :2]).all()


def test_depth_is_of_the_floor_the_wall_and_the_walker(clips: list[WalkSample]) -> None:
    camera = Camera.looking((0, EYE, 0), (0, EYE, -1), field_of_view=FIELD_OF_VIEW)
    rays = camera.rays(32, 32)  # of depth 1
    floor = np.where(rays[..., 1] < 0, EYE / np.maximum(-rays[..., 1], 1e-9), np.inf)
    room = np.minimum(floor, WALL)
    for clip in clips[:10]:
        for (x, z), depth in zip(clip.walk.position(clip.depth_times), clip.depth, strict=True):
            points = camera.position + z * rays
            there = (
                (np.abs(points[..., 0] - x) <= WALKER[0] / 2) & (points[..., 1] >= 0) & (points[..., 1] <= WALKER[1])
            )
            assert there.any()
            np.testing.assert_allclose(depth, np.where(there, np.minimum(z, room), room), rtol=1e-6)


def test_pan_is_where_the_walker_is_in_the_image(clips: list[WalkSample]) -> None:
    for clip in clips:
        boxes = clip.walk.whole_boxes(clip.steps)
        np.testing.assert_allclose(clip.pan, boxes[:, 0] + boxes[:, 2] - 1, atol=1e-9)
        assert np.abs(clip.pan).max() <= 0.8 + 1e-9
        np.testing.assert_allclose(clip.distance, np.linalg.norm(clip.walk.position(clip.steps), axis=1))


def test_a_path_goes_softly_from_knot_to_knot() -> None:
    walk = Walk(np.array([[0.0, 2], [1, 4], [0, 8]]), np.zeros(0), np.zeros(0), "snow", 2.0)
    np.testing.assert_allclose(walk.position(np.array([-1, 0, 1, 2, 9])), [[0, 2], [0, 2], [1, 4], [0, 8], [0, 8]])
    np.testing.assert_allclose(walk.position(np.array([0.25, 0.5])), [[0.15625, 2.3125], [0.5, 3]])


def test_a_clock_of_any_phase_gives_about_four_steps(clips: list[WalkSample]) -> None:
    counts = [len(clip.steps) for clip in clips]
    assert 3.3 < np.mean(counts) < 4.3 and set(counts) <= {3, 4, 5}
    gaps = np.concatenate([np.diff(clip.steps) for clip in clips])
    assert gaps.min() > 0.38 and gaps.max() < 0.72
    firsts = np.array([clip.steps[0] for clip in clips])
    assert firsts.min() >= 0.02 and np.histogram(firsts, 3, (0.02, 0.5))[0].min() >= 4
    assert max(clip.steps[-1] for clip in clips) < SECONDS - 0.1
    levels = np.concatenate([clip.walk.levels for clip in clips])
    assert np.abs(levels).max() <= 1 and levels.std() > 0.4


def test_images_show_the_walker_in_the_box_on_the_surface() -> None:
    for surface in SURFACES:
        walk = standing(0.3, 3.0, surface)
        picture, size = frames(walk, 96, 10)[0].astype(float), 96
        np.testing.assert_allclose(picture[-1].max(0), np.array(SURFACES[surface].color) * 255, atol=1)
        np.testing.assert_allclose(picture[0, 0], np.array(WALL_COLOR) * 255, atol=1)
        elsewhere = frames(standing(-0.6, 3.0, surface), 96, 10)[0].astype(float)
        changed = np.abs(picture - elsewhere).max(-1) > 3
        changed[:, : size // 2] = False
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        left, top, right, bottom = walk.boxes(np.zeros(1))[0] * size
        assert left - 1 <= columns[0] and columns[-1] <= right + 1
        assert abs(rows[0] - top) < 2 and abs(rows[-1] + 1 - bottom) < 3


def test_feet_are_apart_when_steps_are_heard() -> None:
    walk = replace(standing(0, 2.0), steps=np.array([0.2, 0.6]), levels=np.zeros(2))
    pictures = frames(walk, 96, 10).astype(float)
    feet = int(walk.boxes(np.zeros(1))[0, 3] * 96) - 12
    spread = [np.ptp(np.flatnonzero(picture[feet].sum(-1) < 250)) for picture in pictures]
    assert min(spread[2], spread[6]) > 2 * max(spread[4], spread[8])
    assert pictures.shape == (10, 96, 96, 3) and frames(walk, 32, 4).dtype == np.uint8


# Splits


def test_splits_share_no_combination_nor_its_mirror_image() -> None:
    every = [set(combinations(split)) for split in SPLITS]
    assert [len(kinds) for kinds in every] == [43, 14, 15] and len(set.union(*every)) == 72
    for split, kinds in zip(SPLITS, every, strict=True):
        assert all(split_of(*kind) == split for kind in kinds)
        other = {"left": "right", "middle": "middle", "right": "left"}
        assert {kind._replace(start=other[kind.start], end=other[kind.end]) for kind in kinds} == kinds
        assert {kind.surface for kind in kinds} == set(SURFACES) and len({kind.heading for kind in kinds}) == 2


def test_training_shows_all_pairs_that_the_test_split_joins() -> None:
    def parts(kind: Combination) -> tuple[str, tuple[str, str], str]:
        return kind.surface, (kind.start, kind.end), kind.heading

    for i, j in pairs_of(range(3), 2):
        train, test = ({(parts(k)[i], parts(k)[j]) for k in combinations(split)} for split in ("train", "test"))
        assert test <= train


@pytest.mark.parametrize("split", SPLITS)
def test_walks_are_of_their_split(split: str) -> None:
    """Read from the path itself."""
    seen = set()
    for walk in (walk_of(split, index) for index in range(60)):
        pan = walk.knots[:, 0] / walk.knots[:, 1] / np.tan(np.radians(35))
        start, end = (("left", "middle", "right")[int((p + 0.8) // (1.6 / 3))] for p in (pan[0], pan[-1]))
        seen.add((walk.surface, start, end, "nearer" if walk.knots[-1, 1] < walk.knots[0, 1] else "farther"))
    assert seen <= set(combinations(split)) and len(seen) > 10


# What is heard


# Counterfactuals


def test_mirroring_exchanges_left_and_right_everywhere(clips: list[WalkSample]) -> None:
    for clip in clips[:10]:
        other = mirrored(clip)
        np.testing.assert_array_equal(other.audio, clip.audio[::-1])
        np.testing.assert_array_equal(other.pan, -clip.pan)
        np.testing.assert_array_equal(other.distance, clip.distance)
        np.testing.assert_allclose(other.boxes, other.walk.boxes(other.box_times), atol=1e-12)
        np.testing.assert_array_equal(other.depth, other.walk.depth(other.depth_times))
        assert split_of(*kind_of(other)) == split_of(*kind_of(clip)) == "train"
        back = mirrored(other)
        np.testing.assert_allclose(back.boxes, clip.boxes, atol=1e-12)
        for name in ("audio", "depth", "pan", "steps"):
            np.testing.assert_array_equal(getattr(back, name), getattr(clip, name))
        swapped = steps_alone(clip.walk)[::-1]
        np.testing.assert_allclose(steps_alone(clip.walk.mirrored()), swapped, atol=1e-6)


def kind_of(clip: WalkSample) -> tuple[str, str, str, str]:
    pan = clip.walk.knots[:, 0] / clip.walk.knots[:, 1] / np.tan(np.radians(35))
    start, end = (("left", "middle", "right")[int((p + 0.8) // (1.6 / 3))] for p in (pan[0], pan[-1]))
    return clip.surface, start, end, "nearer" if clip.walk.knots[-1, 1] < clip.walk.knots[0, 1] else "farther"


def test_farther_keeps_pans_and_changes_loudness_alone(clips: list[WalkSample]) -> None:
    walk = next(clip.walk for clip in clips if clip.walk.knots[:, 1].max() < 5.9)
    far = walk.farther(2)
    np.testing.assert_allclose(far.pan, walk.pan)
    np.testing.assert_allclose(far.distance, 2 * walk.distance)
    np.testing.assert_allclose(steps_alone(far), steps_alone(walk) / 2, atol=1e-6)
    assert render(far).depth.mean() > render(walk).depth.mean()
    with pytest.raises(ValueError, match=r"knots: got depths from .* m, expected 1.8 m or more and less than 12"):
        walk.farther(7)


# Bad input


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="split: got 'tset', expected one of train, validation, test"):
        sample("tset", 0)
    with pytest.raises(ValueError, match=r"index, seed, seconds: got -1, 0 and 2\.048"):
        sample("train", -1)
    with pytest.raises(ValueError, match=r"index, seed, seconds: got 0, 0 and 0\.5"):
        sample("train", 0, seconds=0.5)
    with pytest.raises(ValueError, match="sample_rate, draw: got 4000 and 0, expected at least 8000"):
        sample("train", 0, sample_rate=4000)
    with pytest.raises(ValueError, match="surface: got 'glass', expected one of gravel, wood, snow, metal"):
        render(standing(surface="glass"))
    with pytest.raises(ValueError, match="start: got 'above', expected one of left, middle, right"):
        split_of("wood", "above", "left", "nearer")
    with pytest.raises(ValueError, match="size, rate: got 8 and 30"):
        frames(standing(), 8, 30)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"knots": np.zeros((1, 2))}, r"knots: got \(1, 2\), expected finite numbers \[knot, 2\]"),
        ({"knots": np.full((2, 2), np.nan)}, "expected finite numbers"),
        ({"knots": np.array([[0, 1.0], [0, 2]])}, "knots: got depths from 1 to 2 m, expected 1.8 m or more"),
        ({"knots": np.array([[0, 2.0], [2, 2]])}, "keep the walker in the image"),
        ({"steps": np.array([2.0])}, r"steps: got \[2.0\], expected increasing times in \[0, 1.0\) seconds"),
        ({"steps": np.array([0.5, 0.5]), "levels": np.zeros(2)}, "expected increasing times"),
        ({"levels": np.zeros(3)}, r"levels: got shape \(3,\), expected one for each of \(1,\) steps"),
        ({"levels": np.array([6.0])}, "expected finite ones up to 1.0 dB"),
        ({"seconds": 0.0}, "seconds: got 0.0, expected more than 0"),
    ],
)
def test_walks_that_cannot_be_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(standing(), **change)
