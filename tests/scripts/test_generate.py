"""`weftwork generate`: a design file to a PNG that stores its design, and one message for every error in either."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peft.utils import get_peft_model_state_dict
from PIL import Image
from tiny import drawn_sketch, paired_adapter, style_adapter, tiny_pipe
from variants import add_lora, controlnet_parts

from weftwork.attention_processors.paired.adapter import GlobalSketch, SketchTextPair
from weftwork.attention_processors.style.adapter import Style, StyleAdapter
from weftwork.datasets.readers.errors import NotFiniteError
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline
from weftwork.pipelines.designs.design import KEYS, Design
from weftwork.pipelines.designs.reader import read_design
from weftwork.scripts.cli import COMMANDS, commands, main

PAIR: dict[str, Any] = {"sketch": "jacket.png", "text": "a red jacket", "region": "sketch"}
DESIGN: dict[str, Any] = {"prompt": "a person", "seed": 3, "num_inference_steps": 2, "conditions": {"paired": [PAIR]}}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    pipe.save_pretrained(folder / "model")
    paired_adapter(pipe.unet).save_pretrained(folder / "paired")
    style_adapter(pipe.unet).save_pretrained(folder / "style")
    controlnet_parts()["controlnet"].save_pretrained(folder / "controlnet")
    layers: Any = get_peft_model_state_dict(add_lora(pipe).unet, adapter_name="other")
    pipe.save_lora_weights(folder / "lora", unet_lora_layers=layers, safe_serialization=True)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    drawn_sketch().save(tmp_path / "jacket.png")
    Image.new("L", (8, 8), 255).save(tmp_path / "blank.png")
    Image.new("L", (8, 8), 0).save(tmp_path / "black.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "jacket.png").read_bytes()[:50])
    return tmp_path


def write(folder: Path, record: Any) -> Path:
    path = folder / "design.json"
    path.write_text(record if isinstance(record, str) else json.dumps(record), encoding="utf-8")
    return path


def generate(folder: Path, models: Path, *options: str) -> int:
    model = ["--model", str(models / "model"), "--adapter", f"paired={models / 'paired'}"]
    output = ["--output", str(folder / "out" / "picture.png")]
    return main(["generate", str(folder / "design.json"), *model, *output, *options])


def read(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """Pixels and stored design of a written picture."""
    with Image.open(path) as image:
        return np.asarray(image, np.int16), json.loads(image.info["weftwork"])


def refused(code: int, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The message of a run that must have failed cleanly."""
    text = capsys.readouterr().err
    assert code == 2, text
    assert "Traceback" not in text
    assert not list((folder / "out").glob("*") if (folder / "out").exists() else ())
    (line,) = [line for line in text.splitlines() if line.startswith("weftwork: ")]
    return line


# Good designs


def test_the_picture_holds_its_design_and_seed(folder: Path, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, DESIGN)
    assert generate(folder, models) == 0
    path = folder / "out" / "picture.png"
    assert str(path) in capsys.readouterr().out
    assert [p.name for p in path.parent.iterdir()] == ["picture.png"]
    pixels, stored = read(path)
    assert pixels.shape == (64, 64, 3)
    assert stored["seed"] == 3
    assert stored["design"]["seed"] == 3
    assert stored["design"]["conditions"] == DESIGN["conditions"]


def test_a_stored_design_makes_the_same_picture_again(folder: Path, models: Path) -> None:
    write(folder, {**DESIGN, "seed": None})
    assert generate(folder, models, "--guidance_scale", "2.5", "--height", "72") == 0
    first, stored = read(folder / "out" / "picture.png")
    assert first.shape[:2] == (72, 64)
    write(folder, stored["design"])
    assert generate(folder, models) == 0
    assert np.array_equal(read(folder / "out" / "picture.png")[0], first)


