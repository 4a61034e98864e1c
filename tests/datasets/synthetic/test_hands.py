"""Hands: the truth fits the image, samples are the same again, and the box is that of the hand."""

import numpy as np
import pytest
from PIL import Image

from weftwork.datasets.readers.part_views import local_view, part_box
from weftwork.datasets.synthetic.hands import KEYPOINTS, SIZE, HandSample, sample
from weftwork.datasets.synthetic.hands.rendering import Capsule, render
from weftwork.datasets.synthetic.hands.skeleton import FINGERS, GESTURES, HAND, posed
from weftwork.evaluation.scores.hands import read_keypoints, score_hands


@pytest.fixture(scope="module")
def hands() -> list[HandSample]:
    return [sample("test", index) for index in range(8)]


def test_samples_are_the_same_again_and_differ_between_splits(hands: list[HandSample]) -> None:
    again, other = sample("test", 3), sample("train", 3)
    assert np.array_equal(again.image, hands[3].image) and again.caption == hands[3].caption
    assert not np.array_equal(other.image, hands[3].image)
    assert hands[0].image.shape == hands[0].control.shape == (SIZE, SIZE, 3)
    with pytest.raises(ValueError, match="split: got 'all'"):
        sample("all", 0)


def test_bones_keep_their_lengths_in_every_pose() -> None:
    for gesture in GESTURES:
        for finger, ends in zip(HAND, posed(gesture, np.random.default_rng(1)), strict=True):
            assert np.allclose(np.linalg.norm(np.diff(ends, axis=0), axis=1), finger.lengths)


def test_joints_lie_in_the_box_of_the_hand(hands: list[HandSample]) -> None:
    for one in hands:
        left, top, right, bottom = one.box
        tips = one.joints[1:]
        assert (tips >= [left, top]).all() and (tips <= [right, bottom]).all()
        assert 0.15 < max(right - left, bottom - top) < 0.55


def test_keypoints_are_read_at_their_places(hands: list[HandSample]) -> None:
    for one in hands:
        found = read_keypoints(one.image)[one.visible]
        assert np.abs(found - one.keypoints[one.visible]).max() < 0.03
    scores = score_hands(np.stack([one.image for one in hands]), hands)
    assert scores["tip_error"] < 0.04 and scores["cuff_error"] < 0.04
    assert scores["tips_found"] == scores["tips_correct"] == 1
    turned = score_hands(np.stack([one.image[:, ::-1] for one in hands]), hands)
    assert turned["tip_error"] > 0.3 and turned["tips_found"] == 1
    absent = score_hands(np.stack([np.full_like(one.image, 128) for one in hands]), hands)
    assert absent == {"tip_error": 1, "cuff_error": 1, "tips_found": 0, "tips_correct": 0}


def test_hidden_keypoints_do_not_count(hands: list[HandSample]) -> None:
    one = hands[0]
    image = one.image.copy()
    image[...] = 128
    hidden = HandSample(one.image, one.control, one.joints, one.keypoints, np.arange(6) == 5, one.box, "")
    row, column = (one.keypoints[5][::-1] * SIZE).astype(int)
    image[row - 4 : row + 5, column - 4 : column + 5] = (205, 50, 200)
    scores = score_hands(image[None], [hidden])
    assert scores["cuff_error"] < 0.05 and np.isnan(scores["tip_error"])
    assert len(KEYPOINTS) == len(FINGERS) + 1


def test_the_nearest_capsule_is_seen() -> None:
    near, far = (Capsule(np.array([4.0, 8, z]), np.array([12.0, 8, z]), (3, 3)) for z in (10, 0))
    seen = render([far, near], 16)
    assert seen.visible(1) == 1 and seen.visible(0) == 0
    assert set(np.unique(seen.index)) == {-1, 1} and seen.index[8, 8] == 1 and not seen.light[0].any()
    assert seen.areas[0] == pytest.approx(8 * 6 + np.pi * 9, rel=0.1)


def test_local_views_show_the_part_alone(hands: list[HandSample]) -> None:
    control = Image.fromarray(hands[0].control)
    left, top, right, bottom = part_box(np.asarray(local_view(control, hands[0].box, 128)))
    assert max(right - left, bottom - top) == pytest.approx(1 / 1.24, abs=0.03)
    wide = Image.new("RGB", (40, 20))
    wide.paste("white", (30, 5, 40, 15))
    view = np.asarray(local_view(wide, part_box(np.asarray(wide)), 20))[..., 0]  # moved into the image
    assert view[10, -1] == 255 and view[0, 0] == 0 and (view > 128).mean() == pytest.approx(1 / 1.24**2, abs=0.1)
    with pytest.raises(ValueError, match="control image: got a black one"):
        part_box(np.zeros((4, 4, 3), np.uint8))
