"""Bad input of every kind: one clear message, and nothing half-written or half-attached."""

import json
import math
import os
import pickle
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file
from tiny import drawn_sketch, paired_adapter, paired_conditions, tiny_parts, tiny_pipe, tiny_unet

from weftwork.attention_processors.core.adapter_files import WEIGHTS_NAME
from weftwork.attention_processors.paired.adapter import GlobalSketch, PairedAdapter, SketchTextPair
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline

KEY = "to_key.mid_block-attentions-0-transformer_blocks-0-attn2.weight"


# Images


def strokes(mode: str) -> Image.Image:
    """A dark ring on light ground, in a mode that people's files have."""
    image = Image.new("L", (48, 48), 255)
    ImageDraw.Draw(image).ellipse((8, 8, 40, 40), outline=0, width=3)
    if mode == "I;16":
        return Image.fromarray(np.asarray(image, np.uint16) * 257)
    if mode == "RGBA":
        clear = Image.new("RGBA", image.size, (0, 0, 0, 0))
        clear.paste((0, 0, 0, 255), mask=Image.eval(image, lambda v: 255 - v))
        return clear
    return image.convert(mode)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("1", "png"), ("L", "png"), ("P", "png"), ("I;16", "png"), ("RGBA", "png"), ("CMYK", "jpg"), ("CMYK", "tif")],
)
def test_odd_images_are_read_as_what_they_show(tmp_path: Path, mode: str, suffix: str) -> None:
    path = tmp_path / f"sketch.{suffix}"
    strokes(mode).save(path)
    sketch = SketchTextPair(path, region="sketch").sketch
    assert isinstance(sketch, Image.Image)
    difference = np.asarray(sketch, np.int16) - np.asarray(strokes("L"), np.int16)
    assert np.abs(difference).max() <= (60 if suffix == "jpg" else 2)


def huge(path: Path) -> None:
    Image.new("1", (8001, 8001), 1).save(path)


PICTURES: list[tuple[Callable[[Path], Any], str]] = [
    (lambda path: None, "got no file at"),
    (lambda path: path.mkdir(), "got no file at"),
    (lambda path: path.write_bytes(b""), "cannot be read"),
    (lambda path: path.write_text("no picture"), "cannot be read"),
    (huge, "with 8001x8001 pixels, expected at most 64000000"),
    (lambda path: Image.new("L", (1, 1)).save(path), "got one tone all over"),
    (lambda path: Image.new("RGB", (64, 64), "white").save(path), "got one tone all over"),
    (lambda path: Image.new("RGBA", (64, 64)).save(path), "got one tone all over"),
]


@pytest.mark.parametrize(("make", "message"), PICTURES)
def test_bad_images_are_named(tmp_path: Path, make: Callable[[Path], Any], message: str) -> None:
    path = tmp_path / "it.png"
    make(path)
    for condition in (SketchTextPair, GlobalSketch):
        with pytest.raises(ValueError, match=message) as caught:
            condition(sketch=path)
        assert "it.png" in str(caught.value) and "\n" not in str(caught.value)


# Conditions

INF, NAN = math.inf, math.nan
CONDITIONS: list[tuple[dict[str, Any], str]] = [
    ({}, "got neither sketch nor text"),
    ({"text": ""}, "got an empty text"),
    ({"text": " \n"}, "got an empty text"),
    ({"sketch": 3}, "sketch: got a int, expected an image"),
    ({"sketch": np.zeros((4, 4))}, "got one tone all over"),
    ({"sketch": np.full((4, 4), NAN)}, "outside \\[0, 1\\]"),
    ({"sketch": np.zeros((4, 4), np.int64)}, "got an array of int64"),
    ({"text": "a", "region": "sketch"}, 'got "sketch" for a pair without a sketch'),
    *(({"text": "a", "weight": w}, "weight: got .*, expected a finite number") for w in (-0.1, NAN, INF, "1", None)),
    *(
        ({"text": "a", "region": box}, "region: got .*expected")
        for box in (
            (0, 0, 1),
            (0, 0, 1.01, 1),
            (-0.1, 0, 1, 1),
            (0.5, 0, 0.5, 1),
            (0, 1, 1, 0),
            (0, NAN, 1, 1),
            (0, 0, INF, 1),
            ("0", 0, 1, 1),
        )
    ),
    ({"text": "a", "region": Image.new("L", (4, 4))}, "black everywhere"),
    ({"text": "a", "region": "nowhere.png"}, "got no file at 'nowhere.png'"),
    *(
        ({"text": "a", "start": start, "end": end}, "schedule: got start")
        for start, end in ((0.5, 0.4), (-0.1, 1), (0, 1.1), (NAN, 1), (0, NAN), ("0", 1), (0, None))
    ),
]


@pytest.mark.parametrize(("arguments", "message"), CONDITIONS)
def test_bad_conditions_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SketchTextPair(**arguments)