def test_one_side_alone_is_heard_without_conditions_too(folder: Path, models: Path) -> None:
    write(folder, {"prompt": "a person", "num_inference_steps": 1, "width": 80})
    assert generate(folder, models) == 0
    assert read(folder / "out" / "picture.png")[0].shape[:2] == (64, 80)


def test_several_pictures_count_their_seeds_on(folder: Path, models: Path) -> None:
    write(folder, DESIGN)
    assert generate(folder, models, "--num_images", "2") == 0
    names = sorted(p.name for p in (folder / "out").iterdir())
    assert names == ["picture-0.png", "picture-1.png"]
    several = [read(folder / "out" / name) for name in names]
    assert [stored["seed"] for _, stored in several] == [3, 4]
    assert generate(folder, models, "--seed", "4") == 0
    alone, _ = read(folder / "out" / "picture.png")
    assert np.abs(several[1][0] - alone).max() <= 1


def test_maps_stand_beside_the_picture(folder: Path, models: Path) -> None:
    write(folder, {**DESIGN, "conditions": {"paired": [PAIR, {"text": "boots"}]}})
    assert generate(folder, models, "--maps") == 0
    assert sorted(p.name for p in (folder / "out").iterdir()) == ["picture-maps.png", "picture.png"]
    assert read(folder / "out" / "picture-maps.png")[0].shape == (64, 128, 3)


def test_everything_a_file_may_say(folder: Path) -> None:
    Image.new("L", (64, 64), 255).save(folder / "mask.png")
    pairs = [PAIR, {"text": "boots", "region": [0, 0.5, 1, 1], "weight": 0.5, "start": 0.1, "end": 0.9, "sketch": None}]
    record = {**DESIGN, "height": 64, "width": 128, "negative_prompt": "fog", "guidance_scale": 4}
    design = read_design(write(folder, {**record, "conditions": {"paired": [*pairs, {**PAIR, "region": "mask.png"}]}}))
    first, second, third = design.conditions["paired"]
    assert (design.height, design.width, design.negative_prompt, design.guidance_scale) == (64, 128, "fog", 4)
    assert isinstance(first.sketch, Image.Image) and first.region == "sketch"
    assert (second.region, second.weight, second.start, second.end) == ((0, 0.5, 1, 1), 0.5, 0.1, 0.9)
    assert isinstance(third.region, Image.Image)


def test_a_sketch_of_the_whole(folder: Path) -> None:
    whole = {"global_sketch": "jacket.png", "weight": 0.5, "end": 0.4}
    design = read_design(write(folder, {**DESIGN, "conditions": {"paired": [whole, PAIR]}}))
    first, second = design.conditions["paired"]
    assert isinstance(first, GlobalSketch) and isinstance(second, SketchTextPair)
    assert isinstance(first.sketch, Image.Image)
    assert (first.weight, first.end) == (0.5, 0.4)


def test_styles(folder: Path) -> None:
    styles = [{"style": "ink", "region": [0, 0, 0.5, 1]}, {"style": {"ink": 1, "neon": 3}, "layers": {"decoder": 0.5}}]
    design = read_design(write(folder, {**DESIGN, "conditions": {"style": styles}}))
    first, second = design.conditions["style"]
    assert isinstance(first, Style) and isinstance(second, Style)
    assert (first.styles, first.region) == ({"ink": 1.0}, (0, 0, 0.5, 1))
    assert (second.styles, second.layers) == ({"ink": 0.25, "neon": 0.75}, {"decoder": 0.5})


def test_only_a_prompt_is_required(folder: Path) -> None:
    design = read_design(write(folder, {"prompt": "a person"}))
    assert design.conditions == {}
    assert design.num_inference_steps == Design("x").num_inference_steps


def test_the_example_is_a_design() -> None:
    path = Path(__file__).parents[2] / "examples" / "outfit" / "outfit.json"
    assert [len(pairs) for pairs in read_design(path).conditions.values()] == [3]


