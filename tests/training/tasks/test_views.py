"""Training of aligned views on rooms and clips; the pipeline loads the result."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import loaded_views, tiny_pipe

from weftwork.attention_processors.core.adapter_files import state_sha256
from weftwork.attention_processors.views.adapter import SHARINGS, AlignedViews
from weftwork.attention_processors.views.conditions import ReferenceView
from weftwork.attention_processors.views.point_maps import PointRange
from weftwork.datasets.synthetic.rooms import REFERENCES, sample
from weftwork.pipelines.views.pipeline import AlignedViewsPipeline
from weftwork.scripts.cli import main
from weftwork.training.core.config import TrainingConfig
from weftwork.training.core.loop import train
from weftwork.training.data.views import PreparedViews, RoomImages, cached_room_latents
from weftwork.training.tasks.views import AlignedViewsTask, ViewsConfig

SIZE = 64


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Any:
    pipe: Any = tiny_pipe(AlignedViewsPipeline)
    pipe.folder = tmp_path_factory.mktemp("model")
    pipe.save_pretrained(pipe.folder)
    return pipe


@pytest.fixture(scope="module")
def images(pipe: Any) -> RoomImages:
    return RoomImages(pipe.folder / "cache", "train", 4, SIZE)


@pytest.fixture(scope="module")
def data(images: RoomImages, pipe: Any) -> PreparedViews:
    latents = cached_room_latents(pipe.folder / "cache", pipe.vae, images)
    return PreparedViews(images, latents)


def test_drawn_rooms_are_the_rooms(images: RoomImages) -> None:
    assert images.truth == ["interpolating", "extrapolating"] * 2
    room = sample("train", 1, size=SIZE).views
    drawn, target = images.view(1), room["extrapolating"]
    np.testing.assert_allclose((drawn[2, :3] + 1) * 127.5, np.moveaxis(target.image, -1, 0), atol=0.1)
    span = PointRange.over([ReferenceView.of_view(room[name]) for name in REFERENCES], target.camera)
    points = span.restored(np.moveaxis(drawn[2, 3:6], 0, -1))
    inside = np.abs(drawn[2, 3:6]).max(0) < 1
    np.testing.assert_allclose(points[inside], target.points[inside], atol=0.02)
    assert inside.mean() > 0.8
    known, seen = drawn[2, 14:], drawn[2, 13] > 0
    assert (known[:, ~seen] == 0).all() and np.abs(known - drawn[2, :3])[:, seen].mean() < 0.15
    seen = drawn[:, 13]
    assert set(np.unique(seen)) <= {0, 1} and seen[:2].mean() > 0.9 and 0.4 < seen[2].mean() < 1


def test_planes_are_images_and_point_maps(images: RoomImages) -> None:
    planes = images.planes().reshape(4, 2, 3, SIZE, SIZE, 3)
    drawn = np.moveaxis((images.view(3)[1, :6] + 1) * 127.5, 0, -1)
    for part in range(2):
        np.testing.assert_allclose(planes[3, part, 1], drawn[..., 3 * part : 3 * part + 3], atol=0.6)


def test_latents_are_those_of_the_images(data: PreparedViews, pipe: Any) -> None:
    record = data[2]
    drawn = torch.from_numpy(data.images.view(2))
    with torch.no_grad():
        expected = pipe.vae.encode(drawn[1:2, 3:6]).latent_dist.mode() * pipe.vae.config.scaling_factor
    torch.testing.assert_close(record.points[1:2], expected, atol=5e-3, rtol=5e-3)
    assert record.image.shape == record.points.shape == (3, 4, 8, 8)
    assert record.geometry.shape == (3, 8, SIZE, SIZE)
    with torch.no_grad():
        seen = pipe.vae.encode(drawn[2:, 14:]).latent_dist.mode()[0] * pipe.vae.config.scaling_factor
    torch.testing.assert_close(record.warped, seen, atol=5e-3, rtol=5e-3)


@pytest.mark.parametrize(
    "sharing", [one if one == "instillation" else pytest.param(one, marks=pytest.mark.slow) for one in SHARINGS]
)
def test_training_learns_and_leaves_the_backbone(sharing: str, data: PreparedViews, pipe: Any, tmp_path: Path) -> None:
    before = state_sha256(pipe.unet)
    torch.manual_seed(0)
    task = AlignedViewsTask(AlignedViews.for_denoiser(pipe.unet, rank=2, sharing=sharing), pipe, ViewsConfig())
    config = TrainingConfig(
        output_dir=str(tmp_path), max_train_steps=3, train_batch_size=2, learning_rate=1e-2, lr_warmup_steps=0,
        use_ema=False, checkpointing_steps=0,
    )  # fmt: skip
    batch = task.collate([data[0], data[1]])
    losses = [task.loss(batch, torch.Generator().manual_seed(0), 0).item()]
    folder = train(task, data, config)
    losses.append(task.loss(batch, torch.Generator().manual_seed(0), 0).item())
    assert losses[1] < losses[0]
    assert state_sha256(pipe.unet) == before
    trained = loaded_views(folder, pipe.unet)
    assert trained.sharing == sharing
    again = AlignedViewsTask(trained, pipe, ViewsConfig()).loss(batch, torch.Generator().manual_seed(0), 0)
    np.testing.assert_allclose(again.item(), losses[1], rtol=1e-5)


@pytest.mark.parametrize(
    "sharing", [one if one == "instillation" else pytest.param(one, marks=pytest.mark.slow) for one in SHARINGS]
)
def test_a_backbone_in_half_precision_trains_and_draws(sharing: str, data: PreparedViews) -> None:
    pipe: Any = tiny_pipe(AlignedViewsPipeline).to(torch.bfloat16)
    task = AlignedViewsTask(AlignedViews.for_denoiser(pipe.unet, rank=2, sharing=sharing), pipe, ViewsConfig())
    trained = [parameter for parameter in task.module.parameters() if parameter.requires_grad]
    assert {parameter.dtype for parameter in trained} == {torch.float32}
    loss = task.loss(task.collate([data[0], data[1]]), torch.Generator().manual_seed(0), 0)
    loss.backward()
    assert loss.isfinite() and any(parameter.grad is not None and parameter.grad.any() for parameter in trained)
    pipe.attach(views=task.module)
    room = sample("train", 0, size=SIZE).views
    references = [ReferenceView.of_view(room[name]) for name in REFERENCES]
    out = pipe(references, room["interpolating"].camera, num_inference_steps=1, output_type="np")
    assert np.isfinite(out.points).all() and np.isfinite(out.images).all()


def test_the_geometry_weight_counts_and_bad_ones_are_refused(data: PreparedViews, pipe: Any) -> None:
    module = AlignedViews.for_denoiser(pipe.unet, rank=2)
    losses = []
    for weight in (0.0, 1.0, 3.0):
        task = AlignedViewsTask(module, pipe, ViewsConfig(geometry_weight=weight, snr_gamma=None))
        batch = task.collate([data[0], data[1]])
        losses.append(task.loss(batch, torch.Generator().manual_seed(0), 0).item())
    np.testing.assert_allclose(losses[2] - losses[0], 3 * (losses[1] - losses[0]), rtol=1e-4)
    with pytest.raises(ValueError, match="geometry_weight: got -1"):
        ViewsConfig(geometry_weight=-1)


# The command


def clips(folder: Path) -> Path:
    """A room as a clip of four frames with depth."""
    (folder / "clip").mkdir(parents=True)
    lines = ["https://example.org"]
    for i, name in enumerate(("reference_0", "interpolating", "reference_1", "extrapolating")):
        view = sample("train", 0, size=SIZE).views[name]
        pose = view.camera.world_to_camera[:3].flatten().tolist()
        lines.append(" ".join(map(str, [i, *view.camera.focal, *view.camera.center, 0, 0, *pose])))
        Image.fromarray(view.image).save(folder / "clip" / f"{i}.png")
        np.save(folder / "clip" / f"{i}.npy", view.depth)
    (folder / "clip.txt").write_text("\n".join(lines))
    return folder


def command(pipe: Any, folder: Path, *more: str) -> int:
    few = ["--max_train_steps", "1", "--train_batch_size", "2", "--checkpointing_steps", "0"]
    few += ["--validation_steps", "0"]
    model = ["--pretrained_model_name_or_path", str(pipe.folder), "--cache_dir", str(pipe.folder / "cache")]
    return main(["train", "aligned-views", *model, "--output_dir", str(folder / "out"), *few, *more])


@pytest.mark.slow
def test_the_command_trains_on_rooms_and_resumes(pipe: Any, data: PreparedViews, tmp_path: Path) -> None:
    rooms = ["--synthetic", "rooms", "--samples", "4"]
    new = ["--rank", "2", "--sharing", "concatenated", "--validation_steps", "1", "--validation_cases", "2"]
    assert command(pipe, tmp_path, *rooms, *new) == 0
    last = json.loads((tmp_path / "out" / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"psnr", "depth_error_unseen", "alignment"} <= set(last)
    with Image.open(tmp_path / "out" / "validation" / "000001-cases.png") as sheet:
        assert sheet.height == 2 * SIZE
    views = loaded_views(tmp_path / "out" / "final", pipe.unet)
    assert views.sharing == "concatenated" and views.config["training"]["data"] == "rooms"
    assert command(pipe, tmp_path / "again", *rooms, "--init_from", str(tmp_path / "out" / "final")) == 0
    again = loaded_views(tmp_path / "again" / "out" / "final", pipe.unet)
    assert again.config["training"]["after"] == views.config["training"]


@pytest.mark.slow
def test_the_command_trains_on_clips(pipe: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = clips(tmp_path / "data")
    assert command(pipe, tmp_path, "--train_data_dir", str(data), "--margin", "2", "--validation_steps", "1") == 0
    assert loaded_views(tmp_path / "out" / "final", pipe.unet).config["training"]["samples"] == 2
    with Image.open(tmp_path / "out" / "validation" / "000001.png") as sheet:
        assert sheet.size == (6 * SIZE, 2 * SIZE)  # references, truth, view, and the depth of both
        shown = np.asarray(sheet)
    truth = sample("train", 0, size=SIZE).views["interpolating"].image
    assert np.abs(shown[:SIZE, 2 * SIZE : 3 * SIZE].astype(int) - truth).max() <= 1
    (data / "clip" / "1.npy").unlink()
    assert command(pipe, tmp_path / "again", "--train_data_dir", str(data), "--margin", "2") == 2
    assert "got a frame without depth, expected 1.npy beside it" in capsys.readouterr().err


def test_the_command_needs_one_source(pipe: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(pipe, tmp_path) == 2
    assert "data: got none; pass exactly one of --train_data_dir, --synthetic" in capsys.readouterr().err
