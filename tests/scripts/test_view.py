"""`weftwork view`: a photograph and its depth become a view, points and a turn; depth models; clear errors."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny_pipe
from tiny_views import REFERENCES, TARGET
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config, DPTImageProcessor

from weftwork.attention_processors.views.adapter import AlignedViews
from weftwork.attention_processors.views.conditions import ReferenceView
from weftwork.pipelines.views.depth import FARTHEST, NEAREST, DepthModel, depth_of_inverse
from weftwork.pipelines.views.pipeline import AlignedViewsPipeline
from weftwork.pipelines.views.turning import pivot_of, turned
from weftwork.scripts.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with modules, a photograph, and its depth."""
    folder = tmp_path_factory.mktemp("view")
    pipe: Any = tiny_pipe(AlignedViewsPipeline)
    AlignedViews.for_denoiser(pipe.unet, rank=1).save_pretrained(folder / "adapter")
    pipe.save_pretrained(folder / "model")
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (60, 80, 3), np.uint8)).save(folder / "photo.png")
    np.save(folder / "depth.npy", 2 + np.linspace(0, 1, 30)[:, None] + np.zeros((30, 40)))
    return folder


def command(folder: Path, *options: str, depth: str = "depth.npy") -> list[str]:
    paths = ["--depth", str(folder / depth), "--model", str(folder / "model"), "--adapter", str(folder / "adapter")]
    return ["view", str(folder / "photo.png"), *paths, "--num_inference_steps", "1", *options]


def test_a_photograph_becomes_a_view_and_a_turn(folder: Path, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    name = tmp_path / "out" / "view"
    assert main(command(folder, "--turn", "5", "--frames", "3", "--output", str(name))) == 0
    assert sorted(path.name for path in name.parent.iterdir()) == ["view-depth.png", "view.mp4", "view.ply", "view.png"]
    with Image.open(f"{name}.png") as image:
        assert image.size == (85, 64)  # the photograph's aspect
    with av.open(f"{name}.mp4") as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(frames) == 4 and frames[0].shape == (64, 84, 3)  # and back, without the ends


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--field_of_view", "180"], "field_of_view: got 180"),
        (["--turn", "120"], "turn, frames: got 120"),
        (["--vae", "x"], "vae: has no effect"),
        (["--distance", "0"], "distance: got 0"),
        (["--azimuth", "nan"], "azimuth: got nan, expected degrees; pass a finite number"),
        (["--frames", "5"], "frames: has no effect without --turn; leave it out"),
    ],
)
def test_options_out_of_range_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main(command(folder, *options, "--output", str(tmp_path / "x"))) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_depth_that_does_not_fit_is_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(folder / "wide.npy", np.ones((10, 40)))
    assert main(command(folder, "--output", str(tmp_path / "x"), depth="wide.npy")) == 2
    assert "depth: got shape (10, 40) for an image of 60x80" in capsys.readouterr().err
    assert main(command(folder, "--output", str(tmp_path / "x"), depth="model")) == 2
    assert "without a depth model" in capsys.readouterr().err


def depth_model(folder: Path, kind: str) -> Path:
    backbone = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=28,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=16,
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        head_hidden_size=4,
        depth_estimation_type=kind,
    )
    torch.manual_seed(0)
    DepthAnythingForDepthEstimation(config).save_pretrained(folder)
    size = {"height": 28, "width": 28}
    DPTImageProcessor(size=size, keep_aspect_ratio=False, ensure_multiple_of=14).save_pretrained(folder)
    return folder


def test_models_of_inverse_depth_are_told_from_metric_ones(tmp_path: Path) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8))
    relative = DepthModel.from_pretrained(depth_model(tmp_path / "relative", "relative"))
    metric = DepthModel.from_pretrained(depth_model(tmp_path / "metric", "metric"))
    assert relative.inverse and not metric.inverse
    depth = relative(image)
    assert depth.shape == (30, 40)
    np.testing.assert_allclose((depth.min(), depth.max()), (NEAREST, FARTHEST), rtol=1e-5)
    assert metric(image).shape == (30, 40)


def test_inverse_depth_is_linear_between_its_ends() -> None:
    depth = depth_of_inverse(np.array([[7.0, 5.0, 3.0]]))
    np.testing.assert_allclose(1 / depth, [[1 / NEAREST, (1 / NEAREST + 1 / FARTHEST) / 2, 1 / FARTHEST]])


def test_frames_between_read_both_ends() -> None:
    asked: list[tuple[int, float]] = []

    class Out:
        pixels, depth = (REFERENCES[0].image * 255).astype(np.uint8), np.full((64, 64), 2.0)

    def generate(references: Any, camera: Any) -> Any:
        asked.append((len(references), float(camera.position[0])))
        return Out()

    finished: list[int] = []
    assert len(turned(generate, REFERENCES[0], 10, 5, finished.append)) == 5
    assert [count for count, _ in asked] == [1, 2, 3, 3, 3] and finished == [1, 2, 3, 4, 5]


def test_cameras_turn_around_what_the_middle_shows() -> None:
    points = TARGET.camera.points(TARGET.depth)
    view = ReferenceView.of_depth(TARGET.image / 255, TARGET.depth, TARGET.camera)
    assert np.array_equal(pivot_of(view), np.median(points[21:-21, 21:-21].reshape(-1, 3), 0))
    edge = np.zeros_like(TARGET.depth)
    edge[0] = TARGET.depth[0]
    assert np.isfinite(pivot_of(ReferenceView.of_depth(TARGET.image / 255, edge, TARGET.camera))).all()
