"""Warped references show what the target camera sees of them, and nothing else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from remedies import check_call

from weftwork.attention_processors.views.conditions import ReferenceView
from weftwork.attention_processors.views.warping import WarpedView, warp_mesh, warp_points
from weftwork.datasets.readers.cameras import Camera
from weftwork.datasets.synthetic.rooms import RoomSample, sample

SIZE = (48, 48)
AHEAD = Camera((1.0, 1.0), np.eye(4))
WARPS = [warp_points, warp_mesh]
Warp = Callable[..., WarpedView]


def shifted(x: float = 0.0, z: float = 0.0) -> Camera:
    """A camera that stands at (x, 0, z) and looks ahead."""
    matrix = np.eye(4)
    matrix[:3, 3] = -x, 0, -z
    return Camera((1.0, 1.0), matrix)


def wall(depth: float, color: float = 0.5, camera: Camera = AHEAD) -> ReferenceView:
    """All of an image at one depth, darker to the left."""
    image = np.full((*SIZE, 3), color) * np.linspace(0.5, 1, SIZE[1])[None, :, None]
    return ReferenceView.of_depth(image, np.full(SIZE, depth), camera)


@pytest.fixture(scope="module")
def room() -> RoomSample:
    return sample("train", 1, size=SIZE[0])


def references(room: RoomSample) -> list[ReferenceView]:
    views = [room.views[f"reference_{i}"] for i in range(2)]
    return [ReferenceView.of_depth(view.image / 255, view.depth, view.camera) for view in views]


@pytest.mark.parametrize("warp", WARPS)
def test_the_camera_itself_sees_its_image(warp: Warp, room: RoomSample) -> None:
    (first, _), truth = references(room), room.views["reference_0"]
    warped = warp([first], truth.camera, SIZE)
    inner = np.s_[2:-2, 2:-2]
    assert warped.seen[inner].mean() > 0.97
    error = np.abs(warped.depth - truth.depth)[warped.seen]
    assert np.median(error) < 1e-9
    assert np.abs(warped.image - first.image)[warped.seen].mean() < 0.02


@pytest.mark.parametrize("warp", WARPS)
@pytest.mark.parametrize("name", ["interpolating", "extrapolating"])
def test_targets_are_seen_at_their_depth(warp: Warp, name: str, room: RoomSample) -> None:
    truth = room.views[name]
    warped = warp(references(room), truth.camera, SIZE)
    assert 0.6 < warped.seen.mean() < 1
    off = np.abs(warped.depth - truth.depth)[warped.seen] / truth.depth[warped.seen]
    assert np.median(off) < 0.01 and (off < 0.05).mean() > 0.93
    assert np.abs(warped.image * 255 - truth.image)[warped.seen].mean() < 25
    places, _ = truth.camera.project(warped.points[warped.seen])
    rows, columns = np.nonzero(warped.seen)
    centers = (np.stack([columns, rows], 1) + 0.5) / SIZE[0]
    assert np.abs(places - centers).max() < 0.6 / SIZE[0]
    assert (warped.image[~warped.seen] == 0).all() and (warped.depth[~warped.seen] == 0).all()


def test_a_mesh_has_the_normals_of_the_room(room: RoomSample) -> None:
    truth = room.views["interpolating"]
    warped = warp_mesh(references(room), truth.camera, SIZE)
    assert ((warped.normals * truth.normals).sum(-1)[warped.seen] > 0.98).mean() > 0.9


def test_a_mesh_is_drawn_as_it_is_in_space() -> None:
    """A slanted plane keeps its depth between its vertices, which lie far apart: weights are perspective."""
    depth = 2 / (1 + 0.8 * np.linspace(-0.5, 0.5, SIZE[1]))[None].repeat(SIZE[0], 0)
    slanted = ReferenceView.of_depth(np.full((*SIZE, 3), 0.5), depth, AHEAD)
    exact = warp_mesh([slanted], AHEAD, SIZE)
    coarse = warp_mesh([slanted], AHEAD, SIZE, stride=15)
    np.testing.assert_allclose(coarse.depth[coarse.seen], exact.depth[coarse.seen], rtol=1e-3)
    assert coarse.seen.mean() > 0.8


@pytest.mark.parametrize("warp", WARPS)
def test_the_nearer_of_two_is_seen(warp: Warp) -> None:
    for order in (1, -1):
        warped = warp([wall(2.0, 0.9), wall(4.0, 0.1)][::order], AHEAD, SIZE)
        np.testing.assert_allclose(warped.depth[warped.seen], 2.0)


@pytest.mark.parametrize("warp", WARPS)
def test_nothing_behind_the_camera_is_seen(warp: Warp) -> None:
    assert not warp([wall(2.0)], shifted(z=3.0), SIZE).seen.any()


@pytest.mark.parametrize("warp", WARPS)
def test_nothing_is_moved_to_the_border(warp: Warp) -> None:
    """Half of the wall is in view; the column at the border is as bright as the wall is there."""
    warped = warp([wall(2.0)], shifted(x=-1.0), SIZE)
    assert not warped.seen[:, :20].any() and warped.seen[:, 28:].mean() > 0.9
    assert np.ptp(warped.image[:, -2][warped.seen[:, -2]]) < 0.02


def test_a_step_in_depth_tears_the_mesh() -> None:
    depth = np.full(SIZE, 6.0)
    depth[:, 24:] = 1.0
    view = ReferenceView.of_depth(np.full((*SIZE, 3), 0.5), depth, AHEAD)
    warped = warp_mesh([view], shifted(x=0.3), SIZE)
    assert set(np.round(np.unique(warped.depth), 6)) == {0.0, 1.0, 6.0}
    kept = warp_mesh([view], shifted(x=-0.3), SIZE, edge_share=0.5)
    assert len(np.unique(np.round(kept.depth, 3))) > 3


def test_the_back_of_a_face_is_not_seen() -> None:
    """From behind a wall that was drawn from its front."""
    turned = np.diag([-1.0, 1.0, -1.0, 1.0])
    turned[:3, 3] = 0, 0, 4
    behind = Camera((1.0, 1.0), turned)
    assert warp_points([wall(2.0)], behind, SIZE).seen.any()
    assert not warp_mesh([wall(2.0)], behind, SIZE).seen.any()


@pytest.mark.parametrize("warp", WARPS)
def test_unknown_depth_is_left_out(warp: Warp) -> None:
    depth = np.full(SIZE, 2.0)
    depth[:10], depth[10:20], depth[20:24] = 0, np.nan, np.inf
    view = ReferenceView.of_depth(np.full((*SIZE, 3), 0.5), depth, AHEAD)
    warped = warp([view], AHEAD, SIZE)
    assert not warped.seen[:23].any() and warped.seen[26:46, 2:-2].mean() > 0.9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((4, 4, 3)), np.ones((4, 5))), r"got an image of shape \(4, 4, 3\) and points of \(4, 5, 3\)"),
        ((np.zeros((4, 4, 3)), np.ones((4, 4, 1))), r"depth: got shape \(4, 4, 1\)"),
        ((np.full((4, 4, 3), 255.0), np.ones((4, 4))), "colours outside"),
        ((np.full((4, 4, 3), np.nan), np.ones((4, 4))), "colours outside"),
        ((np.zeros((4, 4, 3)), np.full((4, 4), np.nan)), "no finite point"),
        ((np.zeros((4, 4, 3)), np.zeros((4, 4))), "no finite point"),
    ],
    ids=["sizes", "axes", "bytes", "NaN", "no depth", "zeros"],
)
def test_bad_references_are_refused(arguments: tuple[Any, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReferenceView.of_depth(*arguments, AHEAD)


def test_no_reference_and_bad_strides_are_refused() -> None:
    for warp in WARPS:
        with pytest.raises(ValueError, match="references: got none"):
            warp([], AHEAD, SIZE)
    for stride in (0, 48):
        with pytest.raises(ValueError, match=f"stride: got {stride}"):
            warp_mesh([wall(2.0)], AHEAD, SIZE, stride=stride)


def test_images_of_references_are_read_as_others_are(tmp_path: Path) -> None:
    """Upright, on white, from 16 bits; a depth model sees the upright image; depth has its aspect."""
    image = Image.new("RGB", (40, 20), "black")
    (exif := image.getexif())[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    seen = []

    def depth(upright: Image.Image) -> np.ndarray:
        seen.append(upright.size)
        return np.ones(upright.size[::-1], np.float32)

    ReferenceView.of_image(Image.open(tmp_path / "turned.png"), depth, AHEAD, (16, 16))
    assert seen == [(20, 40)]
    clear, deep = Image.new("RGBA", (8, 8), (0, 0, 0, 0)), Image.fromarray(np.full((8, 8), 2**15, np.uint16))
    for given, tone in ((clear, 1.0), (deep, 0.5)):
        found = ReferenceView.of_image(given, np.ones((8, 8)), AHEAD, (16, 16))
        np.testing.assert_allclose(found.image, tone, atol=0.01)
    check_call(
        lambda depth: ReferenceView.of_image(Image.new("RGB", (40, 20)), depth, AHEAD, (16, 16)),
        np.ones((40, 20)),
        "for an image of 20x40, .* of its aspect; save the depth of the whole image",
        np.ones((10, 20)),
    )
