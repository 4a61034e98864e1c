"""Remedies in errors of the demo: the same request is accepted after them."""

from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from remedies import Row, array, check, given, row, table
from tiny import drawn_sketch, tiny_studio

from weftwork.attention_processors.core.records import RegionKind, SharesKind
from weftwork.datasets.readers.inline_images import as_text
from weftwork.datasets.readers.photo_lines import line_drawing
from weftwork.pipelines.designs.design import Lora
from weftwork.pipelines.designs.kinds import ListKind

pytest.importorskip("gradio")

from weftwork.scripts.demo.audio import audio_request
from weftwork.scripts.demo.command import _account, _folders
from weftwork.scripts.demo.form import FieldInput
from weftwork.scripts.demo.views import view_request

studio = cache(tiny_studio)
SKETCH = as_text(drawn_sketch())
PAIR = {"text": "a"}
PHOTO = Image.new("RGB", (8, 8))


def design(wrong: dict[str, Any], words: str, right: dict[str, Any]) -> Row:
    return row(lambda record: studio().design({"prompt": "a", **record}), given(wrong), words, given(right))


def pair(**changes: Any) -> dict[str, Any]:
    return {"conditions": {"paired": [{**PAIR, **changes}]}}


def field(kind: Any, wrong: list[Any], words: str, right: list[Any]) -> Row:
    return row(FieldInput("it", kind, []).record_value, given(wrong), f"^it: .*{words}", given(right))


def room(name: str = "Room 1", image: Any = None, depth: Any = None) -> Any:
    return view_request((64, 64), name, image, depth, 60, 0, 0, 1)


@table(
    design(pair(sketch="a.png"), "does not read; put the image in as data:image/png;base64,", pair(sketch=SKETCH)),
    design({"prompt": "a" * 2001}, "more than 2000 characters; shorten it", {"prompt": "a" * 2000}),
    design({"loras": [{"lora": "a"}]}, "which a demo does not load; use weftwork generate", {}),
    design(pair(layers={"all": 0.5}), "which a demo does not take; use weftwork generate", pair()),
    design(
        {"conditions": {"paired": [PAIR] * 17}},
        "got 17, expected at most 16; leave some out",
        {"conditions": {"paired": [PAIR] * 16}},
    ),
    design({"conditions": {"others": []}}, "no adapter for; leave it out", {"conditions": {}}),
    design({"num_inference_steps": 101}, "got 101, expected at most 100; lower it", {"num_inference_steps": 100}),
    design({"image": "a.png"}, "does not read; put the image in as data:image/png;base64,", {"image": SKETCH}),
    row(line_drawing, given(PHOTO), "photo: got an image without edges, .*; choose another one", given(drawn_sketch())),
    design({"height": 2048}, "expected at most that; choose less", {"height": 1024}),
    field(RegionKind(), ["0, 0, 1, 1", PHOTO], "got a box and a mask, .*; clear the other", ["0, 0, 1, 1"]),
    field(SharesKind(), ["a 0.5"], "expected name=share; separate several by commas", ["a=0.5, b=0.5"]),
    field(ListKind(Lora), ["a"], "expected JSON; quote texts", ['"a"']),
    row(partial(_folders, "aligned_views"), given("a"), "expected BACKBONE=MODULES; name both folders", given("a=b")),
    row(_account, given("me"), "auth: got no colon, expected USER:PASSWORD; write both", given("me:secret")),
    row(room, given("Room 0"), "expected Room 1 to Room .*; choose one", given("Room 1")),
    (
        "got no depth, expected both; upload it",
        lambda _: room(image=PHOTO),
        lambda folder: room(image=PHOTO, depth=str(array(np.eye(8) + 1)(folder))),
    ),
    ("or remove the other one", lambda _: room(image=PHOTO), lambda _: room()),
    row(
        lambda path: audio_request(path, "wood", 1.0, None, None),
        given(""),
        "Path: got none, expected a line over the image; draw one",
        given("[[0.2, 0.9, 0], [0.8, 0.9, 1]]"),
    ),
)
def test_remedies_of_the_demo(row: Row, tmp_path: Path) -> None:
    check(row, tmp_path)
