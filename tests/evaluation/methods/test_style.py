"""Style evaluation: all rows, and training commands of everything it compares."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny_pipe, tiny_unet
from tiny_baselines import tiny_vision_model, write_lora

from weftwork.attention_processors.encoders import ImageEncoder
from weftwork.attention_processors.reference.adapter import ReferenceAdapter
from weftwork.attention_processors.style.adapter import StyleAdapter
from weftwork.datasets.synthetic.creatures import STYLES
from weftwork.evaluation.core.curve import plot_curve
from weftwork.evaluation.measurements.style import MEASUREMENT as STYLE
from weftwork.evaluation.methods.gates import GatesEvaluation
from weftwork.evaluation.methods.style import CURVE, StyleEvaluation
from weftwork.evaluation.oracles.creatures import CreatureOracle
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline
from weftwork.pretrained import available
from weftwork.scripts.cli import main
from weftwork.training.data.image_cache import OutfitImages
from weftwork.training.data.styles import StyledOutfits

ROWS = [
    *("real", "reconstruction", "no_condition", "text_only", "reference_branch", "lora"),
    *("style", "style_gated"),
]
SCORES = {
    *("style_accuracy", "content_accuracy", "species_accuracy", "color_accuracy", "pose_accuracy"),
    "shape_consistency",
}
COSTS = {"ms_per_step", "trained_parameters", "bytes"}


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> StyleEvaluation:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("adapters")
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    pipe.register_modules(unet=tiny_unet(sample_size=16))
    write_lora(folder / "lora", unet=tiny_unet(sample_size=16))
    for name in ("style", "style_gated"):
        fusion = "gated" if name == "style_gated" else "additive"
        made = StyleAdapter.for_denoiser(
            pipe.unet, layers="decoder", styles=list(STYLES), token_dim=32, style_dim=8, fusion=fusion
        )
        made.save_pretrained(folder / name)
        pipe.attach(**{name: made})
    pipe.attach(
        reference=ReferenceAdapter.for_denoiser(
            pipe.unet, layers="decoder", image_dim=128, token_dim=32, image_size=128
        ),
    )
    pipe.set_encoders(image=ImageEncoder(tiny_vision_model()))
    files = {name: folder / name for name in ("lora", "style", "style_gated")}
    return StyleEvaluation(
        pipe=pipe,
        files=files,
        oracle=CreatureOracle().eval(),
        split="validation",
        count=4,
        num_inference_steps=1,
    )


def test_the_evaluation_fills_all_rows(evaluation: StyleEvaluation, tmp_path: Path) -> None:
    before = list(evaluation.pipe.unet.state_dict())
    report = evaluation.run(tmp_path)
    assert list(evaluation.pipe.unet.state_dict()) == before
    scores = {row.name: row.scores for row in report.rows}
    assert list(scores) == ROWS
    assert set(scores["real"]) == SCORES and set(scores["no_condition"]) == {*SCORES, "ms_per_step"}
    for name in ("lora", "style", "style_gated"):
        assert set(scores[name]) == SCORES | COSTS
    assert scores["style_gated"]["trained_parameters"] - scores["style"]["trained_parameters"] == 2  # a gate per layer
    assert scores["style"]["bytes"] == pytest.approx(4 * scores["style"]["trained_parameters"], abs=2048)
    assert json.loads((tmp_path / "style.json").read_text())["count"] == 4
    with Image.open(tmp_path / "style.png") as sheet:
        assert sheet.size == (150 + 8 * 128, len(ROWS) * 128)


@pytest.mark.skipif("creature-oracle" not in available(), reason="baselines are in a checkout only")
def test_gates_are_compared_with_an_adapter_per_seed(evaluation: StyleEvaluation, tmp_path: Path) -> None:
    folders = {"additive": [evaluation.files["style"]] * 2, "gated": [evaluation.files["style_gated"]]}
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    pipe.register_modules(unet=tiny_unet(sample_size=16))
    made = replace(GatesEvaluation.open(pipe, folders), count=2, split="validation", num_inference_steps=1)
    report = made.run(tmp_path, seeds=(0, 1))
    assert [row.name for row in report.rows] == ["real", "reconstruction", "no_condition", "additive", "gated"]
    assert set(report.rows[-1].scores) >= SCORES | COSTS
    assert list(pipe.adapters) == ["additive_0", "additive_1", "gated_0"]


def test_contents_come_twice_and_in_their_split(evaluation: StyleEvaluation) -> None:
    first, second, third, _ = evaluation.samples
    assert first.creature == second.creature and first.style == second.style
    assert (first.image != second.image).any()
    assert (first.creature, first.style) != (third.creature, third.style)


def test_an_unknown_row_is_refused(evaluation: StyleEvaluation, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"rows: got styles, expected some of real, .*style"):
        evaluation.run(tmp_path, ["styles"])
    assert not list(tmp_path.iterdir())


def test_a_curve_over_weights_is_plotted(evaluation: StyleEvaluation, tmp_path: Path) -> None:
    rows = evaluation.curve()
    assert [row.name for row in rows] == [f"style_at_{weight:g}" for weight in CURVE]
    with Image.open(plot_curve("style", rows, STYLE.curve, tmp_path)) as plot:
        assert plot.size[0] > 300
    assert len(json.loads((tmp_path / "style-curve.json").read_text())["rows"]) == len(CURVE)


@pytest.mark.skipif("creature-oracle" not in available(), reason="baselines are in a checkout only")
@pytest.mark.slow
def test_styles_and_references_train_on_creatures(tmp_path: Path) -> None:
    few = ["--samples", "16", "--cache_dir", str(tmp_path / "cache"), "--max_train_steps", "1", "--lr_warmup_steps"]
    few += ["0", "--train_batch_size", "8", "--validation_steps", "0", "--checkpointing_steps", "0"]
    scored = ["--validation_steps", "1", "--validation_cases", "2"]
    style = ["train", "style", "--synthetic", "creatures", "--output_dir", str(tmp_path / "style"), *few, *scored]
    assert main([*style, "--validation_prompt", "a red cat"]) == 0
    assert "style_accuracy" in (tmp_path / "style" / "metrics.jsonl").read_text()
    assert (tmp_path / "style" / "validation" / "000001-cases.png").is_file()
    adapter = StyleAdapter.from_pretrained(tmp_path / "style" / "final")
    assert tuple(adapter.config["styles"]) == STYLES
    assert adapter.config["training"]["data"] == "creatures" and adapter.config["training"]["samples"] == 16
    assert main(["train", "style", "--synthetic", "all", "--output_dir", str(tmp_path / "all"), *few]) == 0
    about = StyleAdapter.from_pretrained(tmp_path / "all" / "final").config["training"]
    assert about["data"] == "creatures and outfits" and about["samples"] == 32
    reference = ["train", "reference", "--synthetic", "creatures", "--output_dir", str(tmp_path / "reference")]
    tiny_vision_model().save_pretrained(tmp_path / "encoder")
    assert main([*reference, *few, *scored, "--image_encoder", str(tmp_path / "encoder")]) == 0
    assert "style_accuracy" in (tmp_path / "reference" / "metrics.jsonl").read_text()
    assert ReferenceAdapter.from_pretrained(tmp_path / "reference" / "final").config["image_dim"] == 128


def test_too_few_cases_are_refused(evaluation: StyleEvaluation) -> None:
    with pytest.raises(ValueError, match="count: got 1, expected at least 2"):
        replace(evaluation, count=1)


def test_styled_outfits_come_with_words_for_what_is_worn(tmp_path: Path) -> None:
    images = OutfitImages(tmp_path, "train", 10, styled=True)
    data = StyledOutfits(images, np.zeros((10, 4, 2, 2), np.float16))
    for i, record in enumerate(data[i] for i in range(10)):
        assert record.style == STYLES[i % len(STYLES)]
        full = record.captions[0]
        assert all(garment.color in full and garment.kind in full for garment in images.garments[i])
        assert not any(record.style in one.split() for one in record.captions)
    plain = OutfitImages(tmp_path, "train", 10)
    assert plain.garments == images.garments and not np.array_equal(plain.images, images.images)


@pytest.mark.slow
def test_styles_train_on_a_folder(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    lines = []
    for i, style in enumerate(("ink", "oil") * 2):
        Image.new("RGB", (40, 40), (60 * i, 20, 90)).save(images / f"{i}.png")
        lines.append(json.dumps({"file_name": f"{i}.png", "text": "a fox", "style": style}))
    (images / "metadata.jsonl").write_text("\n".join(lines))
    command = ["train", "style", "--train_data_dir", str(images), "--output_dir", str(tmp_path / "out")]
    command += ["--cache_dir", str(tmp_path / "cache"), "--max_train_steps", "1", "--train_batch_size", "2"]
    assert main([*command, "--validation_steps", "1", "--lr_warmup_steps", "0"]) == 0
    assert tuple(StyleAdapter.from_pretrained(tmp_path / "out" / "final").config["styles"]) == ("ink", "oil")
    assert len(list((tmp_path / "out" / "validation").iterdir())) == 2 * 4
    again = ["--init_from", str(tmp_path / "out"), "--output_dir", str(tmp_path / "again"), "--validation_steps", "0"]
    assert main([*command, *again]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "data: got none; pass exactly one of --train_data_dir, --dataset_name, --synthetic"),
        (
            ["--dataset_name", "a/b", "--validation_cases", "8"],
            "validation_cases: got 8, but only a synthetic dataset",
        ),
        (["--synthetic", "creatures", "--streaming"], "streaming: got it without --dataset_name"),
        (["--synthetic", "creatures", "--dataset_name", "a/b"], "data: got --dataset_name and --synthetic"),
        (["--synthetic", "creatures", "--style", "ink"], "style: got 'ink' beside --synthetic"),
        (["--synthetic", "creatures", "--style_dropout", "2"], r"style_dropout: got 2.0, expected a share in \[0, 1\]"),
        (["--train_data_dir", "nowhere"], "nowhere"),
    ],
)
def test_bad_arguments_are_told_before_anything_is_written(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "style", "--output_dir", str(tmp_path / "out"), *arguments]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()
