"""Remedies in errors of design files: the design is read after them."""

import json
import math
from pathlib import Path
from typing import Any

from PIL import Image
from remedies import Make, Row, as_json, check, given, image, inside, itself, nothing, of_bytes, row, table, text
from tiny import drawn_sketch

from weftwork.attention_processors import SketchTextPair
from weftwork.pipelines.designs.design import Lora
from weftwork.pipelines.designs.reader import read_design, read_designs


def design(**changes: Any) -> dict[str, Any]:
    return {"prompt": "a person", **changes}


def pair(**changes: Any) -> dict[str, Any]:
    return design(conditions={"paired": [{"text": "a jacket", **changes}]})


def styled(**changes: Any) -> dict[str, Any]:
    return design(conditions={"style": [{"style": "ink", **changes}]})


def controlled(**changes: Any) -> dict[str, Any]:
    return design(controlnets=[{"controlnet": ".", "image": "image.png", **changes}])


def varied(strength: float) -> dict[str, Any]:
    return design(variations=[{"seed": 1, "strength": strength}])


def begun(**changes: Any) -> dict[str, Any]:
    return design(image="image.png") | changes


def masked(name: str) -> dict[str, Any]:
    return begun(mask_image=name)


MASKS = [("mask.png", (64, 64), 255), ("dark.png", (64, 64), 120), ("odd.png", (60, 64), 255)]
DESIGNS: list[tuple[Any, str, Any]] = [
    ([], "design.json: got .*, expected an object with prompt.*; write {", design()),
    ({}, 'prompt: got none, expected one; add "prompt"', design()),
    (design(promt="a"), "got the unknown key 'promt'.*; rename or drop it", design()),
    (design(prompt=3), "got 3, expected words; write some, in quotes", design(prompt="3")),
    (design(negative_prompt=["a"]), "expected words; write some, in quotes", design(negative_prompt="a")),
    (design(seed=1.5), "got 1.5, expected a whole number from 0 to .*; change it", design(seed=1)),
    (design(height=100), "got 100, expected a multiple of 8; use 96 or leave it out", design(height=96)),
    (design(guidance_scale=math.nan), "got nan, .*; 1 turns guidance off", design(guidance_scale=1)),
    (design(conditions=[]), 'expected lists by adapter name; write {"paired": ', design(conditions={"paired": []})),
    (design(conditions={"a": {}}), r"conditions.a: got {}, expected a list; write \[{", design(conditions={"a": []})),
    (design(conditions={"a": ["b"]}), r"expected an object with one of .*; write {", pair()),
    (design(conditions={"a": [{}]}), r"got {}, expected one of the keys sketch, .*; add one", pair()),
    (pair(weight="1"), "weight: got '1', expected a number; write one, without quotes", pair(weight=1)),
    (pair(weight=10**400), "weight: got 1000.*, expected a number; write one", pair(weight=1000)),
    (pair(weight=-1), "weight: got -1.*; 0 turns the condition off", pair(weight=0)),
    (pair(sketch=3), "sketch: got 3, expected the path of an image; write one, in quotes", pair(sketch="image.png")),
    (pair(sketch="none.png"), "sketch: got no file at .*none.png.*; check the path", pair(sketch="image.png")),
    (pair(text=""), "text: got an empty text.*leave text out", pair(text=None, sketch="image.png")),
    (pair(cfg=3), "cfg: got 3, expected one of both, .*; write one, in quotes", pair(cfg="cond_only")),
    (pair(layers=2), 'layers: got 2, expected numbers by name; write {"name": 0.5}', pair(layers={"all": 0.5})),
    (pair(region={}), 'expected "sketch", .*or the path of a mask; use one', pair(region="sketch", sketch="image.png")),
    (pair(region="sketsh"), 'region: got no file at .*, expected "sketch", .*; check', pair(region=[0, 0, 1, 1])),
    (pair(region=[0, 0, 1]), "expected four numbers.*; pass fractions of the canvas", pair(region=[0, 0, 1, 1])),
    (styled(region={}), r"got {}, expected \[left, top, right, bottom\] or the path.*or leave it out", styled()),
    (styled(region="sketch"), "which only pairs have, expected a box or a mask; pass one", styled(region=[0, 0, 1, 1])),
    (styled(style=3), "style: got 3, expected a name, or numbers by name; write {", styled(style={"ink": 0.5})),
    (design(loras="a"), r"loras: got 'a', expected a list; write \[{", design(loras=[{"lora": "."}])),
    (design(loras=[{"lora": ""}]), "lora: got '', expected a path; write one", design(loras=[{"lora": "."}])),
    (design(loras=[{"lora": "no"}]), "lora: got nothing at .*; check the path", design(loras=[{"lora": "."}])),
    (
        controlled(start=0.5, end=0.5),
        "start: got 0.5, expected less than end .0.5.; swap",
        controlled(start=0.4, end=0.5),
    ),
    (controlled(start=0.6, end=0.5), "got start 0.6 and end 0.5", controlled(start=0.5, end=0.6)),
    (design(sampler="plms"), "sampler: got 'plms', expected one of ddim, .*; change it", design(sampler="ddim")),
    (varied(2), r"variations\[0\]: strength: got 2, expected a number from 0 to 1; change it", varied(1)),
    (design(variations={}), r"variations: got {}, expected a list; write \[{", varied(0)),
    (design(image="no.png"), "image: got no file at .*no.png.*; check the path", begun()),
    (design(image="odd.png"), "image: got 60x64 pixels, expected multiples of 8; resize it to 56x64", begun()),
    (begun(height=32), "height: got 32, expected 64, that of image; resize image", begun(height=64)),
    (design(strength=0.5), "strength: got one without image; add image, or leave strength out", begun(strength=0.5)),
    (begun(strength=0), "strength: got 0, expected a number above 0, up to 1; change it", begun(strength=1)),
    (begun(strength=math.nan), "strength: got nan, expected a number above 0, up to 1; change it", begun(strength=1)),
    (begun(strength=0.01), "strength: got 0.01 of 20 steps, .* at least one step; raise it", begun(strength=0.05)),
    (design(mask_image="mask.png"), "mask_image: got one without image; add image, or leave", masked("mask.png")),
    (masked("odd.png"), "mask_image: got 60x64 pixels, expected 64x64, .* image; resize it", masked("mask.png")),
    (masked("dark.png"), "mask_image: got no white, expected some where .*; paint it white", masked("mask.png")),
    (begun(images=["image.png"]), "images: got some beside image, expected one of both", design(images=["image.png"])),
]
FILES = inside(
    image(drawn_sketch().resize((64, 64))),
    *(image(Image.new("L", size, tone), name=name) for name, size, tone in MASKS),
)