def everything(models: Path, **weights: float) -> dict[str, Any]:
    """Pairs, a style, a LoRA and a ControlNet in one design."""
    lora, controlnet = ({"weight": weights.get(name, 1.0)} for name in ("lora", "controlnet"))
    style = {"style": {"ink": 1, "neon": 2}, "weight": weights.get("style", 1.0)}
    return {
        **DESIGN,
        "conditions": {"paired": [PAIR], "style": [style]},
        "loras": [{"lora": str(models / "lora"), **lora}],
        "controlnets": [{"controlnet": str(models / "controlnet"), "image": "jacket.png", "end": 0.9, **controlnet}],
    }


def drawn(folder: Path, models: Path, record: dict[str, Any], style: Path | None = None) -> np.ndarray[Any, Any]:
    """What comes of a design with this file or folder as the adapter of styles."""
    write(folder, record)
    assert generate(folder, models, "--adapter", f"style={style or models / 'style'}") == 0
    return read(folder / "out" / "picture.png")[0]


def test_pairs_style_lora_and_controlnet_from_one_file(folder: Path, models: Path) -> None:
    pictures = {
        off: drawn(folder, models, everything(models, **({off: 0.0} if off else {})))
        for off in (None, "lora", "controlnet", "style")
    }
    for off in ("lora", "controlnet", "style"):
        assert np.abs(pictures[None] - pictures[off]).max() > 2, off
    plain = everything(models, style=0.0)
    del plain["loras"], plain["controlnets"]
    everything_off = everything(models, style=0.0, lora=0.0, controlnet=0.0)
    assert np.array_equal(drawn(folder, models, everything_off), drawn(folder, models, plain))


def test_a_style_card_draws_as_its_adapter_does(folder: Path, models: Path) -> None:
    StyleAdapter.from_pretrained(models / "style").bake("ink").save(folder / "ink.safetensors")
    record = {**DESIGN, "conditions": {"style": [{"style": "ink"}]}}
    by_adapter, by_card = (drawn(folder, models, record, style) for style in (None, folder / "ink.safetensors"))
    assert np.abs(by_adapter - by_card).max() <= 1


# Bad designs


def pair(**changes: Any) -> dict[str, Any]:
    return {**DESIGN, "conditions": {"paired": [{**PAIR, **changes}]}}


def whole(**changes: Any) -> dict[str, Any]:
    return {**DESIGN, "conditions": {"paired": [{"global_sketch": "jacket.png", **changes}]}}


def styled(style: Any, **changes: Any) -> dict[str, Any]:
    return {**DESIGN, "conditions": {"style": [{"style": style, **changes}]}}


