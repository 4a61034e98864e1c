"""The shipped modules of views follow what they are given: references, and the camera."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from weftwork.attention_processors.views.conditions import ReferenceView
from weftwork.datasets.synthetic.rooms.dataset import View, sample
from weftwork.pipelines.views.pipeline import AlignedViewsPipeline
from weftwork.pretrained import available, shipped

pytestmark = pytest.mark.skipif("aligned-views" not in available(), reason="the shipped models are not installed")
SIZE = 128


@pytest.fixture(scope="module")
def pipe() -> Any:
    pipe = AlignedViewsPipeline.from_pretrained(shipped("tiny-rooms"), use_safetensors=True)
    pipe.load_adapter(shipped("aligned-views"), "views")
    pipe.set_progress_bar_config(disable=True)
    return pipe


@cache
def view(room: int, name: str) -> View:
    return sample("test", room, size=SIZE, views=(name,)).views[name]


@pytest.fixture(scope="module")
def seen(pipe: Any) -> Callable[[str, int], Any]:
    """Views of the first room by target, with the references of a room."""

    @cache
    def drawn(target: str, room: int) -> Any:
        references = [ReferenceView.of_view(view(room, name)) for name in ("reference_0", "reference_1")]
        camera = view(0, target).camera
        noise = torch.Generator().manual_seed(0)
        return pipe(references, camera, num_inference_steps=4, generator=noise, output_type="np")

    return drawn


@pytest.mark.parametrize("target", ["interpolating", pytest.param("extrapolating", marks=pytest.mark.slow)])
def test_image_and_geometry_are_those_of_the_room(seen: Callable[[str, int], Any], target: str) -> None:
    truth = view(0, target)
    out, other = seen(target, 0), seen(target, 5)
    near, far = (float(np.square(one.images[0] - truth.image / 255).mean()) for one in (out, other))
    assert near < 0.04 and far > 2 * near
    assert float((np.abs(out.depth - truth.depth) / truth.depth).mean()) < 0.12


def test_the_camera_counts(seen: Callable[[str, int], Any]) -> None:
    between, beyond = (seen(target, 0) for target in ("interpolating", "extrapolating"))
    assert float(np.square(between.images[0] - beyond.images[0]).mean()) > 0.01
