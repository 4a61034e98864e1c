"""What the oracle, which sees the picture only, reads of the example drawn with the shipped models."""

import numpy as np
import pytest
import torch

from weft.evaluation.oracle import Reading, pretrained_oracle
from weft.pipelines import ConditionedStableDiffusionPipeline, shipped
from weft.pipelines.design_file import read_design

DESIGN = "examples/outfit/outfit.json"


@pytest.fixture(scope="module")
def reading(request: pytest.FixtureRequest) -> Reading:
    design = read_design(request.config.rootpath / DESIGN)
    pipe = ConditionedStableDiffusionPipeline.from_pretrained(shipped("tiny-diffusion"))
    pipe.set_progress_bar_config(disable=True)
    pipe.load_adapter(shipped("paired"), "paired")
    image = pipe(
        design.prompt,
        conditions=design.conditions,
        num_inference_steps=design.num_inference_steps,
        guidance_scale=design.guidance_scale,
        generator=torch.Generator().manual_seed(design.seed or 0),
        output_type="np",
    ).images[0]
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    return pretrained_oracle().read(pixels)[0]


@pytest.mark.parametrize(
    ("slot", "attribute", "asked"),
    [
        ("top", "kind", "jacket"),
        ("top", "color", "red"),
        ("top", "pattern", "striped"),
        ("bottom", "kind", "skirt"),
        ("bottom", "color", "black"),
        ("bottom", "pattern", "dotted"),
        ("shoes", "kind", "boots"),
        ("shoes", "color", "brown"),
    ],
)
def test_the_oracle_reads_the_example_as_asked(reading: Reading, slot: str, attribute: str, asked: str) -> None:
    """Boots cover too few pixels for their pattern to be judged."""
    assert getattr(reading.slots[slot], attribute) == asked