def written(content: Any) -> Make:
    make = text(content, "design.json") if isinstance(content, str) else as_json(content, "design.json")
    return lambda folder: make(FILES(folder))


def lines(*names: Any) -> Make:
    return text("\n".join(json.dumps(design(name=name)) for name in names), "designs.jsonl")


@table(
    *(row(read_design, written(wrong), words, written(right)) for wrong, words, right in DESIGNS),
    row(read_design, written("{"), "got a text that is not JSON .*; fix it", written(design())),
    row(read_design, of_bytes(b"\xff", "design.json"), "or a PNG that weftwork made; fix it", written(design())),
    row(
        read_design,
        nothing,
        "which cannot be read .No such file.*; check the path",
        written(design()),
    ),
    row(read_design, itself, "which cannot be read .*, expected a JSON file; check the path", written(design())),
    row(read_designs, lines("../a"), "got the name '../a', expected up to 100 letters.*; rename it", lines("a")),
    row(read_designs, lines("a", "a"), "got the name 'a' again, expected each once; rename one", lines("a", "b")),
    row(read_designs, lines(), "got no design, expected one on each line; write some", lines("a")),
    row(
        lambda record: SketchTextPair.from_record(record, Path),
        given({"weight": 1}),
        "expected at least one of sketch, text; add it",
        given({"text": "a"}),
    ),
    row(lambda weight: Lora(Path(), weight), given(math.inf), "expected a finite number; change it", given(-1)),
)
def test_remedies_of_design_files(row: Row, tmp_path: Path) -> None:
    check(row, tmp_path)
