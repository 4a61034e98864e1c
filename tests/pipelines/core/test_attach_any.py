"""Adapters and conditions on any stock pipeline: halves of guidance, schedules, and what is left behind."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.guiders import ClassifierFreeGuidance, PerturbedAttentionGuidance, SkipLayerGuidance
from diffusers.hooks import LayerSkipConfig
from tiny import raw_adapter, raw_conditions, tiny_parts, tiny_pipe, tiny_unet
from tiny_pipelines import PIPELINES, Tiny, calls_of, run_tiny
from torch import Tensor
from variants import VARIANTS, picture, run, xl_parts

from weftwork import pipelines
from weftwork.attention_processors import MapRecorder, Style, StyleAdapter
from weftwork.attention_processors.core.call_rows import rows_of
from weftwork.attention_processors.core.conditioning import Conditioning
from weftwork.attention_processors.core.families import call_layout
from weftwork.attention_processors.core.processor import attention_layers, conditioned
from weftwork.pipelines import attach, conditions, detach
from weftwork.pipelines.core.attach import encoded
from weftwork.pipelines.core.opening import conditioned_class, open_conditioned

every = pytest.mark.parametrize("tiny", PIPELINES, ids=lambda one: one.name)


def style_adapter(pipe: Any) -> StyleAdapter:
    torch.manual_seed(3)
    return StyleAdapter.for_denoiser(pipe.transformer, styles=("ink",), token_dim=8, style_dim=4)


def style(**options: Any) -> dict[str, Style]:
    return {"style": Style("ink", **options)}


@every
def test_conditions_act_and_leave_nothing(tiny: Tiny) -> None:
    pipe = tiny.make()
    stock = run_tiny(pipe, tiny.arguments())
    found = {name: layer.processor for name, layer in attention_layers(pipe.transformer).items()}
    adapter = style_adapter(pipe)
    attach(pipe, style=adapter)
    assert torch.equal(run_tiny(pipe, tiny.arguments()), stock)
    with conditions(pipe, style(weight=0.0)):
        assert torch.equal(run_tiny(pipe, tiny.arguments()), stock)
    with conditions(pipe, style()):
        first, again = (run_tiny(pipe, tiny.arguments()) for _ in range(2))
    assert (first - stock).abs().max() > 1e-4 and torch.equal(first, again)
    detach(pipe)
    assert torch.equal(run_tiny(pipe, tiny.arguments()), stock)
    assert all(layer.processor is found[name] for name, layer in attention_layers(pipe.transformer).items())
    mine = tiny.make(conditioned_class(getattr(diffusers, tiny.stock)))
    mine.attach(style=adapter)
    assert torch.equal(run_tiny(mine, tiny.arguments(), conditions=style()), first)


def texts_of(inputs: dict[str, Any]) -> Any:
    return inputs["cap_feats"] if "cap_feats" in inputs else inputs["encoder_hidden_states"]


MODES = [
    pytest.param(tiny, guided, id=f"{tiny.name}-{'guided' if guided else 'distilled'}")
    for tiny in PIPELINES
    for guided in (True, False)
    if tiny.guided or not guided
]


@pytest.mark.parametrize(("tiny", "guided"), MODES)
@torch.no_grad()
def test_each_half_of_guidance_is_that_of_a_separate_run(tiny: Tiny, guided: bool) -> None:
    """At the step at which the condition acts; at the other one, the stock model."""
    pipe = tiny.make()
    model = pipe.transformer
    with calls_of(model) as plain:
        run_tiny(pipe, tiny.arguments(False, steps=1))
    prompt = texts_of(plain[0][0])[0]
    attach(pipe, style=style_adapter(pipe))
    with conditions(pipe, style(end=0.5, cfg="both")), calls_of(model) as calls:
        run_tiny(pipe, tiny.arguments(guided, steps=2))
    made, _ = encoded(pipe, style(cfg="both"))
    halves: list[str] = []
    for number, (inputs, out) in enumerate(calls):
        texts = texts_of(inputs)
        for row, text in enumerate(texts):
            half = "conditional" if torch.equal(text, prompt) else "unconditional"
            halves.append(half)
            alone = _row(inputs, row, len(texts))
            conditioning = Conditioning.of(made, call_layout(model, alone, halves=(half,)))
            with conditioned(model, conditioning if number < len(calls) // 2 else None):
                single = model(**alone)[0]
            torch.testing.assert_close(out[row], single[0], atol=1e-5, rtol=0)
    passes = 3 if tiny.name == "ltx2" else 1  # with blocks and streams perturbed
    assert halves.count("conditional") == 2 * passes and halves.count("unconditional") == (2 if guided else 0)


def _row(inputs: dict[str, Any], row: int, rows: int) -> dict[str, Any]:
    return inputs if rows == 1 else rows_of(inputs, [row])


def test_a_saved_pipeline_has_its_adapters_and_opens_as_the_stock_one(tmp_path: Path) -> None:
    tiny = next(one for one in PIPELINES if one.name == "sd3")
    pipe = tiny.make(pipelines.ConditionedStableDiffusion3Pipeline)
    pipe.attach(style=style_adapter(pipe))
    expected = run_tiny(pipe, tiny.arguments(), conditions=style())
    pipe.save_pretrained(tmp_path)
    none = {name: part for name, part in tiny.parts().items() if part is None}
    opened = open_conditioned(tmp_path, **none)
    assert type(opened) is pipelines.ConditionedStableDiffusion3Pipeline
    assert torch.equal(run_tiny(opened, tiny.arguments(), conditions=style()), expected)
    assert type(diffusers.DiffusionPipeline.from_pretrained(tmp_path, **none)) is diffusers.StableDiffusion3Pipeline


# -- several prompts and images ----------------------------------------------------------------------------


def twice(arguments: dict[str, Any], *seeds: int) -> dict[str, Any]:
    """Returns the arguments of a call with two prompts."""
    both = {
        name: value * 2 if isinstance(value, list) else torch.cat([value] * 2)
        for name, value in arguments.items()
        if ("prompt" in name or name.endswith("attention_mask")) and value is not None
    }
    return {**arguments, **both, "generator": [torch.Generator().manual_seed(seed) for seed in seeds]}


@pytest.mark.parametrize("name", ["pixart", "auraflow", "cogvideox", "stable_audio", "sd3"])
def test_unguided_images_of_one_seed_are_not_halves_of_guidance(name: str) -> None:
    tiny = next(one for one in PIPELINES if one.name == name)
    pipe = tiny.make()
    attach(pipe, style=style_adapter(pipe))
    with conditions(pipe, style()):
        alone = run_tiny(pipe, tiny.arguments(guided=False))
        both = run_tiny(pipe, twice(tiny.arguments(guided=False), 0, 0))
        guided = run_tiny(pipe, twice(tiny.arguments(), 0, 0))
        guided_alone = run_tiny(pipe, tiny.arguments())
    torch.testing.assert_close(both, alone.expand_as(both), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(guided, guided_alone.expand_as(guided), atol=1e-5, rtol=1e-5)
    with conditions(pipe, {"style": [[Style("ink")], None]}):
        first = run_tiny(pipe, twice(tiny.arguments(guided=False), 0, 0))
    torch.testing.assert_close(first[:1], alone, atol=1e-5, rtol=1e-5)
    assert (first[1] - first[0]).abs().max() > 1e-5


@pytest.mark.parametrize("name", ["sd3", "qwen_image", "z_image"])
def test_lists_per_prompt(name: str) -> None:
    tiny = next(one for one in PIPELINES if one.name == name)
    pipe = tiny.make()
    attach(pipe, style=style_adapter(pipe))

    def drawn(given: Any) -> Tensor:
        with conditions(pipe, {"style": given}):
            return run_tiny(pipe, twice(tiny.arguments(), 0, 1))

    plain = drawn([[], []])
    one = drawn([[Style("ink")], None])
    assert torch.allclose(one[1], plain[1], atol=1e-5) and (one[0] - plain[0]).abs().max() > 1e-4
    assert torch.allclose(drawn(Style("ink"))[0], one[0], atol=1e-5)
    with pytest.raises(ValueError, match=r"got a batch of .* rows for conditions of 3 prompts"):
        drawn([[], [], []])


def test_both_transformers_of_a_pipeline_take_conditions() -> None:
    tiny = next(one for one in PIPELINES if one.name == "wan")
    pipe = tiny.make()
    pipe.register_modules(transformer_2=tiny.parts()["transformer"])
    pipe.register_to_config(boundary_ratio=0.5)
    attach(pipe, style=style_adapter(pipe))
    for start, end in ((0.0, 0.25), (0.75, 1.0)):
        with calls_of(pipe.transformer) as high, calls_of(pipe.transformer_2) as low:
            plain = run_tiny(pipe, tiny.arguments(steps=4))
            with conditions(pipe, style(start=start, end=end)):
                assert (run_tiny(pipe, tiny.arguments(steps=4)) - plain).abs().max() > 1e-4
        assert high and low


# -- caches of diffusers -----------------------------------------------------------------------------------


def caches(pipe: Any) -> dict[str, Any]:
    """Caches that reuse what they can for as long as they can."""
    timestep: dict[str, Any] = {"current_timestep_callback": lambda: pipe._current_timestep or 1}
    every_block: dict[str, Any] = {"spatial_attention_block_skip_range": 9}
    return {
        "first block": diffusers.FirstBlockCacheConfig(threshold=1e9),
        "pyramid": diffusers.PyramidAttentionBroadcastConfig(
            **every_block, spatial_attention_timestep_skip_range=(-1, 1001), **timestep
        ),
        "taylor": diffusers.TaylorSeerCacheConfig(cache_interval=9, disable_cache_before_step=1),
        "faster": diffusers.FasterCacheConfig(
            **every_block, spatial_attention_timestep_skip_range=(-1, 999), is_guidance_distilled=True, **timestep
        ),
    }


@pytest.mark.parametrize("name", ["first block", "pyramid", "taylor", "faster"])
@torch.no_grad()
def test_caches_are_reset_when_a_schedule_moves(name: str) -> None:
    """The first step at which a condition acts is computed anew; the one before it is not, which shows the cache."""
    tiny = PIPELINES[0]
    pipe = tiny.make()
    model = pipe.transformer
    attach(pipe, style=style_adapter(pipe))
    model.enable_cache(caches(pipe)[name])
    with conditions(pipe, style(start=0.5)), calls_of(model) as calls:
        run_tiny(pipe, tiny.arguments(guided=False, steps=4))
    model.disable_cache()
    made, _ = encoded(pipe, style())
    for number, cached in ((1, True), (2, False)):
        inputs, out = calls[number]
        conditioning = Conditioning.of(made, call_layout(model, inputs))
        with conditioned(model, None if cached else conditioning):
            anew = model(**inputs)[0]
        assert ((out - anew).abs().max() > 1e-6) == cached


# -- modular pipelines -------------------------------------------------------------------------------------


def modular(guider: Any, parts: dict[str, Any]) -> Any:
    pipe = diffusers.StableDiffusionXLAutoBlocks().init_pipeline()
    pipe.update_components(**parts, guider=guider)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def run_modular(pipe: Any) -> np.ndarray:
    out = pipe(
        prompt="a person", negative_prompt="x", num_inference_steps=2, output_type="latent", height=64, width=64,
        generator=torch.Generator().manual_seed(0), output="images",
    )  # fmt: skip
    return (out if isinstance(out, Tensor) else out[0]).float().numpy()


def test_modular_pipelines_condition_the_half_that_their_guider_names() -> None:
    parts = xl_parts()
    given = {"it": raw_conditions(end=0.5)}
    variant = VARIANTS[1]
    stock = variant.conditioned(**parts, add_watermarker=False)
    stock.set_progress_bar_config(disable=True)
    stock.attach(it=raw_adapter(stock.unet))
    options = {"negative_prompt": "x", "height": 64, "width": 64}
    expected, plain = run(stock, conditions=given, **options), run(stock, **options)
    stock.detach()
    pipe = modular(ClassifierFreeGuidance(guidance_scale=3.0), parts)
    attach(pipe, it=raw_adapter(pipe.unet))
    with conditions(pipe, given):
        np.testing.assert_allclose(run_modular(pipe), expected, atol=1e-4)
    assert np.abs(run_modular(pipe) - plain).max() < 1e-4 < np.abs(expected - plain).max()


@pytest.mark.parametrize("kind", ["skip blocks", "skip attention", "perturb attention"])
def test_guiders_with_a_third_prediction(kind: str) -> None:
    """Conditions act in the conditional prediction and in that of fewer layers, which is where the guider is on."""
    skip = LayerSkipConfig(indices=[0], fqn="mid_block.attentions.0.transformer_blocks", skip_ff=kind == "skip blocks")
    if kind == "perturb attention":
        skip.skip_attention, skip.skip_attention_scores = False, True
        on = {"perturbed_guidance_start": 0.0, "perturbed_guidance_stop": 1.0}
        guider: Any = PerturbedAttentionGuidance(guidance_scale=3.0, perturbed_guidance_config=skip, **on)
    else:
        on = {"skip_layer_guidance_start": 0.0, "skip_layer_guidance_stop": 1.0}
        guider = SkipLayerGuidance(guidance_scale=3.0, skip_layer_config=skip, **on)
    pipe = modular(guider, xl_parts())
    stock = run_modular(pipe)
    attach(pipe, it=raw_adapter(pipe.unet))
    outs: list[list[Tensor]] = []
    for given in ({}, {"it": raw_conditions(weight=0.0)}, {"it": raw_conditions(start=0.5, cfg="cond_only")}):
        with conditions(pipe, given), calls_of(pipe.unet) as calls:
            drawn = run_modular(pipe)
        outs.append([out for _, out in calls])
        assert np.array_equal(drawn, stock) == (len(outs) < 3)
    plain, _, conditioned = outs
    assert len(plain) == 5 and not torch.equal(plain[4], plain[2])  # off in the first step
    changed = [not torch.equal(one, other) for one, other in zip(conditioned, plain, strict=True)]
    assert changed == [False, False, True, False, True]


# -- what is refused ---------------------------------------------------------------------------------------


def test_the_three_parts_of_instruct_pix2pix() -> None:
    """The condition acts in the first part alone; a recorder, which knows two halves, is refused."""
    parts = {**tiny_parts(), "unet": tiny_unet(in_channels=8)}
    none: dict[str, Any] = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    pipe = diffusers.StableDiffusionInstructPix2PixPipeline(**parts, **none)
    pipe.set_progress_bar_config(disable=True)
    attach(pipe, it=raw_adapter(pipe.unet))
    given = {"it": raw_conditions(cfg="cond_only")}
    firsts: list[Tensor] = []
    for context in (nullcontext(), conditions(pipe, given)):
        with context, calls_of(pipe.unet) as calls:
            run(pipe, image=picture(), num_images_per_prompt=2)
        firsts.append(calls[0][1])
    assert firsts[0].shape[0] == 6 and torch.equal(firsts[1][2:], firsts[0][2:])
    assert all((firsts[1][row] - firsts[0][row]).abs().max() > 1e-4 for row in range(2))
    refused = pytest.raises(ValueError, match="a batch with a third part is not supported")
    with conditions(pipe, given, recorder=MapRecorder()), refused:
        run(pipe, image=picture())


def test_a_pipeline_without_a_denoiser_is_refused() -> None:
    with pytest.raises(ValueError, match="got object, which has no unet and no transformer"):
        attach(object())


def test_a_third_call_in_a_step_is_refused() -> None:
    tiny = PIPELINES[0]
    pipe = tiny.make()
    attach(pipe, style=style_adapter(pipe))
    with calls_of(pipe.transformer) as calls:
        run_tiny(pipe, tiny.arguments())
    inputs, _ = calls[0]
    with conditions(pipe, style()), torch.no_grad():
        for _ in range(2):
            pipe.transformer(**inputs)
        with pytest.raises(ValueError, match="got 3 calls of FluxTransformer2DModel in one step"):
            pipe.transformer(**inputs)
    assert "step" not in vars(pipe.scheduler) and "cache_context" not in vars(pipe.transformer)


def test_another_adapter_is_named() -> None:
    pipe = tiny_pipe(diffusers.StableDiffusionPipeline)
    attach(pipe, it=raw_adapter(pipe.unet))
    with (
        pytest.raises(ValueError, match="conditions: got 'other', attached are: it"),
        conditions(pipe, {"other": raw_conditions()}),
    ):
        pass
