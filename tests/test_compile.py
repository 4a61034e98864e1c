"""`torch.compile` of the whole denoiser: the eager result, and no recompilation for new values.

What exists (batch, grid, a power of two of tokens, with a region or without) is structure: one warm-up each. Tokens,
weights, regions and schedules are values: none.
"""

import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import drawn_sketch
from variants import SD, run

from weft.attention_processors.paired import SketchTextPair

pytestmark = pytest.mark.slow
WORDS = ("a red jacket", "a blue skirt", "black shoes", "a hat")


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled_pipe(backend: str, order: str = "attach first") -> Any:
    pipe = SD.attached() if order == "attach first" else SD.make(SD.conditioned)
    pipe.unet = torch.compile(pipe.unet, fullgraph=True, dynamic=False, backend=backend)
    if order == "compile first":
        pipe.attach(it=SD.attached().adapters["it"])
    return pipe


def pairs(count: int, seed: int = 0, region: bool = False, **options: Any) -> list[SketchTextPair]:
    """`count` pairs that differ in every value by the seed, with a box for each or without."""
    draw = np.random.default_rng(seed)
    made = []
    for i in range(count):
        left = float(draw.uniform(0, 0.5))
        place = {"region": (left, 0.0, left + 0.5, 1.0)} if region else {}
        weight = float(draw.uniform(0.2, 1.5))
        sketch = drawn_sketch(int(draw.integers(9)))
        made.append(SketchTextPair(sketch, WORDS[(seed + i) % 4], weight, **{**place, **options}))
    return made


def changes() -> list[list[SketchTextPair]]:
    """20 designs of the structures that `structures` warms up."""
    rows = [pairs(2 + seed % 3, seed, region=seed % 2 == 1) for seed in range(12)]
    rows += [pairs(3, seed, start=0.3 * (seed % 3), end=1.0 - 0.2 * (seed % 2)) for seed in range(12, 16)]
    mask = Image.new("L", (32, 32), 128)
    rows += [
        [SketchTextPair(drawn_sketch(1), "a hat", 0.0), *pairs(1, 16)],
        [SketchTextPair(text="a hat"), *pairs(2, 17)],
        [SketchTextPair(drawn_sketch(2)), *pairs(2, 18)],
        [SketchTextPair(text="a hat", region=mask), *pairs(1, 19)],
    ]
    return rows


def structures() -> list[list[SketchTextPair]]:
    return [pairs(2), pairs(3), pairs(2, region=True), pairs(3, region=True)]


def check_compiled(backend: str, tolerance: float) -> None:
    eager, compiled = SD.attached(), compiled_pipe(backend)
    for design in structures():
        run(compiled, conditions={"it": design})
    with torch._dynamo.config.patch(error_on_recompile=True):
        assert len(changes()) == 20
        for design in changes():
            conditions = {"it": design}
            np.testing.assert_allclose(
                run(compiled, conditions=conditions), run(eager, conditions=conditions), atol=tolerance
            )


def test_no_recompilation_for_new_values() -> None:
    """The tracer alone, without code generation."""
    check_compiled("eager", 1e-5)


@pytest.mark.skipif(shutil.which("c++") is None and shutil.which("g++") is None, reason="no C++ compiler")
def test_generated_code_equals_eager() -> None:
    check_compiled("inductor", 1e-3)


def test_compiling_before_attaching() -> None:
    conditions = {"it": pairs(2)}
    pipe = compiled_pipe("eager", "compile first")
    np.testing.assert_allclose(run(pipe, conditions=conditions), run(SD.attached(), conditions=conditions), atol=1e-5)
    pipe.detach()
    np.testing.assert_allclose(run(pipe), run(SD.make(SD.stock)), atol=1e-5)
