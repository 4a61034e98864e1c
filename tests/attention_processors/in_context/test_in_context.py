"""In-context references: 1 is the stock model, 0 is it without the reference; regions, schedules and halves."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from weftwork.attention_processors.core.conditioning import Conditioning
from weftwork.attention_processors.core.families import call_layout
from weftwork.attention_processors.core.processor import conditioned, install
from weftwork.attention_processors.in_context.adapter import InContextAdapter
from weftwork.attention_processors.in_context.conditions import InContextReference
from weftwork.datasets.readers.errors import UserError
from weftwork.scripts.benchmarks.backbones.tiny import HALF, Made, flux, flux2, ids, noise, parts, qwen_image, run

TOKENS = 16
"""Of the target; references have 6 and 4."""


def kontext() -> Made:
    model, inputs = flux()
    return model, {**inputs, "hidden_states": noise(2, 22, 4), "img_ids": torch.cat([ids(4, 4), ids(2, 3, image=1)])}


def flux2_edit() -> Made:
    model, inputs = flux2()
    images = [ids(4, 4, 4), ids(2, 3, 4, image=10), ids(2, 2, 4, image=20)]
    return model, {**inputs, "hidden_states": noise(2, 26, 4), "img_ids": torch.cat(images)}


def qwen_edit() -> Made:
    model, inputs = qwen_image()
    return model, {**inputs, "hidden_states": noise(2, 26, 16), "img_shapes": [[(1, 4, 4), (1, 2, 3), (1, 2, 2)]] * 2}


EDITING = (kontext, flux2_edit, qwen_edit)
every = pytest.mark.parametrize("backbone", EDITING, ids=lambda one: one.__name__)


def without(inputs: dict[str, Any], count: int) -> dict[str, Any]:
    """Inputs without the last references: `count` tokens of the stream are left."""
    shapes = {TOKENS: 1, TOKENS + 6: 2}[count]
    changed: dict[str, Any] = {"hidden_states": inputs["hidden_states"][:, :count]}
    if "img_ids" in inputs:
        changed["img_ids"] = inputs["img_ids"][:count]
    else:
        changed["img_shapes"] = [row[:shapes] for row in inputs["img_shapes"]]
    return {**inputs, **changed}


def laid_out(model: Any, inputs: Any, *rows: list[InContextReference]) -> Conditioning:
    adapter = InContextAdapter.for_denoiser(model)
    encoded = adapter(adapter.features(adapter.collate(rows), {}))
    return Conditioning.of({"it": encoded}, call_layout(model, inputs))


def target(model: Any, inputs: Any, *references: InContextReference) -> Tensor:
    with conditioned(model, laid_out(model, inputs, *[list(references)] * 2)):
        return run(model, inputs)[:, :TOKENS]


def close(got: Tensor, wanted: Tensor, tolerance: float = 1e-5) -> bool:
    return torch.allclose(got, wanted, atol=tolerance, rtol=0)


@every
@torch.no_grad()
def test_one_is_the_stock_model_and_zero_is_it_without_references(backbone: Callable[[], Made]) -> None:
    model, inputs = parts(backbone)
    stock, alone = run(model, inputs)[:, :TOKENS], run(model, without(inputs, TOKENS))
    assert not close(stock, alone, 1e-3)
    install(model)
    count = 1 if backbone is kontext else 2
    assert torch.equal(target(model, inputs, *map(reference, range(count))), stock)
    assert close(target(model, inputs, *(reference(i, weight=0.0) for i in range(count))), alone)
    almost = target(model, inputs, reference(0, weight=1.0, layers={".*": 1.0000001}))
    assert close(almost, stock)
    between = target(model, inputs, *(reference(i, weight=0.5) for i in range(count)))
    assert not close(between, stock, 1e-3) and not close(between, alone, 1e-3)


def reference(index: int, **options: Any) -> InContextReference:
    return InContextReference(index, **options)


@pytest.mark.parametrize("backbone", [flux2_edit, qwen_edit], ids=lambda one: one.__name__)
@torch.no_grad()
def test_references_have_strengths_of_their_own(backbone: Callable[[], Made]) -> None:
    """The second at 0 leaves the first, which never sees what is not there for it."""
    model, inputs = parts(backbone)
    install(model)
    first_alone = run(model, without(inputs, TOKENS + 6))[:, :TOKENS]
    got = target(model, inputs, reference(1, weight=0.0))
    assert not close(got, target(model, inputs, reference(0, weight=0.0)), 1e-3)
    stock = run(model, inputs)[:, :TOKENS]
    # References see each other as in the stock model, so that the first is another one in the second layer.
    assert (got - first_alone).abs().mean() < (stock - first_alone).abs().mean()


@every
@torch.no_grad()
def test_a_region_acts_in_its_places(backbone: Callable[[], Made]) -> None:
    model, inputs = parts(backbone)
    stock, alone = run(model, inputs)[:, :TOKENS], run(model, without(inputs, TOKENS))
    install(model)
    others = [] if backbone is kontext else [reference(1, weight=0.0)]
    got = target(model, inputs, reference(0, region=(0, 0, 1, 0.5)), *others)
    if backbone is kontext:
        upper, lower = slice(0, 8), slice(8, 16)
        near = [[float((got - other)[:, half].abs().mean()) for other in (stock, alone)] for half in (upper, lower)]
        assert near[0][0] < near[0][1] and near[1][1] < near[1][0]
    assert not close(got, stock, 1e-3) and not close(got, alone, 1e-3)
    everywhere = target(model, inputs, reference(0, region=(0, 0, 1, 1)), *others)
    assert close(everywhere, target(model, inputs, reference(0), *others))


@torch.no_grad()
def test_schedules_and_halves_of_guidance() -> None:
    model, inputs = parts(kontext)
    stock, alone = run(model, inputs)[:, :TOKENS], run(model, without(inputs, TOKENS))
    install(model)
    conditioning = laid_out(model, inputs, *[[reference(0, end=0.5)]] * 2)
    with conditioned(model, conditioning):
        for step, wanted in ((0, stock), (1, stock), (2, alone), (3, alone), (0, stock)):
            conditioning.set_step(step, 4)
            assert close(run(model, inputs)[:, :TOKENS], wanted), step
    for cfg, wanted in (("both", alone), ("cond_only", stock)):
        adapter = InContextAdapter.for_denoiser(model)
        encoded = adapter(adapter.collate([[reference(0, weight=0.0, cfg=cfg)]]))
        layout = call_layout(model, inputs, halves=("unconditional", "conditional"))
        with conditioned(model, Conditioning.of({"it": encoded}, layout)):
            got = run(model, inputs)[:, :TOKENS]
        assert close(got[1:], alone[1:]) and close(got[:1], wanted[:1])


@torch.no_grad()
def test_a_batch_is_its_rows() -> None:
    model, inputs = parts(kontext)
    stock = run(model, inputs)[:, :TOKENS]
    install(model)
    half = target(model, inputs, reference(0, weight=0.3))
    with conditioned(model, laid_out(model, inputs, [reference(0, weight=0.3)], [])):
        got = run(model, inputs)[:, :TOKENS]
    assert close(got[:1], half[:1]) and close(got[1:], stock[1:])


def test_bad_references() -> None:
    assert InContextReference(np.int64(2)).index == InContextReference(torch.tensor(2)).index == 2  # pyright: ignore
    for index in (-1, 0.5, None, "0", "a", True):
        with pytest.raises(UserError, match=f"index: got {index!r}, expected a whole number of at least 0"):
            InContextReference(index)  # pyright: ignore[reportArgumentType]


def test_files(tmp_path: Any) -> None:
    model, _ = parts(kontext)
    InContextAdapter.for_denoiser(model).save_pretrained(tmp_path / "adapter")
    loaded = InContextAdapter.from_pretrained(tmp_path / "adapter")
    assert set(loaded.config["layers"]) == {"transformer_blocks.0.attn", "single_transformer_blocks.0.attn"}
    assert HALF.shape == (2,) and not list(loaded.parameters())