@pytest.fixture(scope="module")
def pipe() -> Any:
    made = tiny_pipe(ConditionedStableDiffusionPipeline)
    made.attach(paired=paired_adapter(made.unet))
    return made


def picture(pipe: Any, conditions: Any, prompt: Any = "a", **options: Any) -> np.ndarray:
    generator = torch.Generator().manual_seed(0)
    settings = dict(num_inference_steps=1, output_type="latent", generator=generator, conditions=conditions)
    return pipe(prompt, **{**settings, **options}).images.numpy()


def shaped(width: int, height: int) -> SketchTextPair:
    return SketchTextPair(drawn_sketch().resize((width, height)), region="sketch")


PAIR = SketchTextPair(text="a")
CALLS: list[tuple[Any, dict[str, Any], str]] = [
    ({"other": [PAIR]}, {}, "conditions: got 'other', attached are: paired"),
    ({"paired": "a"}, {}, "conditions\\['paired'\\]: got a str"),
    ({"paired": [3]}, {}, "conditions\\['paired'\\]: got a int, expected SketchTextPair"),
    ({"paired": [[PAIR], [PAIR]]}, {}, "got 2 lists for 1 prompts"),
    ({"paired": [[PAIR]]}, {"prompt": ["a", "b"]}, "got 1 lists for 2 prompts"),
    ({"paired": [SketchTextPair(text="x " * 100)]}, {}, "has 100 tokens, expected at most 75"),
    ({"paired": [GlobalSketch(drawn_sketch())]}, {}, "trained without one"),
    ({"paired": [shaped(64, 64), shaped(64, 128)]}, {}, "expected one: draw all on the same canvas"),
    ({"paired": [shaped(64, 128)]}, {}, "for an image of 1.00"),
]


@pytest.mark.parametrize(("conditions", "options", "message"), CALLS)
def test_bad_calls_are_named_and_leave_nothing(
    pipe: Any, conditions: Any, options: dict[str, Any], message: str
) -> None:
    before = picture(pipe, {"paired": paired_conditions()})
    with pytest.raises(ValueError, match=message):
        picture(pipe, conditions, **options)
    assert np.array_equal(picture(pipe, {"paired": paired_conditions()}), before)


@pytest.mark.parametrize("weight", [-1, NAN, INF, "1", None])
def test_bad_default_weights_are_named(pipe: Any, weight: Any) -> None:
    with pytest.raises(ValueError, match="set_weights, paired: got"):
        pipe.set_weights(paired=weight)
    assert pipe.adapters.weights == {"paired": 1.0}


# Adapter files


def edited(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], Any]:
    """A change of the tensors in an adapter's folder."""

    def edit(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS_NAME)
        change(tensors)
        save_file(tensors, folder / WEIGHTS_NAME)

    return edit


def cut(count: int) -> Callable[[Path], Any]:
    def edit(folder: Path) -> None:
        path = folder / WEIGHTS_NAME
        path.write_bytes(path.read_bytes()[:count])

    return edit


def configured(text: str | None = None, **changes: Any) -> Callable[[Path], Any]:
    """A change of an adapter's `config.json`."""

    def edit(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}) if text is None else text)

    return edit


def pickled(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS_NAME)
    (folder / WEIGHTS_NAME).unlink()
    torch.save(tensors, folder / "diffusion_pytorch_model.bin")


def disguised(folder: Path) -> None:
    (folder / WEIGHTS_NAME).write_bytes(pickle.dumps({"os": os.system}))


def swapped(tensors: dict[str, torch.Tensor]) -> None:
    tensors[KEY] = tensors[KEY].T[:, :-1].contiguous()


def poisoned(value: float) -> Callable[[dict[str, torch.Tensor]], Any]:
    return lambda tensors: tensors[KEY].view(-1).__setitem__(5, value)


def cast(dtype: torch.dtype) -> Callable[[dict[str, torch.Tensor]], Any]:
    return lambda tensors: tensors.__setitem__(KEY, tensors[KEY].to(dtype))


FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no weights": (lambda folder: (folder / WEIGHTS_NAME).unlink(), f"{WEIGHTS_NAME} is missing"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
    "pickled": (pickled, "loads safetensors only, `weftwork convert`"),
    "disguised": (disguised, "not a readable safetensors file"),
    "empty": (cut(0), "not a readable safetensors file"),
    "cut in the header": (cut(20), "not a readable safetensors file"),
    "cut in the tensors": (cut(9000), "not a readable safetensors file"),
    "shape": (edited(swapped), f"{KEY} has shape"),
    "missing key": (edited(lambda tensors: tensors.pop(KEY)), f"1 keys are missing \\(first: {KEY}"),
    "unexpected key": (edited(lambda t: t.update(odd=torch.ones(1))), "1 unexpected \\(first: odd\\)"),
    "integers": (edited(cast(torch.int32)), "has dtype torch.int32"),
    "float8": (edited(cast(torch.float8_e4m3fn)), "has dtype torch.float8_e4m3fn"),
    "NaN": (edited(poisoned(NAN)), f"{KEY} holds NaN or infinite"),
    "infinite": (edited(poisoned(-INF)), f"{KEY} holds NaN or infinite"),
    "config is no JSON": (configured("{"), "config.json: got a text that is not JSON"),
    "config is a list": (configured("[]"), "config.json: got a list"),
    "another class": (
        configured(_class_name="UNet2DModel"),
        "got class 'UNet2DModel', expected one of AlignedViews, ",
    ),
    "a newer format": (configured(format_version=99), "got format version 99, expected at most 1"),
    "odd option": (configured(token_dim="wide"), "config.json does not describe a PairedAdapter"),
    "unknown masking": (configured(masking="odd"), "masking: got 'odd'"),
    "no layers": (configured(layers=None), "config.json does not describe a PairedAdapter"),
    "no base": (configured(base=None), "base: got an adapter for no known model"),
    "another family": (configured(base={"family": "FluxTransformer2DModel"}), "base: got an adapter for Flux"),
}


