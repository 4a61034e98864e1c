"""Conditioned pipelines beside stock ones: files, components, copies and what is refused."""

import logging
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import AutoPipelineForImage2Image, ControlNetModel, DiffusionPipeline, StableDiffusionImg2ImgPipeline
from peft import LoraConfig
from tiny import drawn_sketch, paired_adapter, paired_conditions, raw_adapter, raw_conditions, tiny_pipe, tiny_unet
from variants import SD, VARIANTS, Variant, add_lora, controlnet_parts, half_mask, picture, run, xl_parts

from weftwork.attention_processors import SketchTextPair
from weftwork.attention_processors.core.adapter_files import state_sha256
from weftwork.pipelines import ConditionedPipelineMixin, ConditionedStableDiffusionPipeline

CONDITIONS = {"it": paired_conditions()}


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda one: one.name)
@pytest.mark.parametrize("attached", [False, True])
def test_a_saved_folder_is_one_of_the_stock_pipeline(variant: Variant, attached: bool, tmp_path: Path) -> None:
    pipe = variant.attached() if attached else variant.make(variant.conditioned)
    pipe.save_pretrained(tmp_path)
    assert type(DiffusionPipeline.from_pretrained(tmp_path, safety_checker=None)) is variant.stock


def test_other_tasks_open_a_saved_folder(tmp_path: Path) -> None:
    SD.make(SD.conditioned).save_pretrained(tmp_path)
    opened = AutoPipelineForImage2Image.from_pretrained(tmp_path, safety_checker=None)
    assert type(opened) is StableDiffusionImg2ImgPipeline


@pytest.mark.parametrize("attached", [False, True])
def test_components_make_a_stock_pipeline(attached: bool) -> None:
    pipe = SD.attached() if attached else SD.make(SD.conditioned)
    other = StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    assert other.unet is pipe.unet
    expected = StableDiffusionImg2ImgPipeline(**SD.make(SD.stock).components, requires_safety_checker=False)
    assert np.array_equal(run(other, image=picture()), run(expected, image=picture()))


def test_components_of_attached_adapters_are_moved() -> None:
    pipe = SD.attached()
    assert pipe.adapters in pipe.components.values() and "adapters" in pipe.components


@pytest.mark.parametrize("stock", [False, True])
def test_variants_of_files(stock: bool, tmp_path: Path) -> None:
    pipe = SD.attached()
    pipe.save_pretrained(tmp_path / "pipe", variant="fp16")
    kind = SD.stock if stock else ConditionedStableDiffusionPipeline
    opened: Any = kind.from_pretrained(tmp_path / "pipe", variant="fp16", safety_checker=None)
    opened.set_progress_bar_config(disable=True)
    conditions = {} if stock else {"conditions": CONDITIONS}
    np.testing.assert_allclose(run(opened, **conditions), run(pipe, **conditions), atol=1e-5)


def test_variants_of_an_adapter(tmp_path: Path) -> None:
    adapter = raw_adapter(tiny_unet())
    adapter.save_pretrained(tmp_path, variant="fp16")
    for options in ({}, {"variant": "fp16"}):
        loaded = type(adapter).from_pretrained(tmp_path, **options).state_dict()
        assert all(torch.equal(tensor, loaded[name]) for name, tensor in adapter.state_dict().items())


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_adapter_of_two_pipelines_keeps_the_precision_of_each(when: str) -> None:
    first, second = SD.make(SD.conditioned), SD.make(SD.conditioned)
    adapter = raw_adapter(first.unet)
    first.attach(it=adapter)
    expected = run(first, conditions={"it": raw_conditions()})
    if when == "before":
        second.to(torch.bfloat16)
    second.attach(it=adapter)
    second.to(torch.bfloat16)
    assert first.adapters["it"] is adapter and adapter.dtype == torch.float32
    assert second.adapters["it"].dtype == torch.bfloat16
    assert np.array_equal(run(first, conditions={"it": raw_conditions()}), expected)
    assert np.isfinite(run(second, conditions={"it": raw_conditions()})).all()
    first.detach()
    second.detach()
    second.attach(it=adapter)
    assert second.adapters["it"] is adapter


def test_offloading_a_pipeline_leaves_the_adapters_of_another() -> None:
    first, second = SD.make(SD.conditioned), SD.make(SD.conditioned)
    adapter = raw_adapter(first.unet)
    first.attach(it=adapter)
    second.attach(it=adapter)
    expected = run(first, conditions={"it": raw_conditions()})
    second.enable_sequential_cpu_offload(device="cpu")
    assert {one.device.type for one in adapter.parameters()} == {"cpu"}
    assert np.array_equal(run(first, conditions={"it": raw_conditions()}), expected)


