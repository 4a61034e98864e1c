"""`torch.compile` of the whole denoiser: the eager result, and no recompilation for new values.

What exists (batch, grid, a power of two of tokens, with a region or without) is structure: one warm-up each. Tokens,
weights, regions and schedules are values: none.
"""

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import STYLES, drawn_sketch, style_adapter, tiny_unet
from variants import SD, run

from weftwork.attention_processors.core.condition import GUIDANCE
from weftwork.attention_processors.paired.adapter import SketchTextPair
from weftwork.attention_processors.style.adapter import Style, StyleCards

Conditions = dict[str, list[Any]]

pytestmark = pytest.mark.slow
WORDS = ("a red jacket", "a blue skirt", "black shoes", "a hat")
LAYERS = ("all", "decoder", r"up_blocks\.0\..*", r"up_blocks\.1\..*attn2")
CURVES = (None, lambda progress: 1 - progress, lambda progress: progress**2)


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled(pipe: Any, backend: str = "eager") -> Any:
    pipe.unet = torch.compile(pipe.unet, fullgraph=True, dynamic=False, backend=backend)
    return pipe


def with_style(pipe: Any, cards: bool = False) -> Any:
    adapter = style_adapter(tiny_unet())
    pipe.attach(style=StyleCards.of([adapter.bake(name) for name in STYLES]) if cards else adapter)
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
        made.append(SketchTextPair(sketch, WORDS[(seed + i) % 4], weight=weight, **{**place, **options}))
    return made


def changes() -> list[list[SketchTextPair]]:
    """20 designs of the structures that `structures` warms up."""
    rows = [pairs(2 + seed % 3, seed, region=seed % 2 == 1) for seed in range(12)]
    rows += [pairs(3, seed, start=0.3 * (seed % 3), end=1.0 - 0.2 * (seed % 2)) for seed in range(12, 16)]
    mask = Image.new("L", (32, 32), 128)
    rows += [
        [SketchTextPair(drawn_sketch(1), "a hat", weight=0.0), *pairs(1, 16)],
        [SketchTextPair(text="a hat"), *pairs(2, 17)],
        [SketchTextPair(drawn_sketch(2)), *pairs(2, 18)],
        [SketchTextPair(text="a hat", region=mask), *pairs(1, 19)],
    ]
    return rows


def structures() -> list[list[SketchTextPair]]:
    return [pairs(2), pairs(3), pairs(2, region=True), pairs(3, region=True)]


def styles(count: int, seed: int, region: bool = False) -> list[Style]:
    """`count` styles that differ by the seed in names, shares, weights, layer factors, schedules and guidance."""
    draw = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        first, second = (STYLES[i] for i in draw.permutation(len(STYLES))[:2])
        left, share, start = (float(number) for number in draw.uniform(0, 0.5, 3))
        layers = {LAYERS[i]: float(draw.uniform(0, 1.5)) for i in draw.permutation(len(LAYERS))[: seed % 3]}
        made.append(
            Style(
                first if draw.random() < 0.5 else {first: share, second: 1 - share},
                weight=0.0 if draw.random() < 0.2 else float(draw.uniform(0.2, 1.5)),
                region=(left, 0.0, left + 0.5, 1.0) if region else None,
                start=start,
                end=1.0 if draw.random() < 0.5 else start + 0.5,
                curve=CURVES[draw.integers(len(CURVES))],
                layers=layers,
                cfg=GUIDANCE[draw.integers(len(GUIDANCE))],
            )
        )
    return made


def check_compiled(
    make: Callable[[], Any],
    warm_ups: list[Conditions],
    changes: list[Conditions],
    backend: str = "eager",
    tolerance: float = 1e-5,
) -> None:
    """After one warm-up of each structure, 20 changes of values give the eager result without a recompilation."""
    eager, fast = make(), compiled(make(), backend)
    for conditions in warm_ups:
        run(fast, conditions=conditions)
    assert len(changes) == 20
    with torch._dynamo.config.patch(error_on_recompile=True):
        for conditions in changes:
            np.testing.assert_allclose(
                run(fast, conditions=conditions), run(eager, conditions=conditions), atol=tolerance
            )


def check_compiled_pairs(backend: str, tolerance: float) -> None:
    warm_ups, designs = ([{"it": design} for design in rows] for rows in (structures(), changes()))
    check_compiled(SD.attached, warm_ups, designs, backend, tolerance)


def test_no_recompilation_for_new_values() -> None:
    """The tracer alone, without code generation."""
    check_compiled_pairs("eager", 1e-5)


@pytest.mark.parametrize("cards", [False, True], ids=["table", "cards"])
def test_no_recompilation_for_new_styles(cards: bool) -> None:
    def rows(seeds: range) -> list[Conditions]:
        return [{"style": styles(1 + seed // 2 % 2, seed, region=seed % 2 == 1)} for seed in seeds]

    check_compiled(lambda: with_style(SD.make(SD.conditioned), cards), rows(range(4)), rows(range(4, 24)))


def test_no_recompilation_for_new_pairs_and_styles_together() -> None:
    def rows(seeds: range) -> list[Conditions]:
        return [
            {"it": pairs(2, seed, region=seed // 2 % 2 == 1), "style": styles(1, seed, region=seed % 2 == 1)}
            for seed in seeds
        ]

    check_compiled(lambda: with_style(SD.attached()), rows(range(4)), rows(range(4, 24)))


@pytest.mark.skipif(shutil.which("c++") is None and shutil.which("g++") is None, reason="no C++ compiler")
def test_generated_code_equals_eager() -> None:
    check_compiled_pairs("inductor", 1e-3)


def test_compiling_before_attaching() -> None:
    conditions = {"it": pairs(2)}
    pipe = compiled(SD.make(SD.conditioned))
    pipe.attach(it=SD.attached().adapters["it"])
    np.testing.assert_allclose(run(pipe, conditions=conditions), run(SD.attached(), conditions=conditions), atol=1e-5)
    pipe.detach()
    np.testing.assert_allclose(run(pipe), run(SD.make(SD.stock)), atol=1e-5)


def regionally_compiled(pipe: Any) -> Any:
    pipe.unet.compile_repeated_blocks(fullgraph=True, dynamic=False, backend="eager")
    return pipe


def test_no_recompilation_of_repeated_blocks() -> None:
    eager, fast = SD.attached(), regionally_compiled(SD.attached())
    for design in structures():
        run(fast, conditions={"it": design})
    with torch._dynamo.config.patch(error_on_recompile=True):
        for design in changes():
            conditions = {"it": design}
            np.testing.assert_allclose(run(fast, conditions=conditions), run(eager, conditions=conditions), atol=1e-5)
