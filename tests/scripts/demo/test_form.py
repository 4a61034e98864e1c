"""Methods without a page of their own, those of other packages included, get a form in the demo."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import drawn_sketch, reference_adapter, tiny_pipe

from weftwork.attention_processors.core.method import Method, methods
from weftwork.attention_processors.core.records import ChoiceKind, ImageKind, NumberKind, TextKind, recorded
from weftwork.attention_processors.encoders import ImageEncoder
from weftwork.attention_processors.style.adapter import StyleAdapter
from weftwork.attention_processors.style.conditions import Style
from weftwork.datasets.readers.images import read_image
from weftwork.datasets.readers.inline_images import as_text
from weftwork.pipelines.core.mixin import (
    ConditionedStableDiffusionControlNetPipeline,
    ConditionedStableDiffusionPipeline,
)
from weftwork.pipelines.designs.design import Control, Design, condition_classes
from weftwork.pipelines.designs.run import draw
from weftwork.training.tasks.controlnet import new_controlnet

gradio = pytest.importorskip("gradio")

from weftwork.scripts.demo.command import demo  # noqa: E402
from weftwork.scripts.demo.pages import Context, open_pages  # noqa: E402
from weftwork.scripts.demo.studio import ImageStudio  # noqa: E402


@dataclass(frozen=True, eq=False)
class Mood(Style):
    """A condition of another package, with a field of every kind."""

    note: str | None = field(default=None, metadata=recorded(TextKind(), "A note."))
    tone: str = field(default="warm", metadata=recorded(ChoiceKind(("warm", "cold")), "A tone."))
    force: float = field(default=0.5, metadata=recorded(NumberKind(maximum=1), "A force."))
    photo: Image.Image | None = field(default=None, metadata=recorded(ImageKind(), "A photo."))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.note == "none":
            raise ValueError(f"note: got {self.note!r}, expected another one")


class MoodAdapter(StyleAdapter):
    condition_type = (Mood,)


@pytest.fixture
def mood(monkeypatch: pytest.MonkeyPatch) -> Iterator[ImageStudio]:
    """A studio with an adapter of a method that another package registers."""
    paths: Any = {"adapters": (f"{__name__}:MoodAdapter",), "conditions": (f"{__name__}:Mood",)}
    monkeypatch.setitem(methods(), "mood", Method("mood", "moods by name", **paths))  # pyright: ignore
    condition_classes.cache_clear()
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    config: Any = dict(layers="decoder", styles=("ink", "pastel"), style_dim=16, token_dim=32, num_tokens=2)
    pipe.attach(mood=MoodAdapter.for_denoiser(pipe.unet, **config))
    yield ImageStudio(pipe, "tiny")
    condition_classes.cache_clear()


@pytest.fixture
def form(mood: ImageStudio, no_shipped_models: None) -> Any:
    return demo(mood, open_pages(Context(mood)))


def run(blocks: Any, name: str, **given: Any) -> list[Any]:
    """Last values of a page's outputs, for values of its inputs by label."""
    function = next(one for one in blocks.fns.values() if one.api_name == name)
    assert set(given) <= {one.label for one in function.inputs}
    values = {
        name: given.get(one.label, one.value)
        for name, one in zip(function.input_parameter_names, function.inputs, strict=True)
    }
    *_, last = function.fn(gradio.Request(session_hash="me"), **values)
    return last


def test_a_method_of_another_package_has_a_form(form: Any) -> None:
    assert [one.label for one in form.blocks.values() if type(one).__name__ == "Tab"] == ["Mood"]
    function = next(one for one in form.fns.values() if one.api_name == "mood")
    kinds = {one.label: type(one).__name__ for one in function.inputs}
    assert kinds["Style"] == kinds["Note"] == kinds["Region"] == "Textbox" and kinds["Tone"] == "Dropdown"
    assert kinds["Force"] == kinds["Weight"] == "Slider" and kinds["Photo"] == "Image"
    assert "Layers" not in kinds