def test_another_denoiser_is_named() -> None:
    pipe = SD.attached()
    pipe.unet = tiny_unet()
    with pytest.raises(RuntimeError, match=r"were attached to another denoiser \(pipe.unet was replaced since\)"):
        run(pipe, conditions=CONDITIONS)


def test_a_lora_is_no_other_backbone(caplog: pytest.LogCaptureFixture) -> None:
    pipe = SD.make(SD.conditioned)
    before = state_sha256(pipe.unet)
    adapter = paired_adapter(pipe.unet)
    adapter.register_to_config(training={"base_sha256": before})
    add_lora(pipe)
    assert state_sha256(pipe.unet) == before
    pipe.attach(it=adapter)
    assert "was trained on weights" not in caplog.text


def test_a_crop_beside_conditions_is_refused() -> None:
    variant = next(one for one in VARIANTS if one.name == "inpaint")
    pipe = variant.attached()
    with pytest.raises(ValueError, match="padding_mask_crop: got it beside conditions, which would act on the crop"):
        run(pipe, **variant.inputs(), conditions=CONDITIONS, padding_mask_crop=8)


def test_schedules_that_never_act_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    pipe = SD.attached()
    for start, never in ((0.7, False), (0.8, True)):
        with caplog.at_level(logging.WARNING):
            run(pipe, conditions={"it": paired_conditions(start=start)}, num_inference_steps=4)
        assert ("schedule: start 0.8 and end 1 act at none of 4 steps" in caplog.text) == never


IMAGES = {
    "image": picture,
    "list of images": lambda: [picture()],
    "array": lambda: np.asarray(picture(), np.float32)[None] / 255,
    "tensor": lambda: torch.rand(1, 3, 64, 64),
    "channels, height, width": lambda: torch.rand(3, 64, 64),
    "list of tensors": lambda: [torch.rand(3, 64, 64)],
    "latents": lambda: torch.rand(1, 4, 8, 8),
    "wider": lambda: picture(size=(64, 96)),
}


@pytest.mark.parametrize("form", IMAGES)
def test_images_of_any_form(form: str) -> None:
    """Conditions take the size that is denoised, whatever the stock pipeline makes of its input."""
    variant = next(one for one in VARIANTS if one.name == "img2img")
    pipe, image = variant.attached(), IMAGES[form]()
    off, on = ({"it": paired_conditions(weight=weight, region=(0, 0, 0.5, 1))} for weight in (0.0, 1.0))
    plain = run(pipe, image=image, strength=0.99)
    assert np.array_equal(run(pipe, image=image, strength=0.99, conditions=off), plain)
    assert np.abs(run(pipe, image=image, strength=0.99, conditions=on) - plain).max() > 1e-4


@pytest.mark.parametrize("size", [{"height": 96}, {"height": 130}, {"height": 128, "width": 64}])
def test_sizes_are_those_of_the_stock_pipeline(size: dict[str, int]) -> None:
    variant = next(one for one in VARIANTS if one.name == "controlnet")
    pipe, results = variant.attached(), []
    for conditions in ({}, {"conditions": {"it": paired_conditions(weight=0.0, region=(0, 0, 0.5, 1))}}):
        try:
            results.append(run(pipe, **variant.inputs(), **size, **conditions))
        except ValueError as error:
            results.append(np.frombuffer(str(error).encode(), np.uint8))
    assert np.array_equal(*results)


def test_several_controlnets_and_prompts() -> None:
    from diffusers import MultiControlNetModel

    variant = next(one for one in VARIANTS if one.name == "controlnet")
    pipe = variant.attached()
    pipe.controlnet = MultiControlNetModel([pipe.controlnet, pipe.controlnet])
    images = {"image": [picture(), picture(1)], "prompt": ["a", "b"], "controlnet_conditioning_scale": [0.5, 0.5]}
    off = {"it": [paired_conditions(weight=0.0), None]}
    assert np.array_equal(run(pipe, **images, conditions=off), run(pipe, **images))


def test_a_condition_may_stand_for_its_list() -> None:
    pipe, pair = SD.attached(), paired_conditions()[0]
    one, other = (run(pipe, prompt=["a", "b"], conditions={"it": [row, None]}) for row in (pair, [pair]))
    assert np.array_equal(one, other)


def test_no_prompt_is_refused_as_by_the_stock_pipeline() -> None:
    with pytest.raises(ValueError, match="Provide either `prompt` or `prompt_embeds`"):
        run(SD.attached(), prompt=None, conditions=CONDITIONS)


# -- texts of pairs ----------------------------------------------------------------------------------------


