"""Options of the objective that have no effect are refused."""

from typing import Any

import pytest

from weftwork.training.tasks.options import ObjectiveConfig


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


def test_options_of_the_other_objective_are_refused() -> None:
    for config, flow in ((ObjectiveConfig(snr_gamma=5.0), True), (ObjectiveConfig(weighting_scheme="mode"), False)):
        config.check_scheduler(flow=not flow)
        with pytest.raises(ValueError, match="has no effect with a backbone of"):
            config.check_scheduler(flow=flow)
