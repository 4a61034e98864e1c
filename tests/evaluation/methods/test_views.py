"""Views evaluation: all rows, upper bounds above lower bounds, and restored modules."""

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny_pipe

from weftwork.attention_processors.views.adapter import AlignedViews
from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.readers.posed_views import PosedViews
from weftwork.datasets.synthetic.rooms import sample
from weftwork.evaluation.methods.views import BLENDED, VARIANTS, AlignedViewsEvaluation
from weftwork.evaluation.oracles.instruments import inpainted
from weftwork.pipelines.views.pipeline import AlignedViewsPipeline
from weftwork.scripts.cli import main

FIXED = ["real", "shuffled", "reconstruction", "shuffled_reconstruction", "warp", "warp_filled"]
FIXED += ["warp_inpainted"] * (find_spec("cv2") is not None)
TRAINED = ("no_instillation", "concatenated", "instillation")


@pytest.fixture(scope="module")
def evaluation() -> AlignedViewsEvaluation:
    pipe: Any = tiny_pipe(AlignedViewsPipeline)
    torch.manual_seed(0)
    views = {}
    for name, sharing in zip(TRAINED, ("none", "concatenated", "instillation"), strict=True):
        one = AlignedViews.for_denoiser(pipe.unet, rank=2, sharing=sharing)
        views[name] = [one]
        with torch.no_grad():
            for key, parameter in one.named_parameters():
                if "lora_B" in key:
                    parameter.normal_(std=0.1)
    return AlignedViewsEvaluation(pipe=pipe, views=views, size=64, count=2, num_inference_steps=1)


def test_every_row_is_drawn_and_scored(evaluation: AlignedViewsEvaluation, tmp_path: Path) -> None:
    links = {name: views[0].link for name, views in evaluation.views.items()}
    evaluation.run(tmp_path)
    report = json.loads((tmp_path / "aligned-views.json").read_text())
    scores = {row["name"]: row["scores"] for row in report["rows"]}
    assert list(scores) == [*FIXED, *TRAINED, *BLENDED, *VARIANTS]
    overall = {"psnr", "psnr_unseen", "ssim", "depth_error_seen", "depth_error_unseen", "alignment"}
    apart = {f"{name}_{place}" for name in ("psnr", "depth_error_unseen") for place in ("between", "beyond")}
    assert set(scores["real"]) - {"stlpips"} == overall | apart
    assert scores["warp"]["psnr_between"] > scores["warp"]["psnr"] > scores["warp"]["psnr_beyond"]
    real, warp = scores["real"], scores["warp"]
    assert real["depth_error_seen"] == 0 and real["ssim"] > 0.999
    assert warp["depth_error_seen"] < 0.05 < warp["depth_error_unseen"]
    assert scores["shuffled"]["alignment"] < real["alignment"]
    kept = scores["reconstruction"]
    assert kept["psnr"] < real["psnr"] and kept["depth_error_seen"] > 0  # depth goes through the autoencoder, too
    assert 10 < warp["psnr"] < real["psnr"]
    assert {name: views[0].link for name, views in evaluation.views.items()} == links
    assert scores["warp_filled"]["psnr_unseen"] > warp["psnr_unseen"]
    assert scores["warp_filled"]["depth_error_unseen"] < warp["depth_error_unseen"]
    for name in ("instillation", "instillation_pixels"):
        assert scores[name]["depth_error_seen"] < scores["instillation_generated"]["depth_error_seen"]
    assert (tmp_path / "aligned-views.png").is_file()


@pytest.mark.slow
def test_variants_change_the_geometry_and_not_the_image(evaluation: AlignedViewsEvaluation) -> None:
    rows = evaluation.rows()
    image, scores = rows["instillation"]()
    for name in VARIANTS:
        other, changed = rows[name]()
        assert torch.equal(other, image)
        assert changed["depth_error_unseen"] != scores["depth_error_unseen"]


@pytest.mark.parametrize("channels", [(), (3,)])
def test_inpainting_fills_holes_alone(channels: tuple[int, ...]) -> None:
    pytest.importorskip("cv2")
    values = np.random.default_rng(0).uniform(0.4, 0.6, (16, 16, *channels))
    holes = np.zeros((16, 16), bool)
    holes[4:8, 4:8] = True
    values[holes] = 0
    found = inpainted(values, holes)
    assert np.array_equal(found[~holes], values[~holes]) and found[holes].min() > 0.35


