"""Clips with cameras are read as RealEstate10K has them, and refused line by line where they are not."""

from pathlib import Path

import numpy as np
import pytest

from weftwork.attention_processors.views.conditions import ReferenceView
from weftwork.attention_processors.views.warping import warp_points
from weftwork.datasets.readers.cameras import Camera
from weftwork.datasets.readers.posed_views import PosedViews, read_clip
from weftwork.datasets.synthetic.rooms import PLACES, sample

URL = "https://example.org/video\n"


def line(time: int, camera: Camera) -> str:
    pose = camera.world_to_camera[:3].flatten().tolist()
    return " ".join(map(str, [time, *camera.focal, *camera.center, 0, 0, *pose]))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One clip of twelve small frames along a wall."""
    from PIL import Image

    (tmp_path / "clip").mkdir()
    lines = []
    for i in range(12):
        camera = Camera.looking((0.1 * i, 1, 0), (0.1 * i, 1, 5))
        lines.append(line(1000 * (i + 1), camera))
        Image.new("RGB", (8, 8), (20 * i, 0, 0)).save(tmp_path / "clip" / f"{1000 * (i + 1)}.png")
    (tmp_path / "clip.txt").write_text(URL + "\n".join(lines) + "\n")
    return tmp_path


def test_frames_come_with_their_cameras(root: Path) -> None:
    frames = read_clip(root / "clip.txt")
    assert [frame.time for frame in frames] == [1000 * (i + 1) for i in range(12)]
    np.testing.assert_allclose(frames[3].camera.position, (0.3, 1, 0), atol=1e-9)
    assert frames[3].image.getpixel((0, 0)) == (60, 0, 0)
    assert frames[3].depth is None


def test_frames_that_are_not_there_are_skipped(root: Path) -> None:
    (root / "clip" / "3000.png").unlink()
    (root / "clip" / "4000.png").rename(root / "clip" / "4000.jpg")
    assert [frame.time for frame in read_clip(root / "clip.txt")][:3] == [1000, 2000, 4000]


def test_stretches_hold_references_and_targets(root: Path) -> None:
    views = PosedViews(root, margin=4, step=3)
    assert len(views) == 2
    assert {name: frame.time for name, frame in views[1].items()} == {
        "reference_0": 4000,
        "reference_1": 8000,
        "interpolating": 6000,
        "extrapolating": 10000,
    }
    assert set(views[0]) == set(PLACES)


def test_a_clip_of_a_room_warps_as_the_room_does(tmp_path: Path) -> None:
    from PIL import Image

    room = sample("train", 0, size=32)
    (tmp_path / "room").mkdir()
    lines = []
    for i, view in enumerate(room.views.values()):
        lines.append(line(i, view.camera))
        Image.fromarray(view.image).save(tmp_path / "room" / f"{i}.png")
        np.save(tmp_path / "room" / f"{i}.npy", view.depth)
    (tmp_path / "room.txt").write_text(URL + "\n".join(lines))
    frames = read_clip(tmp_path / "room.txt")
    read = [ReferenceView.of_depth(np.asarray(f.image) / 255, f.depth, f.camera) for f in frames[:2]]  # pyright: ignore
    known = [
        ReferenceView.of_depth(room.views[name].image / 255, room.views[name].depth, room.views[name].camera)
        for name in ("reference_0", "reference_1")
    ]
    one, other = (warp_points(given, frames[2].camera, (32, 32)) for given in (read, known))
    np.testing.assert_allclose(one.image, other.image, atol=1e-6)
    assert one.seen.mean() > 0.8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3", "line 2: got 3 numbers, expected 19"),
        (" ".join(["1"] + ["a"] * 18), "line 2: got could not convert string to float: 'a'"),
        (" ".join(["1"] * 19), "line 2: world_to_camera: got a matrix that is not a rigid motion"),
        (
            f"{line(5, Camera.looking((0, 0, 0), (0, 0, 1)))}\n{line(5, Camera.looking((0, 0, 0), (0, 0, 1)))}",
            "time 5 after 5",
        ),
        ("", "got no frame for its times"),
    ],
    ids=["short", "words", "pose", "times", "empty"],
)
def test_bad_cameras_are_refused(root: Path, text: str, message: str) -> None:
    (root / "clip.txt").write_text(URL + text)
    with pytest.raises(ValueError, match=message):
        read_clip(root / "clip.txt")


def test_the_address_may_be_left_out(root: Path) -> None:
    whole, text = read_clip(root / "clip.txt"), (root / "clip.txt").read_text()
    (root / "clip.txt").write_text(text.split("\n", 1)[1], encoding="utf-8-sig")
    assert [frame.time for frame in read_clip(root / "clip.txt")] == [frame.time for frame in whole]


def test_a_first_line_that_begins_with_a_time_is_no_address(root: Path) -> None:
    (root / "clip.txt").write_text("1000 0.5\n")
    with pytest.raises(ValueError, match="line 1: "):
        read_clip(root / "clip.txt")


def test_two_images_of_one_time_are_refused(root: Path) -> None:
    path = read_clip(root / "clip.txt")[0].path
    path.with_suffix(".jpg").write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match=r"got .*\.jpg beside it, expected one image per time; remove one"):
        read_clip(root / "clip.txt")


def test_short_clips_choose_the_margin_and_say_so(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "weftwork.datasets.readers.posed_views"):
        chosen = PosedViews(root)
    assert "references 6 frames apart, the most in clips of up to 12 frames" in caplog.text
    assert {name: frame.time for name, frame in chosen[0].items()} == {
        name: frame.time for name, frame in PosedViews(root, margin=6)[0].items()
    }
    with pytest.raises(ValueError, match="margin: got 8 for clips of up to 12 frames"):
        PosedViews(root, margin=8)


def test_arrays_by_name_are_no_depth(root: Path) -> None:
    with (root / "clip/1000.npy").open("wb") as file:
        np.savez(file, depth=np.ones((2, 2)))
    with pytest.raises(ValueError, match=r"1000\.npy: got .*, expected numbers \[height, width\]"):
        _ = read_clip(root / "clip.txt")[0].depth


def test_missing_and_short_clips_are_refused(root: Path) -> None:
    with pytest.raises(ValueError, match=r"cameras: got .*none\.txt"):
        read_clip(root / "none.txt")
    with pytest.raises(ValueError, match=r"expected a folder with <clip>\.txt files"):
        PosedViews(root / "clip")
    with pytest.raises(ValueError, match="margin: got 30 for clips of up to 12 frames, expected over 45; lower it, or"):
        PosedViews(root, margin=30)
    (root / "clip.txt").write_text(URL + "\n".join((root / "clip.txt").read_text().splitlines()[1:4]))
    with pytest.raises(
        ValueError, match=r"margin: got 2 for clips of up to 3 frames, expected over 3; .* longer clips"
    ):
        PosedViews(root)
    with pytest.raises(ValueError, match="margin, step: got 3 and 10"):
        PosedViews(root, margin=3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.ones((2, 2, 1)), r"got float64 of shape \(2, 2, 1\)"),
        (np.zeros((2, 2)), "no finite depth above 0"),
        (np.full((2, 2), np.nan), "no finite depth above 0"),
        (np.array([["a", "b"]]), "expected numbers"),
    ],
    ids=["axes", "zeros", "NaN", "words"],
)
def test_bad_depth_is_refused(
    root: Path, values: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]", message: str
) -> None:
    np.save(root / "clip" / "1000.npy", values)
    with pytest.raises(ValueError, match=message):
        _ = read_clip(root / "clip.txt")[0].depth


def test_code_in_a_depth_file_is_never_run(root: Path) -> None:
    np.save(root / "clip" / "1000.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(ValueError, match="a file that numpy cannot read"):
        _ = read_clip(root / "clip.txt")[0].depth
