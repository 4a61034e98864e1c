"""What errors of commands advise: the same command succeeds after it."""

import json
from pathlib import Path
from typing import Any

import pytest
from remedies import Wrong, check_command
from tiny import drawn_sketch
from tiny_designs import PAIR

from weftwork.scripts.cli import main

DESIGN: dict[str, Any] = {"prompt": "a", "seed": 3, "num_inference_steps": 1, "height": 64}
DESIGNS: dict[str, Any] = {
    "plain": DESIGN,
    "pairs": {**DESIGN, "conditions": {"paired": [PAIR]}},
    "own": {**DESIGN, "conditions": {"mine": [PAIR]}, "loras": [{"lora": "lora"}]},
    "damaged": {**DESIGN, "loras": [{"lora": "jacket.png"}]},
    "whole": {**DESIGN, "conditions": {"paired": [PAIR, {"global_sketch": "jacket.png"}]}},
    "long": {**DESIGN, "prompt": "x " * 200},
}
LINES: dict[str, list[Any]] = {
    "two": [{"name": "a", **DESIGNS["pairs"]}, {"name": "b", **DESIGNS["pairs"]}],
    "alike": [{"name": "a", **DESIGNS["pairs"]}, {"name": "a-maps", **DESIGNS["pairs"]}],
    "plain": [DESIGN],
    "long": [DESIGNS["long"]],
}


@pytest.fixture
def place(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a tiny model, adapters and designs."""
    for path in models.iterdir():
        (tmp_path / path.name).symlink_to(path)
    drawn_sketch().save(tmp_path / "jacket.png")
    for name, design in DESIGNS.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(design))
    for name, lines in LINES.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "folder.png").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


GENERATE = "generate --model model"
PLAIN = f"{GENERATE} plain.json"
PAIRS = f"{GENERATE} pairs.json --adapter paired=paired"
MANY = f"{GENERATE} --input two.jsonl --adapter paired=paired --maps"
GENERATIONS: dict[str, list[Wrong]] = {
    f"{PLAIN} --num_images 2 --output a.png": [
        (GENERATE, "got neither or both; pass one design file"),
        (f"{PLAIN} --input two.jsonl", "got neither or both; pass one design file"),
        (f"{PLAIN} --num_images 65", "expected 1 to 64; run the command again for more"),
        (f"{PLAIN} --output a.jpg", "expected a name that ends in .png; the design is stored in it"),
        (f"{PLAIN} --output folder.png", "got 'folder.png', a folder, expected a file; add a name"),
        (f"{PLAIN} --maps", "got a design without conditions, .* or leave --maps out"),
        (f"{PLAIN} --model x", "expected a folder with model_index.json or a shipped model .*; check the path"),
        (f"{GENERATE} long.json", "prompt: got 200 tokens, expected at most 75; shorten it"),
    ],
    f"{PAIRS} --maps": [
        (f"{PLAIN} --maps", "got a design without conditions, expected some; add pairs"),
        (f"{PAIRS} --adapter paired=x", "got 'paired' twice, expected each name once; drop one"),
        (f"{GENERATE} pairs.json --adapter paired=x", "expected a folder or a style card there; check the path"),
        (f"{GENERATE} whole.json --adapter paired=paired", "trained without one; leave it out"),
    ],
    MANY: [
        (GENERATE, "or --input with a file of many"),
        (MANY.replace("two", "alike"), "got 'a' and 'a-maps', which both write a-maps.png; rename one"),
        (MANY.replace("two", "plain"), "000001: maps: got a design without conditions, expected some; add pairs"),
        (MANY.replace("paired=paired", "paired=x"), "got 'x', where nothing is; check the path"),
        (
            f"{GENERATE} --input long.jsonl",
            "1 could not be made; correct these designs and run the command again\n  000001: prompt: got 200",
        ),
    ],
    f"{GENERATE} own.json --adapter mine=paired": [
        (f"{GENERATE} own.json", "'mine', for which there is no adapter.*; pass --adapter mine=PATH"),
        (f"{GENERATE} own.json --adapter mine=paired --guidance_scale 1e38", "NaN or infinite.*; lower guidance_scale"),
        (f"{GENERATE} damaged.json", "lora: got '.*', which cannot be opened .*; copy or save it again"),
    ],
}


@pytest.mark.parametrize("right", GENERATIONS)
@pytest.mark.usefixtures("place")
def test_remedies_of_generate(right: str, capsys: pytest.CaptureFixture[str]) -> None:
    check_command(right, GENERATIONS[right], capsys)


def test_other_images_are_kept_elsewhere_or_removed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    many, made = f"{GENERATE} --output many --input plain.jsonl", place / "many/000001.png"
    assert main(many.split()) == 0
    other = f"{many} --seed 7"
    wrong = [
        (other, "got an image of another design; choose another --output"),
        (f"{many} --adapter paired=paired", "got an image made with other adapter paired; choose another --output"),
    ]
    check_command(f"{other} --output elsewhere", wrong, capsys)
    drawn_sketch().save(made)
    assert main(many.split()) == 2
    assert "got an image that weftwork did not make; choose another --output, or remove it" in capsys.readouterr().err
    made.unlink()
    assert main(many.split()) == 0
