"""Drawing designs with references, and with layer factors and guidance of pairs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import drawn_sketch, paired_adapter, reference_adapter, tiny_pipe
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from weftwork.attention_processors import Reference
from weftwork.pipelines import ConditionedStableDiffusionPipeline, read_design
from weftwork.scripts.cli import main


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    pipe.save_pretrained(folder / "model")
    reference_adapter(pipe.unet).save_pretrained(folder / "reference")
    paired_adapter(pipe.unet).save_pretrained(folder / "paired")
    torch.manual_seed(7)
    sizes = dict(hidden_size=16, intermediate_size=37, projection_dim=16, patch_size=16, image_size=32)
    encoder = CLIPVisionModelWithProjection(CLIPVisionConfig(**sizes, num_hidden_layers=1, num_attention_heads=2))
    encoder.save_pretrained(folder / "encoder")
    drawn_sketch().save(folder / "photo.png")
    return folder


def drawn(models: Path, adapter: str, *conditions: dict[str, object], encoder: bool = False) -> np.ndarray:
    record = {"prompt": "a", "seed": 1, "num_inference_steps": 2, "conditions": {"it": conditions}}
    design, output = models / "design.json", models / "out.png"
    design.write_text(json.dumps(record), encoding="utf-8")
    options = ["--image_encoder", str(models / "encoder")] if encoder else []
    model = ["--model", str(models / "model"), "--adapter", f"it={models / adapter}", "--output", str(output)]
    assert main(["generate", str(design), *model, *options]) == 0
    with Image.open(output) as image:
        return np.asarray(image, np.int16)


def test_references_are_read_through_the_image_encoder(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reference = {"image": "photo.png", "weight": 2.0}
    changed = drawn(models, "reference", reference, encoder=True)
    design = read_design(models / "design.json")
    (condition,) = design.conditions["it"]
    assert isinstance(condition, Reference) and condition.weight == 2.0
    off = drawn(models, "reference", {**reference, "weight": 0})
    assert np.abs(changed - off).max() > 2
    with pytest.raises(AssertionError):
        drawn(models, "reference", reference)
    assert "image encoder: this adapter reads images through" in capsys.readouterr().err


def test_layers_and_guidance_of_pairs_count(models: Path) -> None:
    pair = {"text": "b", "weight": 4.0}
    changed, off = drawn(models, "paired", pair), drawn(models, "paired", {**pair, "weight": 0})
    assert np.array_equal(drawn(models, "paired", {**pair, "layers": {"all": 0}}), off)
    guided = drawn(models, "paired", {**pair, "cfg": "cond_only"})
    assert np.abs(changed - off).max() > 0 and np.abs(guided - changed).max() > 0 and np.abs(guided - off).max() > 0


def test_texts_act_in_regions_without_a_folder(models: Path) -> None:
    def generated(**changes: object) -> np.ndarray:
        record = {"prompt": "a", "seed": 1, "num_inference_steps": 2}
        text = {"prompt": "a red car", "region": [0, 0, 0.5, 1], **changes}
        (models / "regional.json").write_text(json.dumps({**record, "conditions": {"regional": [text]}}))
        model = ["--model", str(models / "model"), "--output", str(models / "regional.png")]
        assert main(["generate", str(models / "regional.json"), *model]) == 0
        with Image.open(models / "regional.png") as image:
            return np.asarray(image, np.int16)

    changed, off, other = generated(), generated(weight=0), generated(prompt="a blue hat")
    assert np.abs(changed - off).max() > 0 and np.abs(changed - other).max() > 0