def test_the_form_generates_the_image_of_its_fields(form: Any, mood: ImageStudio) -> None:
    given: dict[str, Any] = {"Prompt": "a b", "Seed (optional)": 5, "Steps": 2, "Tone": "cold"}
    given |= {"Style": "ink=1, pastel=3", "Region": "0, 0, 1, 0.5", "Weight": 0.8, "Photo": drawn_sketch()}
    shown, state, seed, *_ = run(form, "mood", **given)
    assert (state, seed) == ("Done.", "5")
    condition = Mood({"ink": 1, "pastel": 3}, tone="cold", region=(0, 0, 1, 0.5), weight=0.8)
    design = Design("a b", seed=5, num_inference_steps=2, conditions={"mood": [condition]})
    assert np.array_equal(np.asarray(read_image(shown)), np.asarray(draw(mood.pipe, design)[0]))
    assert not np.array_equal(np.asarray(read_image(shown)), np.asarray(draw(mood.pipe, Design("a b", seed=5))[0]))
    alone, *_ = run(form, "mood", **{**given, "Style": "ink"})
    assert read_image(alone).tobytes() != read_image(shown).tobytes()


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"Style": ""}, "style: got none, expected at least one; fill it in"),
        ({"Style": "ink="}, "style: got 'ink=', expected name=share"),
        ({"Style": "lead"}, "style: got 'lead'"),
        ({"Region": "left"}, "region: got 'left', expected four numbers"),
        ({"Region": "0, 0, 2, 1"}, "region: got"),
        ({"Region": "0, 0, 1, 1", "Region: mask, white where it acts": drawn_sketch()}, "region: got a box and a mask"),
        ({"Note": "none"}, "note: got 'none'"),
        ({"Start": 0.9, "End": 0.1}, "start"),
    ],
)
def test_the_form_refuses_bad_values_by_field(form: Any, given: dict[str, Any], match: str) -> None:
    right = {"Prompt": "a b", "Style": "ink", "Steps": 1}
    with pytest.raises(gradio.Error, match=match):
        run(form, "mood", **{**right, **given})
    assert run(form, "mood", **right)[1] == "Done."


@pytest.mark.usefixtures("no_shipped_models")
def test_references_have_a_form(image_encoder: ImageEncoder) -> None:
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    pipe.attach(reference=reference_adapter(pipe.unet))
    pipe.set_encoders(image=image_encoder)
    studio = ImageStudio(pipe, "tiny")
    blocks = demo(studio, open_pages(Context(studio)))
    given: dict[str, Any] = {"Prompt": "a b", "Seed (optional)": 5, "Steps": 2}
    first, second = (
        run(blocks, "reference", Image=Image.new("RGB", (40, 40), color), **given) for color in ("red", "blue")
    )
    assert first[1] == "Done." and read_image(first[0]).tobytes() != read_image(second[0]).tobytes()
    with pytest.raises(gradio.Error, match="image: got none"):
        run(blocks, "reference", **given)


def test_help_imports_no_framework() -> None:
    code = (
        "import sys\nfrom weftwork.scripts.cli import main\n"
        "try:\n    main(['demo', '--help'])\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('torch', 'diffusers', 'gradio') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip().endswith("[]") and "--adapter" in out


def test_a_controlnet_has_a_form_of_its_fields(no_shipped_models: None, tmp_path: Path) -> None:
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    net = new_controlnet(pipe, 0.0)
    torch.nn.init.normal_(net.controlnet_mid_block.weight)
    net.save_pretrained(tmp_path)
    blocks = demo(studio := ImageStudio(pipe, "tiny"), open_pages(Context(studio, {"parts": ("tiny", str(tmp_path))})))
    image = drawn_sketch()
    given = {"Prompt": "a b", "Seed (optional)": 5, "Steps": 2, "Image": image, "Weight": 0.7}
    shown, state, *_ = run(blocks, "parts", **given)
    assert state == "Done."
    design = Design("a b", seed=5, num_inference_steps=2, controlnets=[Control(tmp_path, image, weight=0.7)])
    own: Any = ConditionedStableDiffusionControlNetPipeline.from_pipe(pipe, controlnet=[net])
    assert read_image(shown).tobytes() == draw(own, design)[0].tobytes()
    with Image.open(shown) as file:
        stored: Any = file
        assert json.loads(stored.text["weftwork"])["design"]["controlnets"][0]["controlnet"] == "parts"
    with pytest.raises(gradio.Error, match="image: got none, expected at least one"):
        run(blocks, "parts", **{**given, "Image": None})
    with pytest.raises(ValueError, match="controlnets: got some, which a demo does not load"):
        studio.design({"prompt": "a b", "controlnets": [{"controlnet": "parts", "image": as_text(image)}]})
