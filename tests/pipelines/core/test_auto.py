"""Conditioned pipelines through diffusers' `AutoPipeline…from_pipe`."""

from typing import Any

import numpy as np
import pytest
from diffusers import AutoPipelineForImage2Image, AutoPipelineForInpainting, AutoPipelineForText2Image
from tiny import paired_adapter, paired_conditions, tiny_pipe
from variants import controlnet_parts, picture, run, xl_parts

from weftwork.pipelines import (
    ConditionedStableDiffusionControlNetPipeline,
    ConditionedStableDiffusionImg2ImgPipeline,
    ConditionedStableDiffusionInpaintPipeline,
    ConditionedStableDiffusionPipeline,
    ConditionedStableDiffusionXLPipeline,
)

TASKS: dict[type, Any] = {
    ConditionedStableDiffusionPipeline: AutoPipelineForText2Image,
    ConditionedStableDiffusionImg2ImgPipeline: AutoPipelineForImage2Image,
    ConditionedStableDiffusionInpaintPipeline: AutoPipelineForInpainting,
}


@pytest.mark.parametrize("source", TASKS)
@pytest.mark.parametrize("target", TASKS)
def test_every_task_is_made_from_every_other_with_its_adapters(source: type, target: type) -> None:
    pipe = tiny_pipe(source)
    pipe.attach(paired=paired_adapter(pipe.unet))
    made = TASKS[target].from_pipe(pipe)
    assert type(made) is target and made.unet is pipe.unet and list(made.adapters) == ["paired"]


def test_conditions_act_in_the_pipeline_that_was_made() -> None:
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    pipe.attach(paired=paired_adapter(pipe.unet))
    made = AutoPipelineForImage2Image.from_pipe(pipe)
    plain, changed = (run(made, image=picture(), conditions=one) for one in (None, {"paired": paired_conditions()}))
    assert not np.array_equal(plain, changed)


def test_controlnets_and_xl() -> None:
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    made = AutoPipelineForText2Image.from_pipe(pipe, controlnet=controlnet_parts()["controlnet"])
    assert type(made) is ConditionedStableDiffusionControlNetPipeline
    xl = ConditionedStableDiffusionXLPipeline(**xl_parts(), add_watermarker=False)
    assert type(AutoPipelineForText2Image.from_pipe(xl)) is ConditionedStableDiffusionXLPipeline
    assert type(AutoPipelineForImage2Image.from_pipe(xl)).__name__ == "StableDiffusionXLImg2ImgPipeline"
