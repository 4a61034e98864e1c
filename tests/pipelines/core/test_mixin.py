"""Every pipeline variant against its stock twin, with LoRA, offloading, callbacks and other kernels beside it."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.callbacks import SDCFGCutoffCallback
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from tiny import paired_adapter, paired_conditions, tiny_pipe
from variants import SD, VARIANTS, Variant, add_lora, picture, run

from weftwork.attention_processors.core.layers import select_layers
from weftwork.pipelines.core.mixin import EXTRA_ARGUMENTS, ConditionedStableDiffusionPipeline


@pytest.fixture(params=VARIANTS, ids=lambda v: v.name)
def variant(request: pytest.FixtureRequest) -> Variant:
    return request.param


# -- variants ----------------------------------------------------------------------------------------------


def test_off_is_the_stock_pipeline_and_on_is_not(variant: Variant) -> None:
    stock = run(variant.make(variant.stock), **variant.inputs())
    pipe = variant.attached()
    assert np.array_equal(run(pipe, **variant.inputs()), stock)
    assert np.array_equal(run(pipe, **variant.inputs(), conditions={"it": paired_conditions(weight=0.0)}), stock)
    changed = run(pipe, **variant.inputs(), conditions={"it": paired_conditions()})
    assert np.abs(changed - stock).max() > 1e-4 and np.isfinite(changed).all()
    regional = run(pipe, **variant.inputs(), conditions={"it": paired_conditions(region="sketch")})
    assert np.abs(regional - changed).max() > 1e-5
    pipe.detach()
    assert np.array_equal(run(pipe, **variant.inputs()), stock)


def test_the_stock_signature_stays_visible(variant: Variant) -> None:
    stock = inspect.signature(variant.stock.__call__).parameters
    mine = inspect.signature(variant.conditioned.__call__).parameters
    named = [n for n, p in stock.items() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    assert list(mine) == [*named, *EXTRA_ARGUMENTS]
    assert all(mine[n].default is stock[n].default or mine[n].default == stock[n].default for n in named)
    text, doc = inspect.getdoc(variant.conditioned.__call__) or "", inspect.getdoc(variant.stock.__call__) or "?"
    assert text.endswith(doc) and all(f"    {name}: " in text.removesuffix(doc) for name in EXTRA_ARGUMENTS)
    kinds = [str(mine[name].annotation) for name in EXTRA_ARGUMENTS]
    assert all(kind in text for kind, text in zip(("Mapping", "Conditioning", "MapRecorder"), kinds, strict=True))
    components = inspect.signature(variant.conditioned.__init__).parameters
    assert list(components) == [*inspect.signature(variant.stock.__init__).parameters, "adapters", "encoders"]


def test_unknown_arguments_are_refused_by_name() -> None:
    pipe = SD.attached()
    with pytest.raises(
        TypeError, match="condition: unknown argument of the pipeline's call; did you mean 'conditions'"
    ):
        run(pipe, condition={"it": paired_conditions()})
    with pytest.raises(TypeError, match=r"num_inference_step: .* did you mean 'num_inference_steps'"):
        run(pipe, num_inference_step=1, conditions={"it": paired_conditions()})
    with pytest.raises(TypeError, match=r"qqq: unknown argument of the pipeline's call; see help\(pipe.__call__\)"):
        run(pipe, qqq=1)


class _Doubling(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(2.0))


def test_encoders_are_components_that_move_and_are_not_saved(tmp_path: Path) -> None:
    pipe, encoder, model = SD.attached(), _Doubling(), _Doubling()
    pipe.set_encoders(image=encoder)
    pipe.set_encoders(sketch=SimpleNamespace(model=model), audio=len)
    assert pipe.frozen_encoders.keys() == {"image", "sketch", "audio"} and "encoders" in pipe.components
    pipe.to(torch.float64)
    assert encoder.factor.dtype == model.factor.dtype == torch.float64
    assert ConditionedStableDiffusionPipeline.from_pipe(pipe).frozen_encoders["image"] is encoder
    pipe.save_pretrained(tmp_path)
    assert not (tmp_path / "encoders").exists() and (tmp_path / "adapters").is_dir()
    assert ConditionedStableDiffusionPipeline.from_pretrained(tmp_path).frozen_encoders == {}


def test_from_pipe(variant: Variant) -> None:
    stock = variant.make(variant.stock)
    pipe = variant.conditioned.from_pipe(stock)
    pipe.set_progress_bar_config(disable=True)
    assert pipe.unet is stock.unet
    pipe.attach(it=paired_adapter(pipe.unet, text_dim=variant.text_dim))
    expected = run(variant.attached(), **variant.inputs(), conditions={"it": paired_conditions()})
    assert np.array_equal(run(pipe, **variant.inputs(), conditions={"it": paired_conditions()}), expected)


def test_from_pipe_carries_adapters_over_and_detaches_them() -> None:
    first = SD.attached()
    processors = {name: processor.found for name, processor in first.unet.attn_processors.items()}
    second = ConditionedStableDiffusionPipeline.from_pipe(first)
    second.set_progress_bar_config(disable=True)
    conditions = {"it": paired_conditions()}
    assert np.array_equal(run(second, conditions=conditions), run(first, conditions=conditions))
    second.detach()
    assert second.unet.attn_processors != processors  # the first uses them still
    first.detach()
    assert second.unet.attn_processors == processors


def test_the_mid_batch_of_variants_is_laid_out_per_prompt(variant: Variant) -> None:
    """Two prompts and two images of each equal single calls, in pipelines with image inputs too."""
    pipe = variant.attached()
    inputs = variant.inputs()
    many = {k: [v, v] if k in ("image", "mask_image") else v for k, v in inputs.items()}
    seeds = [torch.Generator().manual_seed(i) for i in range(4)]
    designs = [paired_conditions(0), None]
    batch = run(pipe, prompt=["a b", "c"], **many, num_images_per_prompt=2, generator=seeds, conditions={"it": designs})
    for i, (prompt, design) in enumerate([("a b", 0), ("a b", 0), ("c", 1), ("c", 1)]):
        if variant.name.startswith("inpaint"):
            continue  # its masked picture is encoded with the generators in another order
        single = run(
            pipe,
            prompt=prompt,
            **inputs,
            generator=torch.Generator().manual_seed(i),
            conditions={"it": [designs[design]]},
        )
        np.testing.assert_allclose(batch[i], single[0], atol=1e-4)
    assert np.isfinite(batch).all()


# -- beside other features of diffusers --------------------------------------------------------------------


def test_lora_acts_together_in_either_order() -> None:
    conditions = {"it": paired_conditions()}
    one, other = SD.attached(), SD.make(SD.conditioned)
    plain = run(one, conditions=conditions)
    add_lora(one)
    add_lora(other)
    other.attach(it=SD.attached().adapters["it"])
    both = run(one, conditions=conditions)
    assert np.abs(both - plain).max() > 1e-4
    np.testing.assert_allclose(run(other, conditions=conditions), both, atol=1e-6)
    stock = SD.make(SD.stock)
    add_lora(stock)
    assert np.array_equal(run(one), run(stock))


def test_lora_scale_fusing_and_unloading() -> None:
    conditions = {"it": paired_conditions()}
    pipe = SD.attached()
    plain = run(pipe, conditions=conditions)
    add_lora(pipe)
    both = run(pipe, conditions=conditions)
    assert np.array_equal(run(pipe, conditions=conditions, cross_attention_kwargs={"scale": 1.0}), both)
    np.testing.assert_allclose(
        run(pipe, conditions=conditions, cross_attention_kwargs={"scale": 0.0}), plain, atol=1e-6
    )
    pipe.unet.fuse_lora()
    np.testing.assert_allclose(run(pipe, conditions=conditions), both, atol=1e-4)
    pipe.unet.unfuse_lora()
    np.testing.assert_allclose(run(pipe, conditions=conditions), both, atol=1e-4)
    pipe.unet.unload_lora()
    np.testing.assert_allclose(run(pipe, conditions=conditions), plain, atol=1e-4)  # unfusing leaves rounding behind


@pytest.mark.parametrize("order", ["attach first", "offload first"])
def test_offloading_through_the_hooks_of_accelerate(order: str) -> None:
    """Of whole models; sequential offloading cannot run on a CPU, in stock pipelines neither."""
    expected = run(SD.attached(), conditions={"it": paired_conditions()})
    pipe = SD.attached() if order == "attach first" else SD.make(SD.conditioned)
    pipe.enable_model_cpu_offload(device="cpu")
    if order == "offload first":
        pipe.attach(it=SD.attached().adapters["it"])
    for _ in range(2):
        assert np.array_equal(run(pipe, conditions={"it": paired_conditions()}), expected)


def test_user_callbacks_are_chained() -> None:
    pipe = SD.attached()
    steps: list[int] = []

    def callback(_: Any, step: int, __: Any, values: dict[str, Any]) -> dict[str, Any]:
        steps.append(step)
        return {"latents": values["latents"] * 0.5}

    conditions = {"it": paired_conditions(start=0.5)}
    plain = run(pipe, conditions=conditions)
    halved = run(pipe, conditions=conditions, callback_on_step_end=callback)
    assert steps == [0, 1] and np.abs(halved - plain).max() > 1e-3
    cut = SDCFGCutoffCallback(cutoff_step_ratio=0.5)
    cut_off = run(pipe, conditions=conditions, callback_on_step_end=cut, num_inference_steps=4)
    assert np.abs(cut_off - run(pipe, conditions=conditions, num_inference_steps=4)).max() > 1e-4


def test_guidance_cut_off_keeps_the_right_half() -> None:
    """From the cut on, the image is denoised by the conditional half alone: as with that half's rows by hand."""
    pipe = SD.attached()
    cut = SDCFGCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=0)
    seen: list[int] = []
    pipe.unet.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    run(pipe, conditions={"it": paired_conditions(0)}, callback_on_step_end=cut, num_inference_steps=3)
    assert seen == [2, 1, 1]