BAD_DESIGNS: list[tuple[Any, str]] = [
    ("{", "not JSON"),
    ('{"prompt": "a", "prompt": "b"}', "a key given twice"),
    ([], f"got \\[\\], expected an object with {KEYS[0]}"),
    ({}, "prompt: got none"),
    ({**DESIGN, "promt": "a"}, "unknown key 'promt', expected prompt, negative_prompt"),
    ({**DESIGN, "prompt": 3}, "prompt: got 3, expected words"),
    ({**DESIGN, "negative_prompt": ["a"]}, "negative_prompt: got"),
    ({**DESIGN, "seed": -1}, "seed: got -1"),
    ({**DESIGN, "seed": 1.5}, "seed: got 1.5, expected a whole number"),
    ({**DESIGN, "num_inference_steps": 0}, "num_inference_steps: got 0"),
    ({**DESIGN, "num_inference_steps": True}, "num_inference_steps: got True"),
    ({**DESIGN, "guidance_scale": float("nan")}, "guidance_scale: got nan"),
    ({**DESIGN, "guidance_scale": "3"}, "guidance_scale: got '3'"),
    ({**DESIGN, "guidance_scale": 10**400}, "guidance_scale: got 1000.*, expected a number"),
    ({**DESIGN, "height": 100}, "height: got 100, expected a multiple of 8; use 96"),
    ({**DESIGN, "width": 10**6}, "width: got 1000000"),
    ({**DESIGN, "conditions": []}, "conditions: got \\[\\], expected lists by adapter name"),
    ({**DESIGN, "conditions": {"paired": PAIR}}, "conditions.paired: got .*, expected a list"),
    ({**DESIGN, "conditions": {"paired": ["a"]}}, "conditions.paired\\[0\\]: got 'a', expected an object"),
    (
        {**DESIGN, "conditions": {"paired": [PAIR, {}]}},
        "conditions.paired\\[1\\]: got {}, expected one of the keys sketch, text, ",
    ),
    (pair(wieght=1), f"unknown key 'wieght', expected {', '.join(SketchTextPair.record_fields())}"),
    (pair(text=""), "text: got an empty text"),
    (pair(text=7), "text: got 7, expected words"),
    (pair(sketch=7), "sketch: got 7, expected the path"),
    (pair(sketch="none.png"), "image: got no file at .*none.png"),
    (pair(sketch="broken.png"), "cannot be read"),
    (pair(sketch="blank.png"), "got one tone all over"),
    (pair(weight=-1), "weight: got -1, expected a finite number of at least 0"),
    (pair(weight=float("nan")), "weight: got nan"),
    (pair(weight=float("inf")), "weight: got inf"),
    (pair(weight="1"), "weight: got '1', expected a number"),
    (pair(weight=True), "weight: got True, expected a number"),
    (pair(start=0.6, end=0.5), "schedule: got start 0.6 and end 0.5"),
    (pair(end=1.5), "schedule: got start 0.0 and end 1.5"),
    (pair(region=[0, 0, 1.1, 1]), "region: got .*1.1.*expected 0 <= left < right <= 1"),
    (pair(region=[0, 0, 1]), "region: got .*expected four numbers"),
    (pair(region={"left": 0}), 'region: got .*expected "sketch"'),
    (pair(region="none.png"), "got no file at .*none.png"),
    (pair(region="black.png"), "black everywhere"),
    (whole(global_sketch=7), "global_sketch: got 7, expected the path"),
    (whole(global_sketch="none.png"), "image: got no file at .*none.png"),
    (whole(text="all"), "unknown key 'text', expected global_sketch"),
    (whole(weight=-1), "weight: got -1"),
    (styled(7), "style: got 7, expected numbers by name"),
    (styled({"ink": "much"}), "style: got .*expected numbers by name"),
    (styled({"ink": 0}), "styles: got shares that sum to 0"),
    (styled("ink", layers=2), "layers: got 2, expected numbers by name"),
    (styled("ink", cfg="none"), "cfg: got 'none'"),
    (styled("ink", region="sketch"), 'region: got "sketch", but there is none here'),
    (styled("ink", text="a cat"), "unknown key 'text', expected style"),
    ({**DESIGN, "loras": "a"}, "loras: got 'a', expected a list"),
    ({**DESIGN, "loras": [{"lora": "none"}]}, "loras\\[0\\]: lora: got nothing at .*none"),
    ({**DESIGN, "loras": [{"lora": "jacket.png", "weight": "1"}]}, "loras\\[0\\]: weight: got '1'"),
    ({**DESIGN, "controlnets": [{"controlnet": "."}]}, "controlnets\\[0\\]: image: got none"),
    ({**DESIGN, "controlnets": [{"controlnet": ".", "image": "broken.png"}]}, "cannot be read"),
    (
        {**DESIGN, "controlnets": [{"controlnet": ".", "image": "jacket.png", "start": 1}]},
        "start: got 1, expected less",
    ),
    (pair(sketch=None), 'got "sketch" for a pair without a sketch'),
]


