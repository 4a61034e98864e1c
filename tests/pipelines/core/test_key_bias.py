"""Methods without trained weights on stock pipelines: regional prompts, and references of an editing model."""

from typing import Any

import pytest
import torch
from tiny_pipelines import PIPELINES, Tiny, embeds, run_tiny
from torch import Tensor

from weftwork.attention_processors import InContextAdapter, InContextReference, RegionalAdapter, RegionalPrompt
from weftwork.pipelines import ConditionedStableDiffusion3Pipeline, attach, conditions, detach

LEFT, SPAN = (0.0, 0.0, 0.5, 1.0), (5, 7)


@pytest.mark.parametrize("tiny", PIPELINES, ids=lambda one: one.name)
def test_regional_prompts(tiny: Tiny) -> None:
    pipe = tiny.make()
    stock = run_tiny(pipe, tiny.arguments())
    attach(pipe, texts=RegionalAdapter.for_denoiser(pipe.transformer))
    with conditions(pipe, {"texts": RegionalPrompt(tokens=SPAN, region=LEFT)}):
        first, again = (run_tiny(pipe, tiny.arguments()) for _ in range(2))
    assert torch.equal(first, again) and (first - stock).abs().max() > 1e-6
    detach(pipe)
    assert torch.equal(run_tiny(pipe, tiny.arguments()), stock)


def test_adapters_without_parameters_alone_in_a_pipeline_with_conditions() -> None:
    tiny = next(one for one in PIPELINES if one.name == "sd3")
    pipe = tiny.make(ConditionedStableDiffusion3Pipeline)
    stock = run_tiny(pipe, tiny.arguments())
    pipe.attach(texts=RegionalAdapter.for_denoiser(pipe.transformer))
    assert pipe.adapters.device == pipe.device == pipe.transformer.device and pipe.adapters.dtype == torch.float32
    assert torch.equal(run_tiny(pipe, tiny.arguments()), stock)
    moved = run_tiny(pipe, tiny.arguments(), conditions={"texts": RegionalPrompt(tokens=SPAN, region=LEFT)})
    assert (moved - stock).abs().max() > 1e-6


def edited(pipe: Any, image: bool = True, short: bool = False, **more: Any) -> Tensor:
    prompts = {"prompt_embeds": embeds(1, 7, 32)[:, : 5 if short else 7], "pooled_prompt_embeds": embeds(1, 32, seed=9)}
    generator = torch.Generator().manual_seed(0)
    options: dict[str, Any] = {"num_inference_steps": 2, "output_type": "latent", "max_area": 32 * 32}
    options |= {"height": 32, "width": 32, "image": embeds(1, 1, 4, 4, seed=4) if image else None}
    return run_tiny(pipe, {**prompts, **options, "generator": generator}, **more)


def test_references_beside_regional_prompts() -> None:
    pipe = next(one for one in PIPELINES if one.name == "kontext").make()
    stock, alone, neither = edited(pipe), edited(pipe, image=False), edited(pipe, image=False, short=True)
    attach(pipe, images=InContextAdapter.for_denoiser(pipe.transformer))
    attach(pipe, texts=RegionalAdapter.for_denoiser(pipe.transformer))
    assert torch.equal(edited(pipe), stock)
    for given, wanted in (
        ({"images": InContextReference(0)}, stock),
        ({"images": InContextReference(0, weight=0.0)}, alone),
        ({"images": InContextReference(0, weight=0.0), "texts": RegionalPrompt(tokens=SPAN, weight=0.0)}, neither),
    ):
        with conditions(pipe, given):
            torch.testing.assert_close(edited(pipe), wanted, atol=1e-5, rtol=0)
    with conditions(
        pipe, {"images": InContextReference(0, region=LEFT), "texts": RegionalPrompt(tokens=SPAN, region=LEFT)}
    ):
        halves = edited(pipe)
    assert all((halves - other).abs().max() > 1e-4 for other in (stock, alone, neither))
    with conditions(pipe, {"images": InContextReference(0)}):
        assert torch.equal(edited(pipe), stock)
    detach(pipe)
    assert torch.equal(edited(pipe), stock)
