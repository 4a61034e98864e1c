"""Rooms: what is said of them is true, from every camera."""

from typing import Any

import numpy as np
import pytest

from weftwork.datasets.readers.cameras import Camera
from weftwork.datasets.synthetic.rooms import (
    PLACES,
    SHAPES,
    SPLITS,
    RoomSample,
    View,
    caption,
    geometry_edges,
    painted_edges,
    sample,
    split_of,
    things,
)
from weftwork.datasets.synthetic.rooms.surfaces import COLORS, PATTERNS
from weftwork.datasets.synthetic.words import DETAILS

SIZE = 48


@pytest.fixture(scope="module")
def rooms() -> list[RoomSample]:
    return [sample("test", index, size=SIZE) for index in range(4)]


def pixels(size: int = SIZE) -> np.ndarray[Any, Any]:
    """Centres of pixels, (x, y) in fractions."""
    steps = (np.arange(size) + 0.5) / size
    return np.stack(np.meshgrid(steps, steps), -1)


def seen_in(points: np.ndarray[Any, Any], view: View) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Which points another view sees, and the indices of the pixels it sees them at."""
    places, depth = view.camera.project(points)
    inside = (places > 0.02).all(-1) & (places < 0.98).all(-1) & (depth > 0)
    at = np.clip((places * SIZE).astype(int), 0, SIZE - 1)
    return inside & (np.abs(view.depth[at[..., 1], at[..., 0]] / depth - 1) < 0.05), at


def test_the_same_arguments_give_the_same_room() -> None:
    one, other = (sample("train", 3, size=16, views=("reference_0",)).views["reference_0"] for _ in range(2))
    assert np.array_equal(one.image, other.image) and np.array_equal(one.depth, other.depth)
    assert not np.array_equal(one.image, sample("train", 4, size=16).views["reference_0"].image)
    assert not np.array_equal(one.image, sample("train", 3, seed=1, size=16).views["reference_0"].image)


def test_splits_share_nothing_and_each_has_every_shape() -> None:
    kinds = [set(things(split)) for split in SPLITS]
    assert set.union(*kinds) == {(shape, pattern) for shape in SHAPES for pattern in PATTERNS}
    assert sum(map(len, kinds)) == len(SHAPES) * len(PATTERNS)
    assert len(kinds[0]) > len(kinds[1]) >= 2 and len(kinds[2]) >= 2
    assert {shape for shape, _ in kinds[0]} == set(SHAPES)
    assert all(split_of(*kind) == split for split, row in zip(SPLITS, kinds, strict=True) for kind in row)


def test_points_are_where_the_pixels_look(rooms: list[RoomSample]) -> None:
    for room in rooms:
        for view in room.views.values():
            places, depth = view.camera.project(view.points)
            np.testing.assert_allclose(places, pixels(), atol=1e-9)
            np.testing.assert_allclose(depth, view.depth)
            assert np.isfinite(view.depth).all() and view.depth.min() > 0.1


def test_normals_have_length_1_and_face_the_camera(rooms: list[RoomSample]) -> None:
    for view in (view for room in rooms for view in room.views.values()):
        np.testing.assert_allclose(np.linalg.norm(view.normals, axis=-1), 1, atol=1e-9)
        assert ((view.normals * view.camera.rays(SIZE, SIZE)).sum(-1) < 1e-9).all()


def test_normals_are_those_of_the_points(rooms: list[RoomSample]) -> None:
    """Away from edges, neighbours lie in the plane that the normal says."""
    for view in (room.views["reference_0"] for room in rooms):
        flat = ~geometry_edges(view)[:-1, :-1] & (view.shape[:-1, :-1] == 0)
        for step in (view.points[1:, :-1], view.points[:-1, 1:]):
            off = np.abs((view.normals[:-1, :-1] * (step - view.points[:-1, :-1])).sum(-1))
            assert off[flat].max() < 1e-9


def test_views_of_one_room_agree(rooms: list[RoomSample]) -> None:
    """Two cameras agree on shape, and nearly on colour, of the places that both see."""
    shared = []
    for room in rooms:
        for name in ("reference_1", "interpolating", "extrapolating"):
            first, other = room.views["reference_0"], room.views[name]
            visible, at = seen_in(first.points, other)
            shared.append(visible.mean())
            there = np.s_[at[..., 1][visible], at[..., 0][visible]]
            assert (first.shape[visible] == other.shape[there]).mean() > 0.97
            error = np.abs(first.image[visible].astype(float) - other.image[there]).mean(-1)
            assert np.median(error) < 12
    assert min(shared) > 0.3


def test_some_edges_are_painted_and_some_are_not(rooms: list[RoomSample]) -> None:
    """Edges of the image are stronger at edges of the geometry, and there are many elsewhere."""
    for view in (room.views["reference_0"] for room in rooms):
        grey, edges = view.image.astype(float).mean(-1), geometry_edges(view)
        contrast = np.abs(np.diff(grey, axis=0))[:, :-1] + np.abs(np.diff(grey, axis=1))[:-1]
        assert 0.01 < edges.mean() < 0.4
        assert contrast[edges[:-1, :-1]].mean() > contrast[~edges[:-1, :-1]].mean()
        painted = painted_edges(view)
        assert painted.mean() > 0.03 and not (painted & edges).any()
        plain = ~(painted | edges)[:-1, :-1]
        assert contrast[painted[:-1, :-1]].mean() > 2 * contrast[plain].mean()


def test_one_target_is_between_the_references_and_one_beyond(rooms: list[RoomSample]) -> None:
    for room in rooms:
        assert set(room.views) == set(PLACES)
        place = {name: view.camera.position for name, view in room.views.items()}
        reach = np.linalg.norm(place["reference_1"] - place["reference_0"])
        between = [np.linalg.norm(place["interpolating"] - place[f"reference_{i}"]) for i in range(2)]
        np.testing.assert_allclose(between, reach / 2, rtol=0.05)
        assert np.linalg.norm(place["extrapolating"] - place["reference_0"]) > 1.05 * reach


def test_captions_name_what_stands_there() -> None:
    scene, rng = sample("train", 3, views=()).scene, np.random.default_rng(0)
    said = {detail: caption(scene, rng, detail) for detail in DETAILS}
    named = [f"{shape.surfaces[0].words} {type(shape).__name__.lower()}" for shape in scene.shapes[1:]]
    room = scene.shapes[0]
    named += [f"{room.surfaces[2].words} floor", f"{room.surfaces[4].words} wall"]
    assert len(named) == 6 and all(name in said["full"] for name in named) and said["full"].count(" and a") >= 1
    assert said["generic"] == "a room" and len(said["full"].split()) <= 40
    assert not any(color in said["kinds"] for color in COLORS)
    partial = [caption(scene, rng, "partial") for _ in range(80)]
    assert {sum(name in text for name in named) for text in partial} == {*range(7)}
    with pytest.raises(ValueError, match="detail: got 'all', expected one of full, partial"):
        caption(scene, rng, "all")


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="split: got 'tset', expected one of train, validation, test"):
        sample("tset", 0)
    with pytest.raises(ValueError, match="views: got 'left', expected some of reference_0"):
        sample("train", 0, views=("left",))
    with pytest.raises(ValueError, match="index, seed, size: got -1"):
        sample("train", -1)


# Cameras


def test_a_camera_sees_its_target_in_the_middle_and_up_above() -> None:
    camera = Camera.looking((1, 2, 3), (4, 1, -2), aspect=0.5)
    places, depth = camera.project(np.array([(4.0, 1.0, -2.0), (4.0, 1.5, -2.0), (-2.0, 3.0, 8.0)]))
    np.testing.assert_allclose(places[0], (0.5, 0.5), atol=1e-12)
    assert places[1, 1] < 0.5 and depth[0] > 0 > depth[2]
    np.testing.assert_allclose(camera.position, (1, 2, 3))
    np.testing.assert_allclose(depth[0], np.linalg.norm([3, -1, -5]))


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.zeros((4, 4)), "not a rigid motion"),
        (np.diag([2.0, 2, 2, 1]), "not a rigid motion"),
        (np.diag([-1.0, 1, 1, 1]), "not a rigid motion"),
        (np.full((4, 4), np.nan), "NaN or infinite"),
        (np.eye(3), r"got shape \(3, 3\), expected \[4, 4\]"),
    ],
    ids=["singular", "scaled", "mirrored", "NaN", "3x3"],
)
def test_matrices_that_are_no_cameras_are_refused(matrix: np.ndarray[Any, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Camera((1.0, 1.0), matrix)


def test_bad_directions_and_focal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="target: got"):
        Camera.looking((1, 2, 3), (1, 5, 3))
    with pytest.raises(ValueError, match=r"focal: got \(0.0, 1.0\)"):
        Camera((0.0, 1.0), np.eye(4))
