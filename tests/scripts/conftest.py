"""Fixtures of the tests of `weftwork generate`."""

from pathlib import Path
from typing import Any

import pytest
from peft.utils import get_peft_model_state_dict
from PIL import Image
from tiny import drawn_sketch, paired_adapter, style_adapter, tiny_pipe
from variants import add_lora, controlnet_parts

from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    pipe.save_pretrained(folder / "model")
    paired_adapter(pipe.unet).save_pretrained(folder / "paired")
    style_adapter(pipe.unet).save_pretrained(folder / "style")
    controlnet_parts()["controlnet"].save_pretrained(folder / "controlnet")
    layers: Any = get_peft_model_state_dict(add_lora(pipe).unet, adapter_name="other")
    pipe.save_lora_weights(folder / "lora", unet_lora_layers=layers, safe_serialization=True)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    drawn_sketch().save(tmp_path / "jacket.png")
    Image.new("L", (8, 8), 255).save(tmp_path / "blank.png")
    Image.new("L", (8, 8), 0).save(tmp_path / "black.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "jacket.png").read_bytes()[:50])
    return tmp_path