@pytest.mark.parametrize(("record", "message"), BAD_DESIGNS, ids=[m[:40] for _, m in BAD_DESIGNS])
def test_bad_designs_are_one_message(
    folder: Path, models: Path, capsys: pytest.CaptureFixture[str], record: Any, message: str
) -> None:
    path = write(folder, record)
    with pytest.raises(ValueError, match=message):
        read_design(path)
    assert str(path) in refused(generate(folder, models), folder, capsys)


BAD_RUNS: list[tuple[dict[str, Any], list[str], str]] = [
    ({}, ["--num_images", "0"], "num_images: got 0"),
    ({"conditions": {}}, ["--maps"], "maps: got a design without conditions"),
    ({}, ["--height", "63"], "height: got 63"),
    ({}, ["--seed", "-5"], "seed: got -5"),
    ({}, ["--output", "picture.jpg"], "output: got 'picture.jpg', expected a name that ends in .png"),
    ({}, ["--adapter", "paired"], "adapter: got 'paired', expected NAME=PATH"),
    ({}, ["--adapter", "paired=x"], "adapter: got 'paired' twice"),
    ({}, ["--adapter", "other=nowhere"], "adapter: got other=nowhere, expected a folder or a style card"),
    ({}, ["--model", "nowhere"], "model: got 'nowhere', expected a folder with model_index.json"),
    ({}, ["--adapter", f"style={__file__}"], "not a readable safetensors file"),
    ({"prompt": "x " * 200}, [], "prompt: got 200 tokens, expected at most 75"),
    (pair(text="x " * 200), [], "has 200 tokens, expected at most"),
    (whole(), [], "got a GlobalSketch, but this adapter was trained without one"),
    ({"loras": [{"lora": "jacket.png"}]}, [], "which cannot be opened"),
    ({"controlnets": [{"controlnet": ".", "image": "jacket.png"}]}, [], "which cannot be opened"),
    ({"conditions": {"peired": [PAIR]}}, [], "conditions: got 'peired', for which there is no adapter"),
]


@pytest.mark.parametrize(("changes", "options", "message"), BAD_RUNS, ids=[m[:40] for *_, m in BAD_RUNS])
def test_bad_options_are_one_message(
    folder: Path,
    models: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    options: list[str],
    message: str,
) -> None:
    write(folder, {**DESIGN, **changes})
    assert message in refused(generate(folder, models, *options), folder, capsys)


def test_a_damaged_model_is_one_message(folder: Path, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, DESIGN)
    damaged = folder / "damaged"
    damaged.mkdir()
    (damaged / "model_index.json").write_text("{")
    line = refused(generate(folder, models, "--model", str(damaged)), folder, capsys)
    assert "which cannot be opened" in line


def test_no_design(folder: Path, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "got no file at" in refused(generate(folder, models), folder, capsys)


def test_a_full_disk_leaves_the_old_picture_and_no_rest(
    folder: Path, models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, DESIGN)
    (folder / "out").mkdir()
    (folder / "out" / "picture.png").write_bytes(b"old")

    def full(self: Image.Image, file: Path, *_: Any, **__: Any) -> None:
        file.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Image.Image, "save", full)
    assert generate(folder, models) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert [(p.name, p.read_bytes()) for p in (folder / "out").iterdir()] == [("picture.png", b"old")]


# The command


def test_help_is_quick_and_lists_what_is_there() -> None:
    lines = [
        "from weftwork.scripts.cli import main",
        "try: main(['--help'])",
        "finally: assert 'torch' not in sys.modules",
    ]
    code = "\n".join(["import sys", *lines])
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [name for name in COMMANDS if f"\n    {name} " in result.stdout] == list(commands())
    assert "generate" in commands()


def test_commands_without_a_module_are_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weftwork.scripts.cli.COMMANDS", {"generate": ("generate", ""), "other": ("nothing_here", "")})
    assert list(commands()) == ["generate"]


def raising(error: BaseException) -> Callable[..., Any]:
    def run(_: Any) -> None:
        raise error

    return run


