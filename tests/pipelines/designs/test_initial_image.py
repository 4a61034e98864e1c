"""Designs that begin with an image: strength, masks, and diffusers' own pipelines as the measure."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
)
from PIL import Image
from remedies import check_call
from tiny import paired_adapter, paired_conditions, tiny_pipe, tiny_unet
from tiny_transformers import flux2_klein, tiny_transformer_pipe
from variants import half_mask, picture

from weftwork.datasets.readers.inline_images import from_text
from weftwork.pipelines import ConditionedStableDiffusionPipeline
from weftwork.pipelines.core.opening import conditioned_class
from weftwork.pipelines.designs.design import Design, Variation
from weftwork.pipelines.designs.identity import identity
from weftwork.pipelines.designs.reader import read_design
from weftwork.pipelines.designs.run import draw
from weftwork.scripts.cli import main

PLAIN = Design("a b", seed=5, num_inference_steps=10, height=64, width=64)
BEGUN = replace(PLAIN, image=picture())
MASKED = replace(BEGUN, mask_image=half_mask())
WHITE = np.asarray(half_mask()) > 0


@pytest.fixture(scope="module")
def pipe() -> ConditionedStableDiffusionPipeline:
    made = tiny_pipe(ConditionedStableDiffusionPipeline)
    made.attach(paired=paired_adapter(made.unet))
    return made


def drawn(pipe: Any, design: Design, count: int = 1) -> np.ndarray[Any, Any]:
    images = np.asarray([np.asarray(one, int) for one in draw(pipe, design, count)])
    return images if count > 1 else images[0]


def far(one: Any, other: Any) -> float:
    return float(np.abs(one - other).mean())


def test_more_strength_leaves_less_of_the_image(pipe: Any) -> None:
    apart = []
    for strength in (0.1, 0.5, 0.9, 1):
        begun = [replace(BEGUN, image=picture(seed), strength=strength) for seed in (0, 1)]
        apart.append(far(*(drawn(pipe, one) for one in begun)))
    assert apart == sorted(apart, reverse=True) and len(set(apart)) == 4 and apart[-1] == 0
    assert np.array_equal(drawn(pipe, replace(BEGUN, strength=1)), drawn(pipe, PLAIN))
    assert np.array_equal(drawn(pipe, BEGUN), drawn(pipe, replace(BEGUN, strength=0.8)))
    assert BEGUN.height == BEGUN.width == 64


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_pixels_outside_of_the_mask_stay(pipe: Any, strength: float) -> None:
    design = replace(MASKED, strength=strength)
    changed = drawn(pipe, design) != np.asarray(picture())
    assert not changed[~WHITE].any() and changed[WHITE].mean() > 0.9
    other = replace(design, conditions={"paired": paired_conditions()})
    moved = drawn(pipe, other) != drawn(pipe, design)
    assert not moved[~WHITE].any() and moved[WHITE].any()


@pytest.mark.parametrize("design", [BEGUN, MASKED], ids=["image", "mask"])
def test_pixels_are_those_of_the_pipelines_of_diffusers(pipe: Any, design: Design) -> None:
    masked = design is MASKED
    kind = StableDiffusionInpaintPipeline if masked else StableDiffusionImg2ImgPipeline
    stock = kind.from_pipe(tiny_pipe(ConditionedStableDiffusionPipeline), requires_safety_checker=False)
    more: dict[str, Any] = {"mask_image": half_mask(), "height": 64, "width": 64} if masked else {}
    settings = {"num_inference_steps": 10, "guidance_scale": 3.0, "strength": 0.8, "output_type": "np"}
    made = stock("a b", image=picture(), generator=torch.Generator().manual_seed(5), **settings, **more).images[0]
    inside = WHITE if masked else np.ones_like(WHITE)
    assert np.array_equal(drawn(pipe, design)[inside], (255 * made).round().astype(int)[inside])


@pytest.mark.parametrize("sampler", [None, "dpm++"])
@pytest.mark.parametrize("design", [BEGUN, MASKED], ids=["image", "mask"])
def test_images_of_one_run_are_those_of_single_ones(pipe: Any, design: Design, sampler: str | None) -> None:
    several = drawn(pipe, replace(design, sampler=sampler), 2)
    for index, one in enumerate(several):
        assert np.abs(one - drawn(pipe, replace(design, sampler=sampler, seed=5 + index))).max() <= 1


@pytest.mark.parametrize("strength", [0.5, 1.0])
@pytest.mark.parametrize("design", [BEGUN, MASKED], ids=["image", "mask"])
def test_variations_lie_between_the_images_of_two_seeds(pipe: Any, design: Design, strength: float) -> None:
    design = replace(design, strength=strength)
    one, other = (drawn(pipe, replace(design, seed=seed)) for seed in (5, 9))
    same, near, all_of_it = (drawn(pipe, replace(design, variations=[Variation(9, mix)])) for mix in (0, 0.1, 1))
    assert np.array_equal(same, one) and np.array_equal(all_of_it, other)
    assert 0 < far(near, one) < far(other, one)


def test_latents_may_have_other_channels_than_diffusers_inpaints() -> None:
    parts = tiny_pipe(ConditionedStableDiffusionPipeline).components
    vae: Any = AutoencoderKL.from_config(parts["vae"].config, latent_channels=12)
    parts |= {"vae": vae.eval(), "unet": tiny_unet(in_channels=12, out_channels=12)}
    pipe: Any = ConditionedStableDiffusionPipeline(**parts, requires_safety_checker=False)
    made = drawn(pipe, MASKED)
    assert np.array_equal(made[~WHITE], np.asarray(picture(), int)[~WHITE]) and pipe.unet.config.in_channels == 12


@pytest.mark.parametrize("family", ["flux", "qwen-image"])
def test_transformers_begin_with_images(family: str) -> None:
    stock = tiny_transformer_pipe(family)
    pipe = conditioned_class(type(stock))(**stock.components)
    pipe.set_progress_bar_config(disable=True)
    image = np.asarray(picture(), int)
    few, many, part = (drawn(pipe, one) for one in (replace(BEGUN, strength=0.1), BEGUN, MASKED))
    assert few.shape == image.shape and far(few, many) > 0
    assert np.array_equal(part[~WHITE], image[~WHITE]) and far(part, image) > 0
    assert np.array_equal(drawn(pipe, replace(BEGUN, seed=9, variations=[Variation(5, 1)])), many)


def test_models_without_such_pipelines_refuse_the_image() -> None:
    stock = tiny_transformer_pipe(flux2_klein)
    klein = conditioned_class(type(stock))(**stock.components)
    klein.set_progress_bar_config(disable=True)
    words = "image: got one, but diffusers has no image-to-image for Flux2KleinPipeline; leave it out"
    check_call(lambda one: draw(klein, one), replace(BEGUN, num_inference_steps=2), words, PLAIN)


def test_an_image_of_such_a_design_makes_itself_again(tmp_path: Path) -> None:
    tiny_pipe(ConditionedStableDiffusionPipeline).save_pretrained(tmp_path / "model")
    picture().save(tmp_path / "image.png")
    half_mask().save(tmp_path / "mask.png")
    record = {"prompt": "a", "seed": 1, "num_inference_steps": 4, "image": "image.png", "mask_image": "mask.png"}
    design = tmp_path / "design.json"
    design.write_text(json.dumps(record))

    def generated(name: str, *options: str) -> Image.Image:
        model = ["--model", str(tmp_path / "model"), "--output", str(tmp_path / name)]
        assert main(["generate", str(design), *model, *options]) == 0
        return Image.open(tmp_path / name)

    made = generated("a.png", "--strength", "0.5")
    stored = json.loads(made.info["weftwork"])["design"]
    assert (stored["strength"], stored["height"]) == (0.5, 64)
    assert np.array_equal(np.asarray(from_text(stored["mask_image"]).convert("L")), np.asarray(half_mask()))
    before = identity(read_design(design), tmp_path / "model", {})
    design.write_text(json.dumps(stored))
    assert np.array_equal(np.asarray(made), np.asarray(generated("b.png")))
    half_mask().rotate(180).save(tmp_path / "mask.png")
    design.write_text(json.dumps({**stored, "mask_image": "mask.png"}))
    after = identity(read_design(design), tmp_path / "model", {})
    assert [name for name in after if after[name] != before[name]] == ["mask_image"]
