"""Guidance as the calls of pipelines take it."""

from typing import Any

import pytest
from tiny import tiny_pipe
from tiny_transformers import tiny_transformer_pipe

from weftwork.pipelines import ConditionedStableDiffusionPipeline
from weftwork.pipelines.core.guidance import guidance_arguments


@pytest.mark.parametrize(
    ("family", "given", "expected"),
    [
        ("flux", {}, {"true_cfg_scale": 3.0, "negative_prompt": ""}),
        ("flux", {"batch": 2}, {"true_cfg_scale": 3.0, "negative_prompt": ["", ""]}),
        ("flux", {"negative_prompt": "a"}, {"true_cfg_scale": 3.0, "negative_prompt": "a"}),
        ("flux", {"guidance_scale": 1.0}, {"true_cfg_scale": 1.0}),
        ("flux-distilled", {"batch": 2}, {"guidance_scale": 3.0}),
        ("sd3", {"batch": 2, "negative_prompt": "a"}, {"guidance_scale": 3.0, "negative_prompt": ["a", "a"]}),
    ],
)
def test_true_guidance_has_a_negative_prompt(family: str, given: dict[str, Any], expected: dict[str, Any]) -> None:
    assert guidance_arguments(tiny_transformer_pipe(family), **{"guidance_scale": 3.0, **given}) == expected


def test_u_nets_need_none() -> None:
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    assert guidance_arguments(pipe, 3.0, batch=2) == {"guidance_scale": 3.0}
