"""Posed views of maps: a box that is a map, its archive, exact depth, and clips that training reads."""

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from remedies import check_command

from weftwork.datasets.openarena.archives import Archives, shader_images
from weftwork.datasets.openarena.clips import Shot, maps_of, paths, split_of, write_clips
from weftwork.datasets.openarena.maps import METER, Surface, read_map
from weftwork.datasets.openarena.renderer import Renderer, projection
from weftwork.datasets.readers.cameras import Camera
from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.readers.posed_views import PosedViews
from weftwork.scripts.cli import main

SIDE = 400.0
"""Of the box, in a map's units: 10 m."""
CORNERS = np.array([[x, y, z] for x in (0, SIDE) for y in (0, SIDE) for z in (0, SIDE)])
QUADS = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))
ENTITIES = b'{ "classname" "info_player_start" "origin" "200 200 30" } { "classname" "light" "origin" "1 1 1" }\0'


def box() -> bytes:
    """A map: a box with checks on all sides, and a face that is not drawn."""
    vertices, faces = b"", b""
    for index, quad in enumerate(QUADS):
        for corner, place in zip(quad, ((0, 0), (4, 0), (4, 4), (0, 4)), strict=True):
            vertices += struct.pack("<10f4B", *CORNERS[corner], *place, 0.5, 0.5, 0, 0, 1, 255, 255, 255, 255)
        faces += struct.pack("<26i", 0, -1, 1, index * 4, 4, 0, 6, 0, *[0] * 18)
    faces += struct.pack("<26i", 1, -1, 1, 0, 4, 0, 6, 0, *[0] * 18)
    textures = b"".join(struct.pack("<64sii", name, 0, 0) for name in (b"textures/checks", b"textures/common/clip"))
    lumps = {0: ENTITIES, 1: textures, 10: vertices, 11: struct.pack("<6i", 0, 1, 2, 0, 2, 3), 13: faces}
    lumps[14] = np.full((128, 128, 3), 200, np.uint8).tobytes()
    head, body = b"IBSP" + struct.pack("<i", 46), b""
    for index in range(17):
        part = lumps.get(index, b"")
        head += struct.pack("<ii", 8 + 17 * 8 + len(body), len(part))
        body += part
    return head + body


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("baseoa")
    image = io.BytesIO()
    checks = (np.indices((16, 16)).sum(0) // 4 % 2 * 200 + 40).astype(np.uint8)
    Image.fromarray(np.stack([checks, checks // 2, checks], 2)).save(image, "PNG")
    with zipfile.ZipFile(folder / "pak0.pk3", "w") as archive:
        archive.writestr("maps/Box.bsp", box())
        archive.writestr("gfx/checks.png", image.getvalue())
        stages = "{\n map $lightmap\n }\n {\n map gfx/checks.tga\n }\n"
        archive.writestr("scripts/box.shader", f"textures/checks\n{{\n {stages}}}\n")
    return folder


def test_archives_know_maps_and_textures(folder: Path, tmp_path: Path) -> None:
    archives = Archives(folder)
    assert archives.maps == ["box"]
    texture = archives.texture("textures/CHECKS")
    assert texture is not None and texture.size == (16, 16)
    assert archives.texture("textures/none") is None
    with pytest.raises(UserError, match=r"maps: got no \.pk3 file"):
        Archives(tmp_path)
    (tmp_path / "pak0.pk3").write_bytes(b"no archive")
    with pytest.raises(UserError, match="no archive"):
        Archives(tmp_path)


def test_shaders_name_their_first_image() -> None:
    text = "a // one\n{\n qer_editorimage x/editor.tga\n {\n map $lightmap\n }\n"
    text += " {\n clampMap y/First.tga\n }\n}\nb\n{\nqer_editorimage x/b.tga\n}\n"
    assert shader_images(text) == {"a": "y/first.tga", "b": "x/b.tga"}


def test_a_map_is_read_in_metres_with_y_upwards(folder: Path) -> None:
    place = read_map(box(), "box")
    assert list(place.triangles) == [Surface("textures/checks", 0, False)]
    corners = place.triangles[Surface("textures/checks", 0, False)]
    assert corners.shape == (36, 7)
    np.testing.assert_allclose(corners[:, :3].min(0), [0, 0, -SIDE / METER])
    np.testing.assert_allclose(corners[:, :3].max(0), [SIDE / METER, SIDE / METER, 0])
    np.testing.assert_allclose(place.places, [[5, 0.75, -5]])
    with pytest.raises(UserError, match="another format"):
        read_map(b"IBSP" + struct.pack("<i", 47) + box()[8:], "box")
    with pytest.raises(UserError, match="box: got a damaged map"):
        read_map(box()[:-40000] + b"", "box")


def test_splits_share_no_map(folder: Path) -> None:
    names = [f"map{i}" for i in range(300)]
    counts = {split: sum(split_of(name) == split for name in names) for split in ("train", "validation", "test")}
    assert counts["train"] > counts["test"] > counts["validation"] > 10
    assert sum(len(maps_of(Archives(folder), split)) for split in counts) == 1
    with pytest.raises(UserError, match="split"):
        maps_of(Archives(folder), "all")


def test_projections_are_those_of_the_camera() -> None:
    camera = Camera.looking((5, 2, -5), (8, 3, -9), field_of_view=70)
    points = np.random.default_rng(0).uniform((6, 2, -8), (8, 4, -6), (20, 3))
    clip = np.concatenate([points, np.ones((20, 1))], 1) @ projection(camera).T
    places, depth = camera.project(points)
    np.testing.assert_allclose(clip[:, :2] / clip[:, 3:], places * 2 - 1)
    np.testing.assert_allclose(clip[:, 3], depth)
    assert (np.abs(clip[:, 2] / clip[:, 3]) < 1).all()


def test_paths_go_sideways_and_look_at_one_point() -> None:
    for cameras in paths(np.array([[5.0, 0.75, -5.0]]), np.random.default_rng(0), 20):
        steps = np.diff([camera.position for camera in cameras], axis=0)
        np.testing.assert_allclose(steps, steps[:1].repeat(3, 0), atol=1e-9)
        assert 0.15 < np.linalg.norm(steps[0]) < 0.5
        assert abs(steps[0] @ cameras[0].world_to_camera[2, :3]) < 0.6 * np.linalg.norm(steps[0])


def test_dark_near_and_empty_frames_are_left_out() -> None:
    image = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
    camera = Camera.looking((0, 0, 0), (0, 0, 1))
    assert Shot(camera, image, np.full((8, 8), 3.0)).good
    for other, depth in ((image // 10, 3.0), (image, 0.5), (image, 40.0), (image, 0.0)):
        assert not Shot(camera, other, np.full((8, 8), depth)).good


@pytest.fixture
def archives(folder: Path) -> Archives:
    """Archives, where there is OpenGL."""
    found = Archives(folder)
    pytest.importorskip("moderngl")
    try:
        with Renderer(read_map(box(), "box"), found, 8):
            return found
    except UserError as error:
        pytest.skip(str(error))


def test_depth_is_exact_and_the_top_of_an_image_is_up(archives: Archives) -> None:
    camera = Camera.looking((5, 5, -5), (5, 5, -9))
    with Renderer(read_map(box(), "box"), archives, 32) as renderer:
        image, depth = renderer.view(camera)
        above = renderer.view(Camera.looking((5, 9.5, -5), (5, 9.5, -9)))[1]
    np.testing.assert_allclose(depth, 5, atol=1e-3)
    assert image.std() > 20
    assert above[0].mean() < above[-1].mean()  # the ceiling is near
    points = camera.points(depth)
    np.testing.assert_allclose(points[..., 2], -10, atol=1e-3)


def test_clips_are_those_that_training_reads(archives: Archives, folder: Path, tmp_path: Path) -> None:
    assert write_clips(archives, "box", tmp_path / "clips", count=2, size=32) == 2
    (views, _) = PosedViews(tmp_path / "clips", margin=2)
    assert views["reference_0"].time == 0 and views["extrapolating"].time == 3
    frame = views["interpolating"]
    assert frame.image.size == (32, 32)
    depth = frame.depth
    assert depth is not None
    points = frame.camera.points(depth)
    inside = np.abs(points - [5, 5, -5]).max(-1)
    np.testing.assert_allclose(inside, 5, atol=0.02)  # all on the walls of the box
    command = ["render", str(tmp_path / "new"), "--maps_dir", str(folder), "--split", split_of("box")]
    assert main([*command, "--clips_per_map", "1", "--resolution", "16"]) == 0
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["box-000", "box-000.txt"]


def test_remedies_of_bad_commands(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("weftwork.scripts.render.write_clips", lambda *_, count, size, **__: count * size)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "file").touch()
    command = f"render new --maps_dir {folder} --split {split_of('box')}"
    wrong = [
        (f"{command} --clips_per_map 0", "clips_per_map: got 0, expected at least 1; raise it"),
        (f"{command} --maps q3dm17", "maps: got 'q3dm17', expected some of the split '.*': box; correct it"),
        (command.replace("new", "old"), "old: got .* a folder with files, expected none; name another, or remove it"),
    ]
    check_command(f"{command} --clips_per_map 1 --maps box", wrong, capsys)
