"""Designs with their images in place of paths, as generated images store them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from weftwork.attention_processors import GlobalSketch, Reference, SketchTextPair, Style
from weftwork.datasets.readers.inline_images import from_text
from weftwork.pipelines.designs import design as design_module
from weftwork.pipelines.designs.design import Design, Lora, Variation
from weftwork.pipelines.designs.identity import content_digest
from weftwork.pipelines.designs.reader import as_design, read_design
from weftwork.pipelines.designs.run import stored

ROOT = Path(__file__).resolve().parents[3]


def reopened(record: object) -> Design:
    """Reads a design that names no files."""
    return as_design(record, from_text)


def test_a_design_made_in_python_is_stored_whole() -> None:
    sketch = Image.new("L", (40, 32), 255)
    sketch.paste(0, (8, 8, 20, 12))
    mask = Image.fromarray(np.tile(np.arange(0, 255, 4, np.uint8), (32, 1)))
    conditions = {
        "paired": [
            SketchTextPair(sketch, "a red hat", region="sketch", weight=0.5, layers={"middle": 2.0}),
            SketchTextPair(text="a coat", region=(0.1, 0.2, 0.5, 1), end=0.5, cfg="cond_only"),
            GlobalSketch(sketch, region=mask),
        ],
        "style": [Style({"ink": 1, "neon": 3})],
        "reference": [Reference(Image.new("RGB", (9, 9), (1, 2, 3)))],
    }
    made = Design("a person", seed=3, sampler="euler", variations=[Variation(1)], conditions=conditions, height=64)
    record = json.loads(stored(made))
    assert record["design"]["conditions"]["paired"][1] == {
        "text": "a coat", "region": [0.1, 0.2, 0.5, 1.0], "end": 0.5, "cfg": "cond_only"
    }  # fmt: skip
    again = reopened(record["design"])
    assert content_digest(again.conditions) == content_digest(conditions)
    for name in ("prompt", "seed", "sampler", "height", "width", "guidance_scale"):
        assert getattr(again, name) == getattr(made, name)
    assert list(again.variations) == [Variation(1)]


def test_an_image_stores_the_sketches_of_its_design(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "examples/outfit", tmp_path / "outfit")
    lora = tmp_path / "outfit/a.safetensors"
    lora.touch()
    content = json.loads((tmp_path / "outfit/styled.json").read_text()) | {"loras": [{"lora": lora.name}]}
    (tmp_path / "outfit/styled.json").write_text(json.dumps(content))
    made = read_design(tmp_path / "outfit/styled.json")
    record = made.complete(tmp_path / "images")
    loras = record.pop("loras")
    assert loras == [{"lora": "../outfit/a.safetensors"}] and made.loras == (Lora(lora),)
    assert content_digest(reopened(record).conditions) == content_digest(made.conditions)
    monkeypatch.setattr(design_module, "INLINE_PIXELS", 1000)
    assert made.complete() == content, "large images keep their paths"
    plain = {"prompt": "a", "$schema": "s", "seed": None}
    assert reopened(plain).complete() == plain, "nothing to replace"