def test_instruments_that_are_not_installed_are_left_out(
    evaluation: AlignedViewsEvaluation, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing() -> None:
        raise UserError("instruments: got no package")

    monkeypatch.setattr("weftwork.evaluation.methods.views.perceptual_distance", missing)
    with caplog.at_level("INFO"):
        assert "stlpips" not in evaluation.rows()["real"]()[1]
    assert "stlpips: left out (instruments: got no package)" in caplog.text
    monkeypatch.setattr("weftwork.evaluation.methods.views.perceptual_distance", lambda: lambda one, other: one.sum())
    assert evaluation.rows()["real"]()[1]["stlpips"] > 0


def test_inpainting_that_is_not_installed_is_named_where_it_is_asked_for(
    evaluation: AlignedViewsEvaluation,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("weftwork.evaluation.methods.views.find_spec", lambda name: None)
    with caplog.at_level("INFO", "weftwork.evaluation.methods.views"):
        evaluation.run(tmp_path, ["real"])
        assert "warp_inpainted" not in caplog.text
        with pytest.raises(UserError, match="rows: got warp_inpainted, expected some of real"):
            evaluation.run(tmp_path, ["warp_inpainted"])
    assert caplog.text.count("warp_inpainted: left out, since OpenCV is not installed") == 1


def test_targets_are_by_turns_between_and_beyond(evaluation: AlignedViewsEvaluation) -> None:
    first, second = evaluation.cases
    assert first.warped.seen.mean() > second.warped.seen.mean()
    assert np.array_equal(first.truth.image, evaluation.cases[0].truth.image)


def test_every_seed_takes_the_next_of_modules_trained_alike(evaluation: AlignedViewsEvaluation) -> None:
    several = [evaluation.views[name][0] for name in ("instillation", "no_instillation")]
    for seed in (0, 1, 2):
        replace(evaluation, views={"instillation": several}, seed=seed, count=1).rows()["instillation"]()
        assert evaluation.pipe.views is several[seed % 2]
    first, second = (replace(evaluation, seed=seed).cases[0].truth.image for seed in (0, 1))
    assert np.array_equal(first, second)  # in the same rooms


def test_without_instillation_its_variants_are_left_out(evaluation: AlignedViewsEvaluation) -> None:
    few = AlignedViewsEvaluation(pipe=evaluation.pipe, views={}, size=64, count=1)
    assert list(few.rows()) == FIXED


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rooms as clips of four frames, with a corner of unknown depth."""
    folder = tmp_path_factory.mktemp("clips")
    for room in range(2):
        (folder / f"room-{room}").mkdir()
        lines = []
        for i, name in enumerate(("reference_0", "interpolating", "reference_1", "extrapolating")):
            view = sample("train", room, size=64).views[name]
            pose = view.camera.world_to_camera[:3].flatten().tolist()
            lines.append(" ".join(map(str, [i, *view.camera.focal, *view.camera.center, 0, 0, *pose])))
            Image.fromarray(view.image).save(folder / f"room-{room}" / f"{i}.png")
            view.depth[:8, :8] = 0
            np.save(folder / f"room-{room}" / f"{i}.npy", view.depth)
        (folder / f"room-{room}.txt").write_text("\n".join(lines))
    return folder


def test_clips_are_measured_instead_of_rooms(
    evaluation: AlignedViewsEvaluation, clips: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    few = replace(evaluation, clips=PosedViews(clips), count=9)
    with caplog.at_level("INFO", "weftwork.evaluation.methods.views"):
        few.run(tmp_path, ["real", "shuffled", "warp", "reconstruction", "instillation"])
    assert "limit: 4, all views of the clips" in caplog.text
    report = json.loads((tmp_path / "aligned-views.json").read_text())
    scores = {row["name"]: row["scores"] for row in report["rows"]}
    assert report["count"] == 4 and np.isfinite([[*row.values()] for row in scores.values()]).all()
    assert scores["real"]["depth_error_seen"] == 0 < scores["reconstruction"]["depth_error_seen"]
    room = sample("train", 1, size=64).views["extrapolating"]
    last = replace(few, count=4).cases[3]
    assert np.array_equal(last.truth.image, room.image / 255)
    assert np.isinf(last.depth[:8, :8]).all() and np.isfinite(last.depth).sum() == 64 * 64 - 8 * 8
    two = replace(few, count=2).cases
    assert np.array_equal(two[0].references[0].image, replace(few, count=4).cases[0].references[0].image)
    with pytest.raises(UserError, match="split: got 'validation', which has no effect with clips"):
        replace(few, split="validation").run(tmp_path)


@pytest.mark.slow
def test_the_command_evaluates_folders(
    evaluation: AlignedViewsEvaluation, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluation.pipe.save_pretrained(tmp_path / "model")
    evaluation.views["concatenated"][0].save_pretrained(tmp_path / "views")
    command = ["evaluate", "aligned-views", "--model", str(tmp_path / "model"), "--output", str(tmp_path / "out")]
    few = ["--limit", "2", "--num_inference_steps", "1"]
    assert main([*command, *few, "--concatenated", str(tmp_path / "views")]) == 0
    rows = json.loads((tmp_path / "out" / "aligned-views.json").read_text())["rows"]
    assert [row["name"] for row in rows] == [*FIXED, "concatenated"]
    assert main([*command, *few]) == 2
    clips_of = ["--concatenated", str(tmp_path / "views"), "--clips", str(clips), "--rows", "real"]
    assert main([*command, *few, *clips_of]) == 0
    assert json.loads((tmp_path / "out" / "aligned-views.json").read_text())["count"] == 2
    message = "views: got none, and none are shipped for this backbone; pass one of --no_instillation, --concatenated"
    assert message in capsys.readouterr().err