def test_tokens_of_textual_inversion_have_all_their_vectors() -> None:
    pipe = SD.attached()
    pipe.tokenizer.add_tokens(["<x>", "<x>_1"])
    pipe.text_encoder.resize_token_embeddings(len(pipe.tokenizer))
    noise = torch.Generator().manual_seed(0)
    table = pipe.text_encoder.get_input_embeddings().weight.data
    table[-2:] = torch.randn(2, table.shape[1], generator=noise)
    one = run(pipe, conditions={"it": [SketchTextPair(text="<x>")]})
    table[-1] += 1.0
    assert not np.array_equal(run(pipe, conditions={"it": [SketchTextPair(text="<x>")]}), one)


def test_a_lora_of_the_text_encoder_is_scaled_for_pairs_too() -> None:
    pipe, embeds = SD.attached(), torch.randn(1, 77, 32, generator=torch.Generator().manual_seed(0))
    options: dict[str, Any] = {"prompt": None, "prompt_embeds": embeds, "negative_prompt_embeds": embeds * 0}
    conditions = {"it": [SketchTextPair(text="a")]}
    plain = run(pipe, **options, conditions=conditions)
    lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    pipe.text_encoder.add_adapter(lora, "other")
    full = run(pipe, **options, conditions=conditions)
    off = run(pipe, **options, conditions=conditions, cross_attention_kwargs={"scale": 0.0})
    assert np.abs(full - plain).max() > 1e-5
    np.testing.assert_allclose(off, plain, atol=1e-6)
    np.testing.assert_allclose(run(pipe, **options, conditions=conditions), full, atol=1e-6)


def test_sketches_need_no_text_encoder() -> None:
    pipe, embeds = SD.attached(), torch.randn(1, 77, 32, generator=torch.Generator().manual_seed(0))
    options: dict[str, Any] = {"prompt": None, "prompt_embeds": embeds, "negative_prompt_embeds": embeds * 0}
    sketch = {"it": [SketchTextPair(drawn_sketch())]}
    expected = run(pipe, **options, conditions=sketch)
    pipe.text_encoder = pipe.tokenizer = None
    np.testing.assert_allclose(run(pipe, **options, conditions=sketch), expected, atol=1e-6)
    with pytest.raises(ValueError, match="text: got pairs with texts, but the pipeline has no text encoder"):
        run(pipe, **options, conditions=CONDITIONS)


# -- other pipelines of U-Nets -----------------------------------------------------------------------------


def test_perturbed_attention_is_refused_before_it_begins() -> None:
    """Its processors would stay in the denoiser after an error."""
    cls: Any = type("Perturbed", (ConditionedPipelineMixin, diffusers.StableDiffusionPAGPipeline), {})
    pipe = tiny_pipe(cls, pag_applied_layers=["mid"])
    with pytest.raises(ValueError, match=r"pipe: got Perturbed, whose perturbed-attention guidance .* without it"):
        pipe.attach(it=paired_adapter(pipe.unet))


def xl_controlnet() -> dict[str, Any]:
    parts = xl_parts()
    net = ControlNetModel.from_unet(parts["unet"], conditioning_embedding_out_channels=(16, 16, 16, 16))
    return {**parts, "controlnet": net.eval()}


def inputs(*names: str, **more: Any) -> dict[str, Any]:
    known = {"image": picture(), "control_image": picture(1), "mask_image": half_mask()}
    return {name: known[name] for name in names} | more


PIPELINES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "XLImg2Img": (xl_parts, VARIANTS[1], inputs("image", strength=0.99)),
    "XLInpaint": (xl_parts, VARIANTS[1], inputs("image", "mask_image", height=64, width=64, strength=0.99)),
    "XLControlNet": (xl_controlnet, VARIANTS[1], inputs("image")),
    "XLControlNetImg2Img": (xl_controlnet, VARIANTS[1], inputs("image", "control_image", strength=0.99)),
    "ControlNetImg2Img": (controlnet_parts, SD, inputs("image", "control_image", strength=0.99)),
    "ControlNetInpaint": (controlnet_parts, SD, inputs("image", "mask_image", "control_image", height=64, width=64)),
}


@pytest.mark.parametrize("name", PIPELINES)
def test_any_pipeline_of_a_unet_takes_conditions(name: str) -> None:
    """By one line: `class Mine(ConditionedPipelineMixin, Stock)`."""
    parts, like, given = PIPELINES[name]
    stock = getattr(diffusers, f"StableDiffusion{name}Pipeline")
    mine: Any = type(f"Conditioned{name}", (ConditionedPipelineMixin, stock), {})
    pipe = mine(**parts(), **dict(like.extra))
    pipe.set_progress_bar_config(disable=True)
    plain = run(pipe, **given)
    pipe.attach(it=paired_adapter(pipe.unet, text_dim=like.text_dim))
    off, on = ({"it": paired_conditions(weight=weight, region="sketch")} for weight in (0.0, 1.0))
    assert np.array_equal(run(pipe, **given, conditions=off), plain)
    assert np.abs(run(pipe, **given, conditions=on) - plain).max() > 1e-3
