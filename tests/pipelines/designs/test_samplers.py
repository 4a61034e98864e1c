"""Designs choose samplers."""

from typing import Any

import numpy as np
import pytest
from tiny import tiny_pipe
from tiny_transformers import tiny_transformer_pipe

from weftwork.pipelines import ConditionedStableDiffusionPipeline
from weftwork.pipelines.designs.design import Design
from weftwork.pipelines.designs.run import draw
from weftwork.pipelines.designs.samplers import SAMPLERS, fitting_samplers


def drawn(pipe: Any, sampler: str | None) -> Any:
    (image,) = draw(pipe, Design("a b", seed=5, num_inference_steps=4, sampler=sampler))
    return np.asarray(image)


def test_samplers_differ_and_leave_the_pipeline_its_own() -> None:
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    own, before = pipe.scheduler, drawn(pipe, None)
    images = {name: drawn(pipe, name) for name in SAMPLERS}
    assert pipe.scheduler is own and np.array_equal(drawn(pipe, None), before)
    assert len({image.tobytes() for image in images.values()}) == len(SAMPLERS)
    assert fitting_samplers(pipe) == list(SAMPLERS)
    with pytest.raises(ValueError, match="sampler: got 'plms', expected one of ddim, "):
        drawn(pipe, "plms")


def test_models_of_flow_matching_take_none() -> None:
    with pytest.raises(ValueError, match="sampler: got 'ddim', expected none with this model; change it or leave it"):
        drawn(tiny_transformer_pipe("flux"), "ddim")
