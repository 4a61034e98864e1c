"""Several images of a design, and variations of one."""

import json
from typing import Any

import numpy as np
import pytest
from tiny import tiny_pipe

from weftwork.pipelines import ConditionedStableDiffusionPipeline
from weftwork.pipelines.designs.reader import as_design
from weftwork.pipelines.designs.run import draw, stored

RECORD: dict[str, Any] = {"prompt": "a b", "seed": 5, "num_inference_steps": 3}


@pytest.fixture(scope="module")
def pipe() -> ConditionedStableDiffusionPipeline:
    return tiny_pipe(ConditionedStableDiffusionPipeline)


def drawn(pipe: Any, count: int = 1, **changes: object) -> np.ndarray[Any, Any]:
    design = as_design({**RECORD, **changes}, lambda text: pytest.fail(text))
    return np.asarray([np.asarray(image, int) for image in draw(pipe, design, count)])


def test_variations_lie_between_the_images_of_two_seeds(pipe: Any) -> None:
    one, other = drawn(pipe), drawn(pipe, seed=9)
    near, far, all_of_it = (drawn(pipe, variations=[{"seed": 9, "strength": s}]) for s in (0.1, 0.5, 1))
    assert np.array_equal(drawn(pipe, variations=[{"seed": 9, "strength": 0}]), one)
    assert np.array_equal(all_of_it, other)
    assert 0 < np.abs(near - one).mean() < np.abs(far - one).mean()


def test_variations_of_variations_count_on(pipe: Any) -> None:
    variations = [{"seed": 9, "strength": 0.3}, {"seed": 2, "strength": 0.4}]
    first, second = drawn(pipe, 2, variations=variations)
    variations[1] = {"seed": 3, "strength": 0.4}
    assert np.abs(drawn(pipe, variations=variations)[0] - second).max() <= 1
    assert np.abs(first - second).max() > 1
    design = as_design({**RECORD, "variations": variations}, lambda text: pytest.fail(text))
    record = json.loads(stored(design, 4))
    assert record["seed"] == 5 and record["design"]["variations"] == [variations[0], {"seed": 7, "strength": 0.4}]
    assert json.loads(stored(as_design(RECORD, lambda text: pytest.fail(text)), 4))["design"]["seed"] == 9
