"""`weftwork generate`: a design file to a PNG that stores its design."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import UNet2DConditionModel
from PIL import Image
from tiny import STYLES, style_adapter
from tiny_designs import DESIGN, PAIR, generate, read, refused, write

from weftwork.attention_processors.paired.adapter import GlobalSketch, SketchTextPair
from weftwork.attention_processors.style.adapter import Style, StyleAdapter
from weftwork.datasets.readers.errors import NotFiniteError
from weftwork.datasets.readers.inline_images import from_text
from weftwork.pipelines.designs.design import Design
from weftwork.pipelines.designs.reader import read_design
from weftwork.scripts.cli import COMMANDS, commands, main


def test_the_image_holds_its_design_and_seed(folder: Path, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, DESIGN)
    assert generate(folder, models) == 0
    path = folder / "out" / "picture.png"
    assert str(path) in capsys.readouterr().out
    assert [p.name for p in path.parent.iterdir()] == ["picture.png"]
    pixels, stored = read(path)
    assert pixels.shape == (64, 64, 3)
    assert stored["seed"] == 3
    assert stored["design"]["seed"] == 3
    [pair] = stored["design"]["conditions"]["paired"]
    with Image.open(folder / PAIR["sketch"]) as sketch:
        assert np.array_equal(np.asarray(from_text(pair.pop("sketch")).convert("L")), np.asarray(sketch.convert("L")))
    assert pair == {"text": PAIR["text"], "region": "sketch", "ink": "dark"}


def test_a_stored_design_makes_the_same_image_again(folder: Path, models: Path) -> None:
    write(folder, {**DESIGN, "seed": None})
    assert generate(folder, models, "--guidance_scale", "2.5", "--height", "72") == 0
    first, stored = read(folder / "out" / "picture.png")
    assert first.shape[:2] == (72, 64)
    write(folder, stored["design"])
    assert generate(folder, models) == 0
    assert np.array_equal(read(folder / "out" / "picture.png")[0], first)


def test_an_image_is_drawn_again_with_another_seed_beside_it(
    folder: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, DESIGN)
    assert generate(folder, models) == 0
    made, again = folder / "out" / "picture.png", folder / "again.png"
    options = ["--model", str(models / "model"), "--adapter", f"paired={models / 'paired'}", "--seed", "4"]
    assert main(["generate", str(made), *options, "--output", str(made)]) == 2
    assert "the design's own image, expected another" in capsys.readouterr().err and read(made)[1]["seed"] == 3
    assert main(["generate", str(made), *options, "--output", str(again)]) == 0
    assert read(again)[1]["design"] == {**read(made)[1]["design"], "seed": 4}


def test_one_side_alone_is_heard_without_conditions_too(folder: Path, models: Path) -> None:
    write(folder, {"prompt": "a person", "num_inference_steps": 1, "width": 80})
    assert generate(folder, models) == 0
    assert read(folder / "out" / "picture.png")[0].shape[:2] == (64, 80)


def test_several_images_count_their_seeds_on(folder: Path, models: Path) -> None:
    write(folder, DESIGN)
    assert generate(folder, models, "--num_images", "2") == 0
    names = sorted(p.name for p in (folder / "out").iterdir())
    assert names == ["picture-0.png", "picture-1.png"]
    several = [read(folder / "out" / name) for name in names]
    assert [stored["seed"] for _, stored in several] == [3, 4]
    assert generate(folder, models, "--seed", "4") == 0
    alone, _ = read(folder / "out" / "picture.png")
    assert np.abs(several[1][0] - alone).max() <= 1


def test_maps_stand_beside_the_image(folder: Path, models: Path) -> None:
    write(folder, {**DESIGN, "conditions": {"paired": [PAIR, {"text": "boots"}]}})
    assert generate(folder, models, "--maps") == 0
    assert sorted(p.name for p in (folder / "out").iterdir()) == ["picture-maps.png", "picture.png"]
    assert read(folder / "out" / "picture-maps.png")[0].shape == (64, 128, 3)


def test_an_inspection_has_measures_by_layer_and_a_page(folder: Path, models: Path) -> None:
    pytest.importorskip("matplotlib")
    write(folder, {**DESIGN, "conditions": {"paired": [PAIR, {"text": "a hat"}]}})
    assert generate(folder, models) == 0
    plain, _ = read(folder / "out/picture.png")
    seen = folder / "seen"
    assert generate(folder, models, "--maps", "--inspect", str(seen)) == 0
    assert np.array_equal(read(folder / "out/picture.png")[0], plain)
    assert (folder / "out/picture-maps.png").is_file()
    assert sorted(path.name for path in seen.iterdir()) == ["inspection.json", "inspection.png"]
    record = json.loads((seen / "inspection.json").read_text())
    assert record["conditions"] == {"paired 1": "jacket.png, a red jacket", "paired 2": "a hat"}
    assert record["steps"] == [0, 1] and list(record["ablation"]) == ["1"]
    assert record["tokens"][0] == "<|startoftext|>" and record["tokens"][-1] == "<|endoftext|>"
    ablated = record["ablation"]["1"]["layers"]
    for layer, sources in record["layers"].items():
        steps = np.array(sources["paired"]["influence"])
        assert steps.shape == (2, len(ablated[layer]["paired"]["heads"]))
        read_ = sum(np.array(sources[name]["read"]) for name in ("text", "paired 1", "paired 2"))
        np.testing.assert_allclose(read_, 1, atol=1e-4)
    with Image.open(seen / "inspection.png") as page:
        assert page.width == 1500 and len(page.getcolors(1 << 24) or ()) > 20


def test_maps_are_those_of_conditions_that_have_some(
    folder: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = {"prompt": "a cat", "region": [0, 0, 0.5, 1]}
    write(folder, {**DESIGN, "conditions": {"regional": [text]}})
    said = refused(generate(folder, models, "--maps"), folder, capsys)
    assert "maps: got conditions of regional alone, which have none; add pairs or leave --maps out" in said
    write(folder, {**DESIGN, "conditions": {"regional": [text], "paired": [PAIR]}})
    assert generate(folder, models, "--maps") == 0
    assert read(folder / "out" / "picture-maps.png")[0].shape == (64, 64, 3)


def test_maps_beside_an_inspection_are_refused_before_the_drawing(
    folder: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    unet = UNet2DConditionModel.from_pretrained(models / "model" / "unet")
    style_adapter(unet, fusion="concat").save_pretrained(folder / "concat")
    write(folder, {**DESIGN, "conditions": {"style": [{"style": STYLES[0]}]}})
    options = ("--adapter", f"style={folder / 'concat'}", "--inspect", str(folder / "seen"), "--ablate", "none")
    said = refused(generate(folder, models, "--maps", *options), folder, capsys)
    assert "maps: got conditions of style alone, whose adapters add no attention of their own" in said
    assert generate(folder, models, *options) == 0


def test_an_adapter_without_conditions_logs_a_warning(
    folder: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, {**DESIGN, "conditions": {"paired": [PAIR]}})
    assert generate(folder, models, "--adapter", f"pared={models / 'paired'}") == 0
    assert "'pared' has no effect without conditions of this name; did you mean 'paired'?" in capsys.readouterr().err
    write(folder, {"prompt": "a red jacket"})
    assert generate(folder, models, "--adapter", f"mood={models / 'paired'}") == 0
    assert "'mood' has no effect without conditions of this name; leave --adapter mood out" in capsys.readouterr().err


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
    """Generates a design with this file or folder as the style adapter."""
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
