"""Every combination of pairs, style, LoRA and ControlNet is drawn and scored, and leaves the pipeline as it was."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel

from weftwork.attention_processors.paired.adapter import PairedAdapter
from weftwork.attention_processors.paired.conditions import stroke_pixels
from weftwork.attention_processors.style.adapter import StyleAdapter
from weftwork.datasets.synthetic.creatures import STYLES
from weftwork.datasets.synthetic.outfits import sample
from weftwork.evaluation.methods.composition import ROWS, WEIGHTS, CompositionEvaluation
from weftwork.evaluation.methods.paired import composed
from weftwork.evaluation.oracles.creatures import CreatureOracle
from weftwork.evaluation.oracles.outfits import Oracle
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline
from weftwork.pretrained import shipped
from weftwork.scripts.maintenance.train_baselines import main as train_baseline
from weftwork.training.recipes.controlnet import EMBEDDING_CHANNELS, ControlNetTask
from weftwork.training.recipes.style_baselines import LoraModule
from weftwork.training.tasks.adapter import ObjectiveConfig


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> CompositionEvaluation:
    torch.manual_seed(0)
    pipe: Any = ConditionedStableDiffusionPipeline.from_pretrained(shipped("tiny-diffusion"))
    module = LoraModule(UNet2DConditionModel.from_pretrained(shipped("tiny-diffusion"), subfolder="unet"), 2)
    for name, parameter in module.unet.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)  # zero at birth: it would do nothing
    lora = tmp_path_factory.mktemp("lora")
    module.save_pretrained(lora)
    controlnet = ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=EMBEDDING_CHANNELS)
    for block in (*controlnet.controlnet_down_blocks, controlnet.controlnet_mid_block):
        torch.nn.init.normal_(block.weight, std=0.1)
    style = StyleAdapter.for_denoiser(pipe.unet, layers="decoder", styles=list(STYLES), token_dim=128, style_dim=8)
    pipe.attach(paired=PairedAdapter.from_pretrained(shipped("paired")), style=style)
    return CompositionEvaluation(
        pipe=pipe,
        lora=lora,
        controlnet=controlnet,
        oracle=Oracle().eval(),
        style_oracle=CreatureOracle().eval(),
        split="validation",
        count=2,
        num_inference_steps=2,
    )


def test_every_combination_is_a_picture_of_its_own(evaluation: CompositionEvaluation) -> None:
    drawn = {name: row() for name, row in evaluation.rows().items()}
    assert list(drawn) == ["real", "reconstruction", *ROWS]
    pictures = [pictures.numpy() for pictures, _ in drawn.values()]
    for i, one in enumerate(pictures):
        assert all(np.abs(one - other).max() > 1e-3 for other in pictures[:i])
    for _, scores in drawn.values():
        assert {"kind_accuracy", "sketch_iou", "leakage", "style_accuracy"} <= set(scores)
    assert np.array_equal(evaluation.rows()["no_condition"]()[0].numpy(), pictures[2])


def test_rows_of_what_is_not_there_are_left_out(evaluation: CompositionEvaluation) -> None:
    few = CompositionEvaluation(
        pipe=evaluation.pipe,
        lora=None,
        controlnet=None,
        oracle=evaluation.oracle,
        style_oracle=evaluation.style_oracle,
    )
    assert list(few.rows()) == ["real", "reconstruction", "no_condition", "pairs", "style", "pairs_style", *WEIGHTS]


def test_a_controlnet_sees_its_sketch_before_it_is_trained_and_changes_nothing(
    evaluation: CompositionEvaluation,
) -> None:
    drawn = sample("train", 0), sample("train", 1)
    task: Any = ControlNetTask(evaluation.pipe.from_pipe(evaluation.pipe), ObjectiveConfig())
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


def test_a_controlnet_trains(tmp_path: Path) -> None:
    few = ["--samples", "16", "--cache_dir", str(tmp_path / "cache"), "--max_train_steps", "2", "--no-use_ema"]
    few += ["--lr_warmup_steps", "0", "--train_batch_size", "8", "--checkpointing_steps", "0"]
    train_baseline(["controlnet", "--output_dir", str(tmp_path / "out"), *few])
    trained = ControlNetModel.from_pretrained(tmp_path / "out" / "final", use_safetensors=True)
    assert trained.controlnet_mid_block.weight.abs().max() > 0
