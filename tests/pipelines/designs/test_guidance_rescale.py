"""Guidance rescale of designs: diffusers' own argument is the measure."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from remedies import check_call
from tiny import tiny_pipe
from tiny_transformers import tiny_transformer_pipe
from variants import picture

from weftwork.pipelines import ConditionedStableDiffusionPipeline
from weftwork.pipelines.core.opening import conditioned_class
from weftwork.pipelines.designs.design import Design
from weftwork.pipelines.designs.run import draw

PLAIN = Design("a b", seed=5, num_inference_steps=3, height=64, width=64)
RESCALED = replace(PLAIN, guidance_rescale=0.7)


def drawn(pipe: Any, design: Design) -> np.ndarray:
    return np.asarray(draw(pipe, design)[0])


def test_it_is_the_argument_of_the_pipeline() -> None:
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    call = {"num_inference_steps": 3, "guidance_scale": 3.0, "height": 64, "width": 64}
    (expected,) = pipe("a b", guidance_rescale=0.7, generator=torch.Generator().manual_seed(5), **call).images
    assert np.array_equal(drawn(pipe, RESCALED), np.asarray(expected))
    assert not np.array_equal(drawn(pipe, PLAIN), np.asarray(expected))


def test_beside_an_image_it_is_left_out_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    begun = drawn(pipe, replace(PLAIN, image=picture()))
    assert "guidance_rescale" not in caplog.text
    assert np.array_equal(drawn(pipe, replace(RESCALED, image=picture())), begun)
    assert "guidance_rescale: ConditionedStableDiffusionImg2ImgPipeline takes none beside an image" in caplog.text


def test_a_pipeline_without_it_refuses_it() -> None:
    stock = tiny_transformer_pipe("flux")
    flux: Any = conditioned_class(type(stock))(**stock.components)
    flux.set_progress_bar_config(disable=True)
    words = "guidance_rescale: got one, but .* takes none; leave it out"
    check_call(
        lambda design: draw(flux, design),
        replace(RESCALED, height=32, width=32),
        words,
        replace(PLAIN, height=32, width=32),
    )


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_other_values_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="guidance_rescale: got"):
        replace(PLAIN, guidance_rescale=value)