@pytest.mark.parametrize("case", FILES)
def test_bad_adapter_files_are_named_and_attach_nothing(tmp_path: Path, case: str) -> None:
    damage, message = FILES[case]
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    before = dict(pipe.unet.attn_processors)
    paired_adapter(pipe.unet).save_pretrained(tmp_path / "it")
    damage(tmp_path / "it")
    with pytest.raises(ValueError, match=message) as caught:
        pipe.load_adapter(tmp_path / "it", "paired")
    assert case == "another family" or case == "no base" or str(tmp_path) in str(caught.value)
    assert pipe.adapters is None
    assert all(pipe.unet.attn_processors[name] is processor for name, processor in before.items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"block_out_channels": (32, 32)}, "base: got width 64 for .*, but the layer has 32"),
        ({"mid_block_type": None}, "base: the adapter has keys for 'mid_block"),
    ],
)
def test_an_adapter_for_another_base_attaches_nothing(changes: dict[str, Any], message: str) -> None:
    adapter = paired_adapter(tiny_unet())
    other = ConditionedStableDiffusionPipeline(
        **{**tiny_parts(), "unet": tiny_unet(**changes)},
        safety_checker=None,  # pyright: ignore[reportArgumentType]
        feature_extractor=None,  # pyright: ignore[reportArgumentType]
        requires_safety_checker=False,
    )
    before = dict(other.unet.attn_processors)
    with pytest.raises(ValueError, match=message):
        other.attach(paired=adapter)
    assert other.adapters is None
    assert all(other.unet.attn_processors[name] is processor for name, processor in before.items())


def test_an_adapter_for_other_text_encoders_says_so() -> None:
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    pipe.attach(paired=paired_adapter(pipe.unet, text_dim=48))
    with pytest.raises(ValueError, match=r"text: got vectors of width 32 .* trained on 48"):
        picture(pipe, {"paired": [PAIR]})


@pytest.mark.parametrize("name", ["a.b", "", "keys", "training", "two words"])
def test_bad_names_attach_nothing(name: str) -> None:
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    before = dict(pipe.unet.attn_processors)
    with pytest.raises(ValueError, match="attach: got the name"):
        pipe.attach(**{"good": paired_adapter(pipe.unet), name: paired_adapter(pipe.unet)})
    assert pipe.adapters is None
    assert all(pipe.unet.attn_processors[key] is processor for key, processor in before.items())


def test_one_bad_adapter_of_two_attaches_neither() -> None:
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    with pytest.raises(ValueError, match="'second' is a str, expected an Adapter"):
        pipe.attach(first=paired_adapter(pipe.unet), second="x")  # pyright: ignore[reportArgumentType]
    assert pipe.adapters is None


# A disk that is full


@contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """Writing more than `size` bytes to a file fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_while_saving_leaves_the_old_adapter(tmp_path: Path) -> None:
    old, new = paired_adapter(tiny_unet()), paired_adapter(tiny_unet(), token_dim=64)
    old.save_pretrained(tmp_path / "it")
    before = {path.name: path.read_bytes() for path in (tmp_path / "it").iterdir()}
    for name in ("it", "fresh"):
        with no_file_beyond(20_000), pytest.raises(OSError, match=r"File too large|cannot be written"):
            new.save_pretrained(tmp_path / name)
    assert {path.name: path.read_bytes() for path in (tmp_path / "it").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["it"]
    PairedAdapter.from_pretrained(tmp_path / "it")


def test_a_path_that_is_no_id_of_the_hub_is_refused_without_a_network() -> None:
    with pytest.raises(ValueError, match="adapter: got nothing at 'nowhere', expected a folder or OWNER/NAME; check"):
        PairedAdapter.from_pretrained("nowhere")


def test_saving_over_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "it").write_text("mine")
    with pytest.raises(ValueError, match="save_directory: got the file"):
        paired_adapter(tiny_unet()).save_pretrained(tmp_path / "it")
    assert (tmp_path / "it").read_text() == "mine"
