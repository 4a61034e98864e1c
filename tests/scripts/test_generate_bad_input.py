"""Bad designs and options of `weftwork generate`: one message, and nothing is written."""

import errno
import os
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tiny_designs import DESIGN, PAIR, generate, refused, write

from weftwork.attention_processors.paired.adapter import SketchTextPair
from weftwork.pipelines.designs.design import KEYS
from weftwork.pipelines.designs.reader import read_design


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
    (pair(sketch="none.png"), "sketch: got no file at .*none.png"),
    (pair(sketch="broken.png"), "paired\\[0\\]: sketch: got '.*broken.png', which cannot be read"),
    (pair(sketch="data:image/png;base64,!"), "paired\\[0\\]: sketch: got a text that is not base64"),
    ({**DESIGN, "image": "data:image/jpeg;base64,AAAA"}, "json: image: got an inline image, which cannot be read"),
    ({**DESIGN, "image": "a" * 300}, "json: image: got no file at '.*aaa', expected an image"),
    ({**DESIGN, "image": "broken.png"}, "json: image: got '.*broken.png', which cannot be read"),
    ({**DESIGN, "image": "jacket.png", "mask_image": "broken.png"}, "json: mask_image: got '.*', which cannot be"),
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
    (pair(region="none.png"), "region: got no file at .*none.png"),
    (pair(region="black.png"), "black everywhere"),
    (pair(region="broken.png"), "paired\\[0\\]: mask: got '.*broken.png', which cannot be read"),
    (whole(global_sketch=7), "global_sketch: got 7, expected the path"),
    (whole(global_sketch="none.png"), "global_sketch: got no file at .*none.png"),
    (whole(text="all"), "unknown key 'text', expected global_sketch"),
    (whole(weight=-1), "weight: got -1"),
    (styled(7), "style: got 7, expected a name, or numbers by name"),
    (styled({"ink": "much"}), "style: got .*or numbers by name"),
    (styled({"ink": 0}), "styles: got shares that sum to 0"),
    (styled("ink", layers=2), "layers: got 2, expected numbers by name"),
    (styled("ink", cfg="none"), "cfg: got 'none'"),
    (styled("ink", region="sketch"), 'region: got "sketch", which only pairs have'),
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
    ({"conditions": {"attention-control": [{"words": "a"}]}}, [], "; did you mean 'attention_control'?"),
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
    assert "which cannot be read (No such file or directory)" in refused(generate(folder, models), folder, capsys)


def test_a_full_disk_leaves_the_old_image_and_no_rest(
    folder: Path, models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, DESIGN)
    (folder / "out").mkdir()
    (folder / "out" / "picture.png").write_bytes(b"old")

    save = Image.Image.save

    def full(self: Image.Image, file: Any, *args: Any, **options: Any) -> None:
        if not isinstance(file, Path):  # images of the design, in memory
            return save(self, file, *args, **options)
        file.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Image.Image, "save", full)
    assert generate(folder, models) == 2
    assert re.search(r"picture\.png: cannot be written \(No space left on device\); make room", capsys.readouterr().err)
    assert [(p.name, p.read_bytes()) for p in (folder / "out").iterdir()] == [("picture.png", b"old")]
