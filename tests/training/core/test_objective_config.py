"""Options of the objective that have no effect are refused."""

from typing import Any

import pytest

from weftwork.training.core.config import ObjectiveConfig


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"weighting_scheme": "cosine"}, "weighting_scheme: got 'cosine', expected one of logit_normal, mode"),
        ({"weighting_scheme": "mode", "logit_mean": 0.0}, "logit_mean: has no effect"),
    ],
)
def test_options_of_flow_matching_are_checked(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        ObjectiveConfig(**options)


@pytest.mark.parametrize(
    ("options", "backbone"),
    [
        ({"snr_gamma": 5.0}, {"flow": True}),
        ({"weighting_scheme": "mode"}, {"flow": False}),
        ({"guidance_scale": 1.0}, {"distilled": False}),
        ({"max_sequence_length": 64}, {"transformer": False}),
    ],
)
def test_options_of_other_backbones_are_refused(options: dict[str, Any], backbone: dict[str, bool]) -> None:
    every, config = {"flow": True, "distilled": True, "transformer": True}, ObjectiveConfig(**options)
    other = {name: not value for name, value in backbone.items()}
    config.check_effects("a model", **{**every, **other})
    with pytest.raises(ValueError, match=f"{next(iter(options))}: has no effect with a model"):
        config.check_effects("a model", **{**every, **backbone})