def test_prompt_embeds() -> None:
    pipe = SD.attached()
    conditions = {"it": paired_conditions()}
    embeds, negative = pipe.encode_prompt("a person", "cpu", 1, True)
    given = run(pipe, prompt=None, prompt_embeds=embeds, negative_prompt_embeds=negative, conditions=conditions)
    assert np.array_equal(given, run(pipe, conditions=conditions))


@pytest.fixture
def restored_backend() -> Iterator[None]:
    """`set_attention_backend` also sets a backend for the whole process, which `reset` leaves there."""
    yield
    _AttentionBackendRegistry.set_active_backend(AttentionBackendName.NATIVE)


@pytest.mark.usefixtures("restored_backend")
@pytest.mark.parametrize("order", ["before", "after"])
def test_the_users_attention_backend_is_used(order: str) -> None:
    expected = run(SD.attached(), conditions={"it": paired_conditions()})
    pipe = SD.make(SD.conditioned)
    if order == "before":
        pipe.unet.set_attention_backend("_native_math")
    pipe.attach(it=paired_adapter(pipe.unet))
    if order == "after":
        pipe.unet.set_attention_backend("_native_math")
        backends = {p._attention_backend for p in pipe.unet.attn_processors.values()}
        assert {str(b) for b in backends} == {str(AttentionBackendName._NATIVE_MATH)}
    seen = set()
    original = _AttentionBackendRegistry._backends[AttentionBackendName._NATIVE_MATH]

    def spy(*args: Any, **kwargs: Any) -> Any:
        seen.add("math")
        return original(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(_AttentionBackendRegistry._backends, AttentionBackendName._NATIVE_MATH, spy)
        result = run(pipe, conditions={"it": paired_conditions()})
    assert seen == {"math"}
    np.testing.assert_allclose(result, expected, atol=1e-4)


def test_freeu_and_images_of_another_size() -> None:
    pipe, stock = SD.attached(), SD.make(SD.stock)
    for one in (pipe, stock):
        one.enable_freeu(0.9, 0.2, 1.2, 1.4)
    assert np.array_equal(run(pipe, height=72, width=40), run(stock, height=72, width=40))
    changed = run(pipe, height=72, width=40, conditions={"it": paired_conditions(region=(0, 0, 0.5, 1))})
    assert changed.shape == (1, 4, 9, 5)
    image = VARIANTS[2]
    mine = run(
        image.attached(), image=picture(size=(72, 40)), conditions={"it": paired_conditions(region=(0, 0, 1, 0.5))}
    )
    assert mine.shape == (1, 4, 9, 5)


# -- layers of the real backbones --------------------------------------------------------------------------

SD15: dict[str, Any] = dict(
    sample_size=64,
    block_out_channels=(320, 640, 1280, 1280),
    cross_attention_dim=768,
    attention_head_dim=8,
    down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
)
SDXL: dict[str, Any] = dict(
    sample_size=128,
    block_out_channels=(320, 640, 1280),
    cross_attention_dim=2048,
    attention_head_dim=[5, 10, 20],
    transformer_layers_per_block=[1, 2, 10],
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    use_linear_projection=True,
    addition_embed_type="text_time",
    addition_time_embed_dim=256,
    projection_class_embeddings_input_dim=2816,
)


@pytest.mark.parametrize(
    ("config", "widths"),
    [(SD15, {320: 5, 640: 5, 1280: 6}), (SDXL, {640: 10, 1280: 60})],
    ids=["sd15", "sdxl"],
)
def test_layers_of_full_size_backbones(config: dict[str, Any], widths: dict[int, int]) -> None:
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(**config)
        layers = select_layers(unet, "all")
        adapter = paired_adapter(unet, token_dim=64, layers="all")
    assert {w: list(layers.values()).count(w) for w in set(layers.values())} == widths
    assert {n: p.weight.shape for n, p in adapter.to_key.items()} == {
        n.replace(".", "-"): (w, 64) for n, w in layers.items()
    }
    presets = {name: len(select_layers(unet, name)) for name in ("encoder", "middle", "decoder", "self")}
    assert presets["encoder"] + presets["middle"] + presets["decoder"] == presets["self"] == len(layers)
    assert (
        presets
        == {
            16: {"encoder": 6, "middle": 1, "decoder": 9, "self": 16},
            70: {"encoder": 24, "middle": 10, "decoder": 36, "self": 70},
        }[len(layers)]
    )


def test_select_layers() -> None:
    unet = SD.make(StableDiffusionPipeline).unet
    every = list(select_layers(unet, "all"))
    assert list(select_layers(unet, r"up_blocks\.1\..*attn2")) == [n for n in every if n.startswith("up_blocks.1.")]
    assert list(select_layers(unet, every[:2][::-1])) == every[:2][::-1]
    with pytest.raises(ValueError, match=r"layers: got 'nothing', which matches none of 8 attention layers; pass one"):
        select_layers(unet, "nothing")
    with pytest.raises(ValueError, match=r"layers: got 'mid', expected names like 'down_blocks"):
        select_layers(unet, [every[0], "mid"])
    with pytest.raises(ValueError, match="layers: got 'an empty list'"):
        select_layers(unet, [])


@pytest.mark.parametrize("attached", [False, True])
def test_a_saved_folder_opens_as_the_stock_pipeline(tmp_path: Path, attached: bool) -> None:
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    if attached:
        pipe.attach(it=paired_adapter(pipe.unet))
    pipe.save_pretrained(tmp_path)
    stock = StableDiffusionPipeline.from_pretrained(tmp_path, safety_checker=None)
    assert type(stock) is StableDiffusionPipeline
    assert np.array_equal(run(stock), run(tiny_pipe(StableDiffusionPipeline)))
    assert {"adapters", "encoders"}.isdisjoint(stock.components)
    opened = ConditionedStableDiffusionPipeline.from_pretrained(tmp_path)
    assert (opened.adapters is not None) == attached
