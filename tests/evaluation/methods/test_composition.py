"""Composition evaluation: all rows are generated and scored, and the pipeline is restored."""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel

from weftwork.attention_processors.paired.adapter import PairedAdapter
from weftwork.attention_processors.style.adapter import StyleAdapter
from weftwork.datasets.synthetic.outfits import STYLES, sample
from weftwork.evaluation.core.images import as_tensor
from weftwork.evaluation.methods.composition import ROWS, WEIGHTS, CompositionEvaluation
from weftwork.evaluation.oracles.outfits import Oracle
from weftwork.evaluation.oracles.styles import StyleReader, renders
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline
from weftwork.pretrained import shipped

FEW = ("ink", "neon", "pixel")


@pytest.fixture(scope="module")
def reader() -> StyleReader:
    return StyleReader.fit({style: renders(style, 4) for style in FEW})


def test_styles_of_unseen_outfits_are_read(reader: StyleReader) -> None:
    shown = [sample("test", index, style=style).image for index, style in enumerate(FEW * 2)]
    images = as_tensor(shown)
    assert reader.read(images) == reader.read(images.clamp(0.05, 0.95)) == [*FEW * 2]


@pytest.fixture(scope="module")
def evaluation(reader: StyleReader) -> CompositionEvaluation:
    torch.manual_seed(0)
    pipe: Any = ConditionedStableDiffusionPipeline.from_pretrained(shipped("tiny-diffusion"))
    controlnet = ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(16, 32, 64, 96))
    for block in (*controlnet.controlnet_down_blocks, controlnet.controlnet_mid_block):
        torch.nn.init.normal_(block.weight, std=0.1)
    style = StyleAdapter.for_denoiser(pipe.unet, layers="decoder", styles=list(STYLES), token_dim=128, style_dim=8)
    pipe.attach(paired=PairedAdapter.from_pretrained(shipped("outfits-paired")), style=style)
    return CompositionEvaluation(
        pipe=pipe,
        controlnet=controlnet,
        oracle=Oracle().eval(),
        style_reader=reader,
        split="validation",
        count=2,
        num_inference_steps=2,
    )


@pytest.mark.slow
def test_every_combination_is_an_image_of_its_own(evaluation: CompositionEvaluation) -> None:
    drawn = {name: row() for name, row in evaluation.rows().items()}
    assert list(drawn) == ["real", "reconstruction", *ROWS]
    images = [batch.numpy() for batch, _ in drawn.values()]
    for i, one in enumerate(images):
        assert all(np.abs(one - other).max() > 1e-3 for other in images[:i])
    for _, scores in drawn.values():
        assert {"kind_accuracy", "sketch_iou", "leakage", "style_accuracy"} <= set(scores)
    assert np.array_equal(evaluation.rows()["no_condition"]()[0].numpy(), images[2])


def test_rows_of_what_is_not_there_are_left_out(evaluation: CompositionEvaluation) -> None:
    few = CompositionEvaluation(
        pipe=evaluation.pipe,
        controlnet=None,
        oracle=evaluation.oracle,
        style_reader=evaluation.style_reader,
    )
    assert list(few.rows()) == ["real", "reconstruction", "no_condition", "pairs", "style", "pairs_style", *WEIGHTS]