def test_interruption_and_tracebacks(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["generate", str(folder / "x.json")]
    monkeypatch.setattr("weftwork.scripts.generate.run", raising(KeyboardInterrupt()))
    assert main(arguments) == 130
    for error in (RuntimeError("mat1 and mat2"), ValueError("a bug"), TypeError("another")):
        monkeypatch.setattr("weftwork.scripts.generate.run", raising(error))
        with pytest.raises(type(error)):
            main(arguments)
    monkeypatch.setattr("weftwork.scripts.generate.run", raising(NotFiniteError("it: got worse")))
    assert main(arguments) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "weftwork: it: got worse"
    assert main([*arguments, "--traceback"]) == main(["--traceback", *arguments]) == 2
    assert capsys.readouterr().err.count("Traceback") == 2


# Many designs


def many(folder: Path, models: Path, *options: str) -> int:
    model = ["--model", str(models / "model"), "--adapter", f"paired={models / 'paired'}"]
    return main(["generate", "--input", str(folder / "all.jsonl"), "--output", str(folder / "many"), *model, *options])


def write_many(folder: Path, *records: Any) -> None:
    (folder / "all.jsonl").write_text("\n".join(json.dumps(one) for one in records) + "\n")


PAIRS = [{"sketch": "jacket.png", "text": "d"}]
FEW = (
    {"name": "one", "prompt": "a b", "num_inference_steps": 2, "seed": 3},
    {"prompt": "c", "num_inference_steps": 2, "conditions": {"paired": PAIRS}},
)


def test_many_designs_are_the_single_ones_and_none_is_made_twice(
    folder: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_many(folder, *FEW)
    assert many(folder, models) == 0
    assert {p.name for p in (folder / "many").iterdir()} == {"one.png", "000002.png"}
    write(folder, {key: value for key, value in FEW[1].items()} | {"seed": 1})
    assert generate(folder, models) == 0
    single, together = read(folder / "out/picture.png"), read(folder / "many/000002.png")
    assert np.array_equal(single[0], together[0]) and together[1]["seed"] == 1
    (folder / "many/one.png").unlink()
    kept = (folder / "many/000002.png").stat().st_mtime_ns
    capsys.readouterr()
    assert many(folder, models) == 0
    assert "1 of 2 images were there, 1 to make" in capsys.readouterr().out
    assert (folder / "many/000002.png").stat().st_mtime_ns == kept and (folder / "many/one.png").is_file()


def test_a_folder_of_other_pictures_is_left_alone(
    folder: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_many(folder, FEW[0])
    assert many(folder, models) == 0
    before = (folder / "many/one.png").read_bytes()
    write_many(folder, {**FEW[0], "prompt": "other"})
    assert many(folder, models) == 2
    assert "one.png: got an image of another design" in capsys.readouterr().err
    assert (folder / "many/one.png").read_bytes() == before


def test_every_wrong_line_is_told_and_nothing_is_made(
    folder: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_many(folder, FEW[0], {"promt": "a"}, {"name": "../x", "prompt": "a"}, {"name": "one", "prompt": "a"})
    assert many(folder, models) == 2
    said = capsys.readouterr().err
    assert all(f"line {number}: " in said for number in (2, 3, 4)) and "line 1: " not in said
    assert not (folder / "many").exists()
    write_many(folder, *FEW)
    assert many(folder, models, "--maps") == 2 and many(folder, models, "--num_images", "2") == 2
    assert main(["generate"]) == 2 and main(["generate", "a.json", "--input", "b"]) == 2


def test_one_picture_that_fails_keeps_no_other_from_being_made(
    folder: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_many(folder, {"name": "bad", "prompt": "a", "conditions": {"nothing": [{"text": "d"}]}}, FEW[0])
    assert many(folder, models) == 2
    assert "1 could not be made" in capsys.readouterr().err
    assert {p.name for p in (folder / "many").iterdir()} == {"one.png"}
