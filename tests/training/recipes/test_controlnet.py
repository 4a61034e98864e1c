"""The ControlNet on sketches of whole outfits."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ControlNetModel

from weftwork.attention_processors.paired.conditions import stroke_pixels
from weftwork.attention_processors.paired.samples import composed
from weftwork.datasets.synthetic.outfits import sample
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline
from weftwork.pretrained import shipped
from weftwork.scripts.maintenance.train_baselines import main as train_baseline
from weftwork.training.recipes.controlnet import SketchControlNetTask
from weftwork.training.tasks.adapter import ObjectiveConfig


def test_a_controlnet_sees_its_sketch_before_it_is_trained_and_changes_nothing() -> None:
    pipe: Any = ConditionedStableDiffusionPipeline.from_pretrained(shipped("tiny-diffusion"))
    drawn = sample("train", 0), sample("train", 1)
    task: Any = SketchControlNetTask(pipe, ObjectiveConfig())
    sketches = torch.stack([1 - stroke_pixels(composed(one), 128)[:1].expand(3, -1, -1) for one in drawn])
    embedding = task.module.controlnet_cond_embedding
    with torch.no_grad():
        seen, white = embedding(sketches), embedding(torch.ones(1, 3, 128, 128))
        assert (seen[0] - seen[1]).std() > 0.05
        assert white[..., 4:-4, 4:-4].abs().max() < 1e-4
        down, middle = task.module(
            torch.randn(2, 12, 16, 16), 500, torch.randn(2, 77, 128), controlnet_cond=sketches, return_dict=False
        )
    assert not middle.any() and not any(one.any() for one in down)


@pytest.mark.slow
def test_a_controlnet_trains(tmp_path: Path) -> None:
    few = ["--samples", "8", "--cache_dir", str(tmp_path / "cache"), "--max_train_steps", "2", "--no-use_ema"]
    few += ["--lr_warmup_steps", "0", "--train_batch_size", "4", "--checkpointing_steps", "0"]
    train_baseline(["controlnet", "--output_dir", str(tmp_path / "out"), *few])
    trained = ControlNetModel.from_pretrained(tmp_path / "out" / "final", use_safetensors=True)
    assert trained.controlnet_mid_block.weight.abs().max() > 0
