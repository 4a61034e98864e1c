"""Pairs, a style, a LoRA and a ControlNet on one call: each comes, acts and goes as if the others were not there."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from tiny import attend, open_style_adapter, paired_adapter, paired_conditions, style_adapter, tiny_unet
from variants import SD, add_lora, controlnet_parts, picture, run

from weftwork.attention_processors.core.branch import DecoupledBranch, OwnAttention
from weftwork.attention_processors.core.families import layer_levels
from weftwork.attention_processors.core.strength import Layout
from weftwork.attention_processors.style.adapter import FUSIONS, Style
from weftwork.pipelines.core.mixin import (
    ConditionedStableDiffusionControlNetPipeline,
    ConditionedStableDiffusionPipeline,
)

LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)


def without_lora(pipe: Any) -> Any:
    pipe.unet.unload_lora()
    return pipe


def with_adapter(name: str, make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def attached(pipe: Any) -> Any:
        pipe.attach(**{name: make(tiny_unet())})
        return pipe

    return attached


def without_adapter(name: str) -> Callable[[Any], Any]:
    def detached(pipe: Any) -> Any:
        pipe.detach(name)
        return pipe

    return detached


def quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def with_controlnet(pipe: Any) -> Any:
    controlnet = controlnet_parts()["controlnet"]
    return quiet(ConditionedStableDiffusionControlNetPipeline.from_pipe(pipe, controlnet=controlnet))


def without_controlnet(pipe: Any) -> Any:
    return quiet(ConditionedStableDiffusionPipeline.from_pipe(pipe))


ADDED: Mapping[str, Callable[[Any], Any]] = {
    "pairs": with_adapter("pairs", paired_adapter),
    "style": with_adapter("style", style_adapter),
    "lora": add_lora,
    "controlnet": with_controlnet,
}
REMOVED: Mapping[str, Callable[[Any], Any]] = {
    "pairs": without_adapter("pairs"),
    "style": without_adapter("style"),
    "lora": without_lora,
    "controlnet": without_controlnet,
}
"""By part, how it is put on a pipeline and taken off again; both give the pipeline to go on with."""
PARTS = tuple(ADDED)


def composed(parts: tuple[str, ...]) -> Any:
    return functools.reduce(lambda pipe, part: ADDED[part](pipe), parts, SD.make(SD.conditioned))


def inputs(parts: tuple[str, ...], **weights: float) -> dict[str, Any]:
    """Arguments of a call for the parts that are there."""
    said: dict[str, Any] = {
        "pairs": paired_conditions(region="sketch", weight=weights.get("pairs", 1.0)),
        "style": Style({"ink": 1, "neon": 2}, end=0.9, weight=weights.get("style", 0.8)),
    }
    options: dict[str, Any] = {"conditions": {name: said[name] for name in said if name in parts}}
    if "controlnet" in parts:
        options |= {"image": picture(), "controlnet_conditioning_scale": weights.get("controlnet", 0.7)}
    return options


@functools.cache
def alone(parts: tuple[str, ...]) -> np.ndarray:
    """A run of these parts on a pipeline that never had others."""
    return run(composed(parts), **inputs(parts))


def rest(*gone: str) -> tuple[str, ...]:
    return tuple(part for part in PARTS if part not in gone)


@pytest.mark.parametrize("part", PARTS)
def test_each_part_acts_beside_the_others(part: str) -> None:
    assert np.abs(alone(PARTS) - alone(rest(part))).max() > 1e-4


def test_order_of_attaching_does_not_matter() -> None:
    """Any two parts in either order, and each part first, second, third and last."""
    for order in (PARTS[::-1], *(PARTS[first:] + PARTS[:first] for first in range(1, len(PARTS)))):
        np.testing.assert_allclose(run(composed(order), **inputs(PARTS)), alone(PARTS), rtol=0, atol=1e-5)


@pytest.mark.parametrize("first", range(len(PARTS)), ids=PARTS)
def test_what_was_removed_was_never_there(first: int) -> None:
    pipe, gone = composed(PARTS), []
    run(pipe, **inputs(PARTS))  # all have acted before they go
    for part in PARTS[first:] + PARTS[:first]:
        pipe = REMOVED[part](pipe)
        gone.append(part)
        assert np.array_equal(run(pipe, **inputs(rest(*gone))), alone(rest(*gone))), gone
    assert np.array_equal(run(pipe), run(SD.make(SD.stock)))


@pytest.mark.parametrize("part", PARTS)
def test_weight_zero_is_the_run_without(part: str) -> None:
    pipe = composed(PARTS)
    if part == "lora":
        pipe.unet.set_adapters("other", 0.0)
    assert np.array_equal(run(pipe, **inputs(PARTS, **{part: 0.0})), alone(rest(part)))
    if part in ("pairs", "style"):
        pipe.set_weights(**{part: 0.0})
        assert np.array_equal(run(pipe, **inputs(PARTS)), alone(rest(part)))


# -- two styles side by side -----------------------------------------------------------------------------------


@pytest.mark.parametrize("fusion", FUSIONS)
def test_styles_of_two_halves_are_each_alone_in_theirs(fusion: str) -> None:
    """In all of a layer's places that lie in one half as a whole; the smaller grid, of 5 columns, has a border."""
    unet = tiny_unet()
    adapter = open_style_adapter(unet, fusion=fusion)
    layout = Layout(layer_levels(unet), (8, 10))

    @torch.no_grad()
    def branches(*styles: Style) -> dict[str, Any]:
        return adapter(adapter.collate([styles])).build(layout)[0]

    both = branches(Style("ink", region=LEFT), Style("neon", region=RIGHT))
    for name, region in (("ink", LEFT), ("neon", RIGHT)):
        single = branches(Style(name))
        for layer, branch in both.items():
            height, width = layout.grid(layer)
            inside = slice(0, width // 2) if region is LEFT else slice(width - width // 2, width)
            got, wanted = (added(one, height * width).unflatten(0, (height, width)) for one in (branch, single[layer]))
            torch.testing.assert_close(got[:, inside], wanted[:, inside], rtol=0, atol=1e-6)
            assert (got - wanted).abs().max() > 1e-3


def added(branch: DecoupledBranch, queries: int) -> torch.Tensor:
    """Returns what a branch adds to a text attention of random numbers, [query, inner]."""
    generator = torch.Generator().manual_seed(0)
    heads = 4
    dim = branch.key.shape[-1] // heads
    query, key, value = (torch.randn(1, n, heads, dim, generator=generator) for n in (queries, 7, 7))
    out = attend(query, key, value)
    return (branch.mix(query, out, attend, OwnAttention(key, value, None, out)) - out)[0].flatten(1)


def test_an_image_of_two_halves_is_neither_style() -> None:
    pipe = composed(("style",))
    both = run(pipe, conditions={"style": [Style("ink", region=LEFT), Style("neon", region=RIGHT)]})
    for name in ("ink", "neon"):
        for region in (None, LEFT, RIGHT):
            assert np.abs(run(pipe, conditions={"style": Style(name, region=region)}) - both).max() > 1e-4


# -- batches ---------------------------------------------------------------------------------------------------


def test_prompts_of_one_batch_are_composed_on_their_own() -> None:
    pipe = composed(PARTS)
    pairs = [paired_conditions(0), None, paired_conditions(2, region="sketch")[:1], None]
    styles = [[Style("ink")], [Style("neon", region=LEFT), Style("ink", weight=0.5)], None, None]
    prompts, pictures = ["a b", "c", "d e f", "g"], [picture(seed) for seed in range(4)]
    seeds = [torch.Generator().manual_seed(seed) for seed in range(4)]
    batch = run(pipe, prompt=prompts, image=pictures, generator=seeds, conditions={"pairs": pairs, "style": styles})
    for i, (prompt, image) in enumerate(zip(prompts, pictures, strict=True)):
        conditions = {"pairs": [pairs[i]], "style": [styles[i]]}
        generator = torch.Generator().manual_seed(i)
        single = run(pipe, prompt=prompt, image=image, generator=generator, conditions=conditions)
        np.testing.assert_allclose(batch[i], single[0], rtol=0, atol=1e-4)
