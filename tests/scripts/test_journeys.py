"""Every method from own data to an image, by commands alone, on tiny backbones of each Stable Diffusion family."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny import drawn_sketch, tiny_pipe, tiny_unet
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
from variants import xl_parts

from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline, ConditionedStableDiffusionXLPipeline
from weftwork.pretrained import available
from weftwork.scripts.cli import main


def sd1() -> Any:
    return tiny_pipe(ConditionedStableDiffusionPipeline)


def sd2() -> Any:
    """Linear projections, numbers of heads by block, and velocities."""
    pipe = sd1()
    pipe.register_modules(unet=tiny_unet(use_linear_projection=True, attention_head_dim=(2, 4)))
    pipe.scheduler.register_to_config(prediction_type="v_prediction")
    return pipe


def xl() -> Any:
    parts = xl_parts()
    return ConditionedStableDiffusionXLPipeline(**parts, add_watermarker=False)


def encoder(folder: Path) -> Path:
    config = CLIPVisionConfig(
        hidden_size=32, intermediate_size=37, num_hidden_layers=1, num_attention_heads=4, image_size=32, patch_size=8,
        projection_dim=16,
    )  # fmt: skip
    CLIPVisionModelWithProjection(config).save_pretrained(folder / "encoder")
    return folder / "encoder"


def paired(folder: Path) -> tuple[list[str], Any]:
    (folder / "data/sketches").mkdir()
    rows = []
    for i in range(3):
        drawn_sketch(i).save(folder / f"data/sketches/{i}.png")
        pair = {"sketch": f"sketches/{i}.png", "text": "a red jacket"}
        rows.append({"file_name": f"{i}.png", "caption": "a person", "pairs": [pair]})
    (folder / "data/metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return [], {"sketch": "data/sketches/0.png", "text": "a red jacket", "region": "sketch"}


def paired_with_pooled_texts(folder: Path) -> tuple[list[str], Any]:
    return ["--text_states", "0"], paired(folder)[1]


def style(folder: Path) -> tuple[list[str], Any]:
    names = ("ink", "pastel")
    rows = [{"file_name": f"{name}.png", "text": "a person", "style": name} for name in names]
    for name in names:
        Image.new("RGB", (64, 64), "navy").save(folder / f"data/{name}.png")
    (folder / "data/metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return [], {"style": "ink"}


def reference(folder: Path) -> tuple[list[str], Any]:
    return ["--image_encoder", str(encoder(folder))], {"image": "data/0.png"}


def made(folder: Path, backbone: Callable[[], Any]) -> None:
    backbone().save_pretrained(folder / "model")
    (folder / "data").mkdir()
    rows = []
    for i in range(3):
        Image.fromarray(np.full((64, 64, 3), 60 * i, np.uint8)).save(folder / f"data/{i}.png")
        rows.append(json.dumps({"file_name": f"{i}.png", "text": "a person", "style": "ink"}))
    (folder / "data/metadata.jsonl").write_text("\n".join(rows))


def run_snippet(card: Path, options: list[str], monkeypatch: pytest.MonkeyPatch) -> Image.Image:
    """Runs the Python text of a card beside the model, with one step, and returns its image."""
    text = card.read_text().partition("```python\n")[2].partition("```")[0]
    places = {"path/to/this/folder": str(card.parent), "image-encoder": options[-1] if options else ""}
    for word, place in places.items():
        text = text.replace(word, place)
    folder = card.parents[2]
    drawn_sketch(0).save(folder / "sketch.png")
    Image.new("RGB", (64, 64)).save(folder / "photo.png")
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(text.replace("num_inference_steps=20", "num_inference_steps=1"), names)
    return names["image"]


JOURNEYS = (paired, paired_with_pooled_texts, style, reference)


@pytest.mark.parametrize(
    ("backbone", "journey"),
    [*((xl, one) for one in JOURNEYS), (sd1, paired), (sd1, reference), (sd2, style)],
    ids=lambda one: one.__name__,
)
def test_from_own_data_to_an_image(
    backbone: Any,
    journey: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A dry run, two steps, one more after them, an image, scores, the snippet of the card, and what `inspect` says."""
    made(tmp_path, backbone)
    options, condition = journey(tmp_path)
    method = journey.__name__.partition("_")[0]
    train = ["train", method, "--train_data_dir", str(tmp_path / "data"), "--output_dir", str(tmp_path / "run"),
             "--pretrained_model_name_or_path", str(tmp_path / "model"), "--cache_dir", str(tmp_path / "cache"),
             "--train_batch_size", "2", "--checkpointing_steps", "2", "--validation_steps", "0",
             "--lr_scheduler", "constant", *options]  # fmt: skip
    assert main([*train, "--max_train_steps", "2", "--dry_run"]) == 0
    assert "loss: " in capsys.readouterr().out and not (tmp_path / "run").exists()
    assert main([*train, "--max_train_steps", "2"]) == 0
    assert main([*train, "--max_train_steps", "3", "--resume_from_checkpoint", "latest"]) == 0
    design = {"prompt": "a person", "seed": 0, "num_inference_steps": 1, "conditions": {method: [condition]}}
    (tmp_path / "design.json").write_text(json.dumps(design))
    more = ["--image_encoder", options[1]] if method == "reference" else []
    generate = ["generate", str(tmp_path / "design.json"), "--model", str(tmp_path / "model"), "--adapter",
                f"{method}={tmp_path / 'run'}", "--output", str(tmp_path / "out.png"), *more]  # fmt: skip
    assert main(generate) == 0
    with Image.open(tmp_path / "out.png") as image:
        assert image.size == (64, 64)
    if method == "paired" and "oracle" in available():  # a wheel does not have it
        evaluate = ["evaluate", "paired", "--adapter", str(tmp_path / "run"), "--model", str(tmp_path / "model"),
                    "--rows", "pairs", "--limit", "2", "--num_inference_steps", "1",
                    "--output", str(tmp_path / "report")]  # fmt: skip
        assert main(evaluate) == 0
        (found,) = json.loads((tmp_path / "report/paired.json").read_text())["rows"]
        assert found["name"] == "pairs" and found["scores"]
    assert run_snippet(tmp_path / "run/final/README.md", options, monkeypatch).size == (64, 64)
    assert main(["inspect", str(tmp_path / "run")]) == 0
    assert '"steps": 3' in capsys.readouterr().out.replace("steps: 3", '"steps": 3')
