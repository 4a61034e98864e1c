"""Files that the package wrote under its former name `weft`: pipelines, adapters, style cards, designs and PNGs."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from weftwork.attention_processors import StyleAdapter, StyleCard, adapter_class
from weftwork.pipelines import ConditionedStableDiffusionPipeline, read_design
from weftwork.pipelines.designs.files import stored_in
from weftwork.pipelines.designs.run import draw, open_pipeline, stored
from weftwork.scripts.cli import main

OLD = Path(__file__).parents[2] / "data" / "old_names"


def test_the_files_are_old_ones() -> None:
    index = json.loads((OLD / "pipeline" / "model_index.json").read_text())
    assert index["adapters"] == ["weft.attention_processors.bank", "AdapterBank"]
    with Image.open(OLD / "one.png") as image:
        assert "weft" in image.info and "weftwork" not in image.info


def test_a_pipeline_folder_opens_and_is_saved_under_a_stable_path(tmp_path: Path) -> None:
    pipe = ConditionedStableDiffusionPipeline.from_pretrained(OLD / "pipeline")
    assert list(pipe.adapters) == ["style"] and pipe.adapters.weights == {"style": 0.5}
    pipe.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["adapters"] == ["weftwork.attention_processors", "AttachedAdapters"]
    config = json.loads((tmp_path / "adapters" / "config.json").read_text())
    assert config["adapters"] == {"style": ["weftwork.attention_processors", "StyleAdapter"]}
    index["adapters"] = ["weftwork.attention_processors", "AdapterBank"]  # written by earlier versions of weftwork
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    again = ConditionedStableDiffusionPipeline.from_pretrained(tmp_path)
    assert isinstance(again.adapters["style"], StyleAdapter) and again.adapters.weights == {"style": 0.5}


def test_a_design_is_drawn_as_it_was() -> None:
    pipe = open_pipeline(OLD / "pipeline", {}, design := read_design(OLD / "design.json"))
    pipe.set_weights(style=1.0)
    (image,) = draw(pipe, design)
    with Image.open(OLD / "one.png") as before:
        assert np.abs(np.asarray(image, np.int16) - np.asarray(before, np.int16)).max() <= 1
    assert stored_in(OLD / "one.png") == json.loads(stored(design))


def test_an_adapter_folder_and_a_card_open() -> None:
    folder = OLD / "pipeline" / "adapters" / "style"
    assert adapter_class(folder) is StyleAdapter
    card = StyleCard.load(OLD / "ink.safetensors")
    baked = StyleAdapter.from_pretrained(folder).bake("ink")
    assert (card.name, card.shapes) == (baked.name, baked.shapes)


def test_a_png_of_many_designs_is_not_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = {"name": "one", **json.loads((OLD / "design.json").read_text())}
    (tmp_path / "all.jsonl").write_text(json.dumps(record) + "\n")
    shutil.copy(OLD / "one.png", tmp_path / "one.png")
    model = ["--model", str(OLD / "pipeline"), "--output", str(tmp_path)]
    assert main(["generate", "--input", str(tmp_path / "all.jsonl"), *model]) == 0
    assert "1 of 1 designs were there, 0 to make" in capsys.readouterr().out
    assert (tmp_path / "one.png").read_bytes() == (OLD / "one.png").read_bytes()
