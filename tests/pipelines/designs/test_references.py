"""Designs with reference images that an editing model reads by itself, and their strengths."""

import json
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from remedies import check_call
from tiny import tiny_pipe
from tiny_transformers import flux2_klein, tiny_transformer_pipe

from weftwork.attention_processors import (
    InContextAdapter,
    InContextReference,
    Reference,
    ReferenceOnly,
    ReferenceOnlyAdapter,
)
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline
from weftwork.pipelines.core.opening import conditioned_class, open_conditioned
from weftwork.pipelines.designs.arguments import call_arguments
from weftwork.pipelines.designs.design import Design, condition_class
from weftwork.pipelines.designs.identity import identity
from weftwork.pipelines.designs.reader import read_design
from weftwork.pipelines.designs.run import attach_all, draw
from weftwork.scripts.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny FLUX.2 with two images."""
    folder = tmp_path_factory.mktemp("references")
    tiny_transformer_pipe(flux2_klein).save_pretrained(folder / "model")
    for index in range(2):
        Image.effect_noise((64, 64), 60 + 60 * index).save(folder / f"{index}.png")
    return folder


def generated(folder: Path, *strengths: dict[str, Any], images: tuple[str, ...] = ("0.png", "1.png")) -> np.ndarray:
    size = {"height": 32, "width": 32, "num_inference_steps": 2, "seed": 0}
    record = {"prompt": "a", **size, "images": images, "conditions": {"in_context": list(strengths)}}
    (folder / "design.json").write_text(json.dumps(record))
    model = ["--model", str(folder / "model"), "--output", str(folder / "out.png")]
    assert main(["generate", str(folder / "design.json"), *model]) == 0
    with Image.open(folder / "out.png") as image:
        return np.asarray(image, np.int16)


def test_strengths_of_images_in_a_design_count(folder: Path) -> None:
    whole, weak = generated(folder), generated(folder, {"index": 0, "weight": 0.2})
    assert whole.shape == (32, 32, 3) and np.abs(whole - weak).max() > 0
    assert np.array_equal(generated(folder, {"index": 1, "weight": 1.0}), whole)
    other = generated(folder, {"index": 1, "weight": 0.2})
    assert np.abs(other - weak).max() > 0


def test_images_need_no_conditions(folder: Path) -> None:
    both, one = generated(folder), generated(folder, images=("0.png",))
    assert np.abs(both - one).max() > 0 and np.abs(one - generated(folder, images=())).max() > 0


def test_images_count_in_the_identity_of_a_result(folder: Path) -> None:
    generated(folder)
    before = identity(read_design(folder / "design.json"), folder / "model", {})
    generated(folder, images=("1.png", "0.png"))
    after = identity(read_design(folder / "design.json"), folder / "model", {})
    assert [name for name in after if after[name] != before[name]] == ["images"]


def test_a_reference_that_is_not_there_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AssertionError):
        generated(folder, {"index": 2, "weight": 0.5})
    assert "index: got 2" in capsys.readouterr().err


def test_images_are_read_by_any_model_as_conditions(folder: Path) -> None:
    """Also in many designs, where one adapter takes the place of the other."""
    image = {"image": "0.png"}
    whole, read = generated(folder), generated(folder, image)
    assert np.abs(whole - read).max() > 0 and np.array_equal(generated(folder, {**image, "weight": 0.0}), whole)
    flux, pipe = open_conditioned(folder / "model"), tiny_pipe(ConditionedStableDiffusionPipeline)
    for given in (ReferenceOnly(Image.effect_noise((8, 8), 90)), InContextReference(0)):
        kind = ReferenceOnlyAdapter if isinstance(given, ReferenceOnly) else InContextAdapter
        attach_all(flux, "model", {}, {"in_context": [given]})
        assert type(flux.adapters["in_context"]) is kind
    attach_all(pipe, "model", {}, {"in_context": [ReferenceOnly(weight=0)]})
    words = "got ReferenceOnly beside InContextReference, expected one kind; leave the others out"
    both = [ReferenceOnly(weight=0), InContextReference(0)]
    check_call(lambda some: [attach_all(pipe, "model", {}, {"in_context": some})], both, words, both[:1])


def test_the_name_of_an_adapter_tells_kinds_of_images_apart() -> None:
    record = {"image": "a.png"}
    kinds = {name: condition_class(record, name) for name in ("in_context", "reference", "mine")}
    assert kinds == {"in_context": ReferenceOnly, "reference": Reference, "mine": Reference}


def test_models_that_read_no_images_refuse_them(folder: Path) -> None:
    generated(folder)
    design = replace(read_design(folder / "design.json"), conditions={})
    words = "images: got 2, but ConditionedStableDiffusionPipeline reads no .*; use a model of FLUX.1 Kontext, FLUX.2"
    wrong, right = tiny_pipe(ConditionedStableDiffusionPipeline), open_conditioned(folder / "model")
    check_call(lambda pipe: draw(pipe, design), wrong, words, right)


def test_remedies_of_designs_for_other_models() -> None:
    design = Design("a", seed=0, num_inference_steps=1, height=32, width=32)
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    words = "model: got WithoutImages, which makes no images, expected one that does; change it"
    check_call(
        lambda one: draw(one, design), WithoutImages(**pipe.components, requires_safety_checker=False), words, pipe
    )
    klein = tiny_transformer_pipe(flux2_klein)
    words = "negative_prompt: got one, but Flux2KleinPipeline takes none; leave it out"
    check_call(lambda one: call_arguments(klein, one), replace(design, negative_prompt="b"), words, design)


class WithoutImages(ConditionedStableDiffusionPipeline):
    """A pipeline whose output has no images."""

    @wraps(ConditionedStableDiffusionPipeline.__call__)
    def __call__(self, *_: Any, **__: Any) -> Any:
        return object()


@pytest.mark.parametrize("family", ["flux", "flux-distilled", "sd3", "qwen-image", "z-image"])
def test_designs_are_drawn_by_transformers(family: str) -> None:
    stock = tiny_transformer_pipe(family)
    pipe = conditioned_class(type(stock))(**stock.components)
    pipe.set_progress_bar_config(disable=True)
    design = Design("a", seed=0, num_inference_steps=2, height=32, width=32)
    plain, guided = (np.asarray(draw(pipe, replace(design, guidance_scale=scale))[0], int) for scale in (1.0, 5.0))
    assert plain.shape == (32, 32, 3) and np.abs(plain - guided).max() > 0
