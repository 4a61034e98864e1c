"""A new view end to end on a tiny untrained model: shapes, truth of what is passed on, files, and clear errors."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from tiny import tiny_pipe
from tiny_views import REFERENCES, ROOM, TARGET

from weftwork.attention_processors.views.adapter import AlignedViews
from weftwork.attention_processors.views.conditions import ReferenceView
from weftwork.attention_processors.views.point_maps import PointRange, normals_of
from weftwork.attention_processors.views.warping import warp_mesh
from weftwork.datasets.readers.cameras import Camera
from weftwork.pipelines.views.pipeline import AlignedViewsOutput, AlignedViewsPipeline


@pytest.fixture(scope="module")
def pipe() -> Any:
    torch.manual_seed(0)
    pipe: Any = tiny_pipe(AlignedViewsPipeline)
    views = AlignedViews.for_denoiser(pipe.unet, rank=2)
    with torch.no_grad():
        for name, parameter in views.named_parameters():
            if parameter.requires_grad and ("lora_B" in name or "conv_out" in name or "warped_in" in name):
                parameter.normal_(std=0.1)
    pipe.attach(views=views)
    return pipe


def view(pipe: Any, references: Any = REFERENCES, camera: Camera = TARGET.camera, **options: Any) -> AlignedViewsOutput:
    settings = {"num_inference_steps": 1, "generator": torch.Generator().manual_seed(0)}
    return pipe(references, camera, **{**settings, **options})


@pytest.fixture(scope="module")
def plain(pipe: Any) -> AlignedViewsOutput:
    return view(pipe)


@pytest.mark.parametrize("mesh", [True, False])
def test_a_view_has_image_and_geometry(pipe: Any, plain: AlignedViewsOutput, mesh: bool) -> None:
    out = plain if mesh else view(pipe, mesh=False)
    assert out.images[0].size == (64, 64)
    assert out.points.shape == out.normals.shape == (64, 64, 3)
    places, depth = TARGET.camera.project(out.points)
    np.testing.assert_allclose(out.depth, depth)
    centres = (np.arange(64) + 0.5) / 64
    np.testing.assert_allclose(places, np.stack(np.meshgrid(centres, centres), -1), atol=1e-6)  # on their own rays
    np.testing.assert_allclose(np.linalg.norm(out.normals, axis=-1), 1, atol=1e-6)
    assert 0.5 < out.seen.mean() < 1
    assert view(pipe, output_type="np").images.shape == (1, 64, 64, 3)


def test_the_same_seed_gives_the_same_view_and_everything_passed_counts(pipe: Any, plain: AlignedViewsOutput) -> None:
    assert np.array_equal(view(pipe).pixels, plain.pixels)
    for other in (
        view(pipe, REFERENCES[:1]),
        view(pipe, camera=ROOM.views["extrapolating"].camera),
        view(pipe, prompt="a person", guidance_scale=4.0),
        view(pipe, generator=torch.Generator().manual_seed(1)),
        view(pipe, mesh=False),
        view(pipe, [replace(one, image=one.image[..., ::-1].copy()) for one in REFERENCES]),
    ):
        assert not np.array_equal(other.points, plain.points)


def test_guidance_of_1_and_equal_prompts_are_none(pipe: Any) -> None:
    guided = view(pipe, prompt="a", negative_prompt="a", guidance_scale=3.0)
    np.testing.assert_allclose(guided.points, view(pipe, prompt="a").points, atol=1e-3)


def test_the_backbone_is_left_as_it_was(pipe: Any) -> None:
    before = {name: value.clone() for name, value in pipe.unet.state_dict().items()}
    view(pipe)
    assert all(torch.equal(value, before[name]) for name, value in pipe.unet.state_dict().items())
    assert not pipe.unet.conv_in._forward_hooks
    assert all(not network.conv_in._forward_hooks for network in pipe.views.roles.values())


def test_a_folder_brings_the_adapter_back(pipe: Any, plain: AlignedViewsOutput, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path)
    again = AlignedViewsPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert np.array_equal(view(again).pixels, plain.pixels)
    again.set_weights(views=0.5)
    with pytest.raises(ValueError, match=r"weight: got 0\.5 for 'views', expected 1"):
        view(again)
    again.detach()
    with pytest.raises(ValueError, match="views: got 0 adapters"):
        view(again)


@pytest.mark.parametrize("suffix", [".ply", ".glb"])
def test_a_point_cloud_opens_with_its_colours(plain: AlignedViewsOutput, tmp_path: Path, suffix: str) -> None:
    path = plain.save_point_cloud(tmp_path / "new" / f"room{suffix}")
    loaded: Any = trimesh.load(path)
    cloud = loaded if suffix == ".ply" else next(iter(loaded.geometry.values()))
    np.testing.assert_allclose(cloud.vertices, plain.points.reshape(-1, 3), atol=1e-4)
    assert np.array_equal(np.asarray(cloud.colors)[:, :3], plain.pixels.reshape(-1, 3))
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    with pytest.raises(ValueError, match=r"path: got 'room\.txt'"):
        plain.save_point_cloud(tmp_path / "room.txt")


# Point maps


def test_each_step_is_told_and_may_stop_the_view(pipe: Any) -> None:
    told: list[tuple[int, Any]] = []

    def tell(_: Any, step: int, __: Any, tensors: dict[str, torch.Tensor]) -> None:
        told.append((step, tensors["latents"].shape))

    view(pipe, num_inference_steps=2, callback_on_step_end=tell)
    assert told == [(0, (1, 4, 8, 8)), (1, (1, 4, 8, 8))]
    with pytest.raises(ZeroDivisionError):
        view(pipe, callback_on_step_end=lambda *_: 1 / 0)
    assert not pipe.unet.conv_in._forward_hooks


def test_a_camera_goes_around_a_point() -> None:
    camera, pivot = TARGET.camera, np.array([0.3, 0.8, -0.2])
    place, depth = camera.project(pivot)
    for azimuth, elevation, distance in ((30, 0, 1), (0, 20, 1), (-15, 10, 1.5)):
        moved = camera.orbited(pivot, azimuth, elevation, distance)
        found, away = moved.project(pivot)
        np.testing.assert_allclose(found, place)
        assert away == pytest.approx(distance * depth)
        step, right = moved.position - camera.position, camera.world_to_camera[0, :3]
        assert azimuth * (step @ right) >= 0 and (elevation == 0 or step[1] > 0)
    np.testing.assert_allclose(camera.orbited(pivot).world_to_camera, camera.world_to_camera)
    with pytest.raises(ValueError, match="distance: got 0"):
        camera.orbited(pivot, distance=0)


def test_points_come_back_from_their_range() -> None:
    span = PointRange.over(REFERENCES, TARGET.camera)
    for points in (REFERENCES[0].points, REFERENCES[1].points):
        values = span.scaled(points)
        assert np.abs(values).max() < 1
        np.testing.assert_allclose(span.restored(values), points, atol=1e-9)
    beyond = span.scaled(np.full((1, 1, 3), 1e6))
    assert np.abs(beyond).max() == 1
    assert (span.scaled(np.full((1, 1, 3), np.nan)) == 0).all()


def test_what_is_read_is_in_the_targets_frame() -> None:
    span = PointRange.over(REFERENCES, TARGET.camera)
    warped = warp_mesh(REFERENCES, TARGET.camera, (64, 64))
    geometry, seen = span.geometry(warped).numpy(), warped.seen
    assert geometry.shape == (8, 64, 64)
    assert np.array_equal(geometry[7] == 1, seen)
    np.testing.assert_allclose(geometry[:3, seen].T, span.scaled(warped.points)[seen], atol=1e-6)
    rays = Camera(TARGET.camera.focal, np.eye(4)).rays(64, 64)
    assert ((geometry[3:6] * np.moveaxis(rays, -1, 0)).sum(0)[seen] < 1e-6).all()  # normals face the camera
    assert (np.abs(geometry[6] - TARGET.depth / span.high[2])[seen] < 0.01).mean() > 0.97


def test_any_model_of_depth_may_be_asked() -> None:
    picture = Image.new("RGB", (32, 16), "red")
    camera = Camera.looking((0, 0, 0), (0, 0, 1), aspect=0.5)
    asked = ReferenceView.of_image(picture, lambda one: np.full(one.size[::-1], 3.0), camera, (8, 8))
    given = ReferenceView.of_image(picture, np.full((16, 32), 3.0), camera, (8, 8))
    assert np.array_equal(asked.points, given.points)


def test_normals_of_points_are_those_of_the_room() -> None:
    found = normals_of(TARGET.points, TARGET.camera)
    agreement = (found * TARGET.normals).sum(-1)
    assert np.median(agreement) > 0.999 and (agreement > 0.95).mean() > 0.85


# Bad input


def test_bad_calls_are_refused(pipe: Any) -> None:
    small = ReferenceView.of_depth(np.zeros((32, 32, 3)), np.ones((32, 32)) + np.eye(32), TARGET.camera)
    turned = Camera.looking(TARGET.camera.position, 2 * TARGET.camera.position - (2.0, 1.0, 1.0))
    cases: list[tuple[dict[str, Any], str]] = [
        ({"references": []}, "references: got none"),
        ({"references": [*REFERENCES, small]}, "references: got images of 32x32, 64x64, expected 64x64 for all"),
        ({"camera": turned}, "camera: got one that"),
        ({"output_type": "latent"}, "output_type: got 'latent'"),
    ]
    for options, message in cases:
        with pytest.raises(ValueError, match=message):
            view(pipe, **options)
    with pytest.raises(ValueError, match="views: got 0 adapters of views, expected one"):
        view(tiny_pipe(AlignedViewsPipeline))


def test_flat_points_are_refused() -> None:
    image = np.zeros((8, 8, 3))
    flat = ReferenceView(image, np.ones((8, 8, 3)), Camera.looking((0, 0, 0), (0, 0, 1)))
    with pytest.raises(ValueError, match="points: got an extent of"):
        PointRange.over([flat], Camera.looking((0, 0, 0), (0, 0, 1)))
